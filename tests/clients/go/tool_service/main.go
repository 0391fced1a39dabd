package main

import (
	"context"
	"log"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	fanfare "example.com/agent/fanfare/v1"
)

// A context is done when the deadline is over, or nobody waits any more.
var tools = map[string]func(context.Context, map[string]any) (any, error){"get_weather": getWeather}

func getWeather(ctx context.Context, arguments map[string]any) (any, error) {
	city, _ := arguments["city"].(string)
	if city == "" {
		return nil, status.Error(codes.InvalidArgument, "city: must not be empty")
	}
	select {
	case <-ctx.Done():
		return nil, status.FromContextError(ctx.Err()).Err()
	case <-time.After(100 * time.Millisecond): // ask a weather service here
		return map[string]any{"city": city, "celsius": 21.5}, nil
	}
}

type toolService struct {
	fanfare.UnimplementedToolServiceServer
}

func (toolService) ListTools(context.Context, *fanfare.ListToolsRequest) (*fanfare.ListToolsResponse, error) {
	city := map[string]any{"type": "string", "minLength": 1, "description": "such as Oslo"}
	schema, err := structpb.NewStruct(map[string]any{
		"type":       "object",
		"properties": map[string]any{"city": city},
		"required":   []any{"city"},
	})
	return &fanfare.ListToolsResponse{Tools: []*fanfare.Tool{
		{Name: "get_weather", Description: "Current weather of a city", Idempotent: true, InputSchema: schema},
	}}, err
}

func (toolService) CallTool(ctx context.Context, request *fanfare.CallToolRequest) (*fanfare.CallToolResponse, error) {
	tool, found := tools[request.GetName()]
	if !found {
		return nil, status.Errorf(codes.Unimplemented, "no tool %s", request.GetName())
	}
	result, err := tool(ctx, request.GetArguments().AsMap())
	if err != nil {
		return nil, err
	}
	observation, err := structpb.NewValue(result)
	return &fanfare.CallToolResponse{Observation: observation}, err
}

func main() {
	listener, err := net.Listen("tcp", os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	server, healthy := grpc.NewServer(), health.NewServer()
	fanfare.RegisterToolServiceServer(server, toolService{})
	healthpb.RegisterHealthServer(server, healthy)
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	go func() {
		<-stop
		healthy.Shutdown()
		server.GracefulStop() // takes nothing new; what runs may end
	}()
	if err := server.Serve(listener); err != nil {
		log.Fatal(err)
	}
}
