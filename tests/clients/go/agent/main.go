// One turn of an agent on OpenAI's Responses: `agent FANFARE ANSWER`.
package main

import (
	"context"
	"encoding/json"
	"io"
	"log"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/structpb"

	fanfare "example.com/agent/fanfare/v1"
)

type object = map[string]any

// askModel is where the model is asked: client.Responses.New, or a POST to /v1/responses.
func askModel(request object) (answer struct{ Output []object }) {
	must(0, json.Unmarshal(must(os.ReadFile(os.Args[2])), &answer))
	return answer
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
			output := object{"type": "function_call_output", "call_id": result.GetId(), "output": content(result)}
			outputs = append(outputs, output)
		}
	}
	if err == io.EOF {
		return outputs
	}
	delay, again := retryDelay(err)
	// Otherwise tools may have run, as when Fanfare says nothing: then a connection was lost.
	if !again {
		log.Fatal(err)
	}
	time.Sleep(delay)
	return runTools(ctx, client, calls)
}

func main() {
	connection := must(grpc.NewClient(os.Args[1], grpc.WithTransportCredentials(insecure.NewCredentials())))
	client := fanfare.NewOrchestratorServiceClient(connection)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	format := fanfare.ToolFormat_TOOL_FORMAT_OPENAI_RESPONSES
	list := must(client.ListTools(ctx, &fanfare.ListToolsRequest{Format: format}))
	tools := append([]*structpb.Struct{}, list.GetDefinitions()...)
	input := []object{{"role": "user", "content": "How is the weather in Oslo and Bern?"}}
	request := object{"model": "gpt-5.1", "tools": tools, "input": input}
	answer := askModel(request)
	var calls []*fanfare.ToolCall
	for _, item := range answer.Output {
		if item["type"] == "function_call" {
			id, name, arguments := item["call_id"].(string), item["name"].(string), item["arguments"].(string)
			calls = append(calls, &fanfare.ToolCall{Id: id, Name: name, ArgumentsJson: arguments})
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
