// One turn of an agent on OpenAI's Responses: `agent FANFARE ANSWER`.
package main

import (
	"context"
	"encoding/json"
	"io"
	"log"
	"os"
	"time"

	rpc "google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	fanfare "example.com/agent/fanfare/v1"
)

type object = map[string]any

// askModel is where the model is asked: client.Responses.New, or a POST to /v1/responses.
func askModel(request object) (answer struct{ Output []object }) {
	must(0, json.Unmarshal(must(os.ReadFile(os.Args[2])), &answer))
	return answer
}

// told is what the model gets to read of a failure: what is wrong, and whether to try again.
func told(failure *status.Status) object {
	told := object{"error": failure.Message()}
	for _, each := range failure.Details() {
		switch detail := each.(type) {
		case *rpc.ErrorInfo:
			told["retryable"] = detail.GetMetadata()["retryable"] == "true"
		case *rpc.BadRequest:
			told["violations"] = detail.GetFieldViolations()
		}
	}
	return told
}

// runTools answers the calls, in their order.
func runTools(ctx context.Context, client fanfare.OrchestratorServiceClient, calls []*fanfare.ToolCall) (outputs []object) {
	stream := must(client.StreamExecuteTools(ctx, &fanfare.ExecuteToolsRequest{Calls: calls}))
	event, err := stream.Recv()
	for ; err == nil; event, err = stream.Recv() {
		if done := event.GetCompletion(); done != nil {
			log.Println(done.GetDuration().AsDuration(), done.GetId(), done.GetName(), done.GetError().GetMessage())
		}
		for _, result := range event.GetAggregate().GetResults() {
			var observed any = result.GetObservation()
			if failure := result.GetError(); failure != nil {
				observed = told(status.FromProto(failure))
			}
			text := string(must(json.Marshal(observed)))
			outputs = append(outputs, object{"type": "function_call_output", "call_id": result.GetId(), "output": text})
		}
	}
	if told(status.Convert(err))["retryable"] == true {
		time.Sleep(500 * time.Millisecond) // so long a RetryInfo asks for
		return runTools(ctx, client, calls)
	}
	// Tools may have run, as when Fanfare says nothing: then a connection was lost.
	if err != io.EOF {
		log.Fatal(err)
	}
	return outputs
}

func main() {
	client := fanfare.NewOrchestratorServiceClient(must(grpc.NewClient(os.Args[1], grpc.WithTransportCredentials(insecure.NewCredentials()))))
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	list := must(client.ListTools(ctx, &fanfare.ListToolsRequest{Format: fanfare.ToolFormat_TOOL_FORMAT_OPENAI_RESPONSES}))
	input := []object{{"role": "user", "content": "How is the weather in Oslo and Bern?"}}
	request := object{"model": "gpt-5.1", "tools": append([]*structpb.Struct{}, list.GetDefinitions()...), "input": input}
	answer := askModel(request)
	var calls []*fanfare.ToolCall
	for _, item := range answer.Output {
		if item["type"] == "function_call" {
			calls = append(calls, &fanfare.ToolCall{Id: item["call_id"].(string), Name: item["name"].(string), ArgumentsJson: item["arguments"].(string)})
		}
	}
	request["input"] = append(append(input, answer.Output...), runTools(ctx, client, calls)...)
	must(0, json.NewEncoder(os.Stdout).Encode(request)) // what the model is asked next
}

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}
