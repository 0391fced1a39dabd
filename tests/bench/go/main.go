// A yardstick: the orchestrator as anybody would write it in Go. A goroutine for
// each call with a time limit of its own, results in the slots of their calls, a
// WaitGroup, one ClientConn to the tools, completions through a channel; a call
// that fails or takes too long is data. No limits on requests, no retries, no
// telemetry. All settings are grpc-go's defaults.
package main

import (
	"context"
	"fmt"
	"log"
	"net"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	fanfare "example.com/bench/fanfare/v1"
)

// For calls that have no timeout of their own: Fanfare's default.
const callTimeout = 30 * time.Second

type orchestrator struct {
	fanfare.UnimplementedOrchestratorServiceServer
	tools fanfare.ToolServiceClient
}

func (o *orchestrator) ExecuteTools(
	ctx context.Context, request *fanfare.ExecuteToolsRequest,
) (*fanfare.ExecuteToolsResponse, error) {
	return o.execute(ctx, request.Calls, nil), nil
}

func (o *orchestrator) StreamExecuteTools(
	request *fanfare.ExecuteToolsRequest,
	stream grpc.ServerStreamingServer[fanfare.StreamExecuteToolsResponse],
) error {
	// Has room for all, so that no call waits for a caller that has gone.
	completions := make(chan *fanfare.ToolExecutionResult, len(request.Calls))
	aggregate := make(chan *fanfare.ExecuteToolsResponse, 1)
	go func() {
		aggregate <- o.execute(stream.Context(), request.Calls, completions)
		close(completions)
	}()
	for result := range completions {
		err := stream.Send(&fanfare.StreamExecuteToolsResponse{
			Event: &fanfare.StreamExecuteToolsResponse_Completion{Completion: result},
		})
		if err != nil {
			return err
		}
	}
	return stream.Send(&fanfare.StreamExecuteToolsResponse{
		Event: &fanfare.StreamExecuteToolsResponse_Aggregate{Aggregate: <-aggregate},
	})
}

// execute runs the calls at once and waits for all.
func (o *orchestrator) execute(
	ctx context.Context, calls []*fanfare.ToolCall, completions chan<- *fanfare.ToolExecutionResult,
) *fanfare.ExecuteToolsResponse {
	start := time.Now()
	results := make([]*fanfare.ToolExecutionResult, len(calls))
	var running sync.WaitGroup
	for index, call := range calls {
		running.Go(func() {
			results[index] = o.run(ctx, index, call)
			if completions != nil {
				completions <- results[index]
			}
		})
	}
	running.Wait()
	end := time.Now()
	return &fanfare.ExecuteToolsResponse{
		Results:   results,
		StartTime: timestamppb.New(start),
		EndTime:   timestamppb.New(end),
		Duration:  durationpb.New(end.Sub(start)),
	}
}

func (o *orchestrator) run(ctx context.Context, index int, call *fanfare.ToolCall) *fanfare.ToolExecutionResult {
	timeout := callTimeout
	if call.Timeout != nil {
		timeout = call.Timeout.AsDuration()
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	start := time.Now()
	reply, err := o.tools.CallTool(ctx, &fanfare.CallToolRequest{
		Id:        call.Id,
		Name:      call.Name,
		Arguments: call.Arguments,
		Attempt:   1,
	})
	end := time.Now()
	result := &fanfare.ToolExecutionResult{
		Index:     uint32(index),
		Id:        call.Id,
		Name:      call.Name,
		StartTime: timestamppb.New(start),
		EndTime:   timestamppb.New(end),
		Duration:  durationpb.New(end.Sub(start)),
		Attempts:  1,
	}
	if err != nil {
		result.Outcome = &fanfare.ToolExecutionResult_Error{Error: status.Convert(err).Proto()}
	} else {
		result.Outcome = &fanfare.ToolExecutionResult_Observation{Observation: reply.Observation}
	}
	return result
}

// Takes the address of the tools.
func main() {
	tools, err := grpc.NewClient(os.Args[1], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("listening on", listener.Addr())
	server := grpc.NewServer()
	fanfare.RegisterOrchestratorServiceServer(server, &orchestrator{tools: fanfare.NewToolServiceClient(tools)})
	log.Fatal(server.Serve(listener))
}
