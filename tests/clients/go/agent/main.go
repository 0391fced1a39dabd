package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	fanfare "example.com/agent/fanfare/v1"
)

// errorInfo is what Fanfare says of an error; nil if it is not Fanfare's: then the
// connection was lost, say, and tools may have run.
func errorInfo(failure *status.Status) *errdetails.ErrorInfo {
	for _, detail := range failure.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.GetDomain() == "fanfare" {
			return info
		}
	}
	return nil
}

// message is what the model gets to read.
func message(result *fanfare.ToolExecutionResult) map[string]any {
	var content any = result.GetObservation().AsInterface()
	if failure := status.FromProto(result.GetError()); failure.Err() != nil {
		content = map[string]any{"error": failure.Message(), "reason": errorInfo(failure).GetReason()}
	}
	text, _ := json.Marshal(content)
	return map[string]any{"role": "tool", "tool_call_id": result.GetId(), "content": string(text)}
}

// runTools runs the calls of one turn: their results, in the order of the calls.
func runTools(ctx context.Context, client fanfare.OrchestratorServiceClient, calls []*fanfare.ToolCall) ([]map[string]any, error) {
	for {
		messages, err := try(ctx, client, calls)
		if errorInfo(status.Convert(err)).GetMetadata()["retryable"] != "true" {
			return messages, err
		}
		time.Sleep(500 * time.Millisecond) // so long a RetryInfo asks for
	}
}

func try(ctx context.Context, client fanfare.OrchestratorServiceClient, calls []*fanfare.ToolCall) ([]map[string]any, error) {
	stream, err := client.StreamExecuteTools(ctx, &fanfare.ExecuteToolsRequest{Calls: calls})
	if err != nil {
		return nil, err
	}
	var messages []map[string]any
	for {
		event, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return messages, nil
		}
		if err != nil {
			return nil, err
		}
		if completion := event.GetCompletion(); completion != nil {
			fmt.Fprintln(os.Stderr, "ended:", completion.GetId())
		}
		for _, result := range event.GetAggregate().GetResults() {
			messages = append(messages, message(result))
		}
	}
}

func main() {
	connection, err := grpc.NewClient(os.Args[1], grpc.WithTransportCredentials(insecure.NewCredentials()))
	arguments, invalid := structpb.NewStruct(map[string]any{"city": "Oslo"})
	if err := errors.Join(err, invalid); err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	messages, err := runTools(ctx, fanfare.NewOrchestratorServiceClient(connection), []*fanfare.ToolCall{
		{Id: "call_1", Name: "get_weather", Arguments: arguments},
		{Id: "call_2", Name: "get_weather"},
		{Id: "call_3", Name: "no_such_tool"},
	})
	if err != nil {
		log.Fatal(err)
	}
	for _, message := range messages {
		_ = json.NewEncoder(os.Stdout).Encode(message)
	}
}
