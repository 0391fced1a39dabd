// A tool service with reflection and a caller on grpc-go: `peer tool PORT`, `peer call TARGET`.
//
// The caller makes a call for each line of its input, a JSON object, and answers with a line.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	_ "google.golang.org/genproto/googleapis/rpc/errdetails" // so that details can be printed
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	fanfare "example.com/agent/fanfare/v1"
)

type tools struct {
	fanfare.UnimplementedToolServiceServer
	lock  sync.Mutex
	calls map[string]any
}

func (t *tools) CallTool(ctx context.Context, call *fanfare.CallToolRequest) (*fanfare.CallToolResponse, error) {
	t.lock.Lock()
	count, _ := t.calls[call.Name].(int)
	t.calls[call.Name] = count + 1
	calls := must(structpb.NewValue(t.calls))
	t.lock.Unlock()
	arguments := call.Arguments.GetFields()
	observation := structpb.NewStructValue(call.Arguments)
	switch call.Name {
	case "echo":
	case "sleep":
		select {
		case <-ctx.Done():
			return nil, status.FromContextError(ctx.Err()).Err()
		case <-time.After(time.Duration(arguments["seconds"].GetNumberValue() * float64(time.Second))):
			observation = arguments["seconds"]
		}
	case "fail":
		return nil, status.Error(codes.Code(arguments["code"].GetNumberValue()), "as requested")
	case "calls":
		observation = calls
	default:
		return nil, status.Error(codes.Unimplemented, call.Name)
	}
	return &fanfare.CallToolResponse{Observation: observation}, nil
}

// order is a call that is to be made.
type order struct {
	Method   string
	Requests []json.RawMessage
	Metadata map[string]string
	Timeout  float64
	Gzip     bool
	// Nothing of the answer is read, and the call stays open.
	Unread bool
}

func call(connection *grpc.ClientConn, o order) (proto.Message, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(o.Timeout*float64(time.Second)))
	var options []grpc.CallOption
	if o.Gzip {
		options = append(options, grpc.UseCompressor(gzip.Name))
	}
	ctx = metadata.NewOutgoingContext(ctx, metadata.New(o.Metadata))
	description := grpc.StreamDesc{ClientStreams: true, ServerStreams: o.Unread}
	stream, err := connection.NewStream(ctx, &description, o.Method, options...)
	if err != nil {
		return nil, err
	}
	var request, response proto.Message = &fanfare.ExecuteToolsRequest{}, &fanfare.ExecuteToolsResponse{}
	if strings.Contains(o.Method, "Health") {
		request, response = &grpc_health_v1.HealthCheckRequest{}, &grpc_health_v1.HealthCheckResponse{}
	}
	for _, body := range o.Requests {
		must(0, protojson.Unmarshal(body, request))
		// An error here is io.EOF; RecvMsg tells what it was.
		_ = stream.SendMsg(request)
	}
	_ = stream.CloseSend()
	if o.Unread {
		return nil, nil
	}
	defer cancel()
	return response, stream.RecvMsg(response)
}

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func main() {
	if os.Args[1] == "tool" {
		server := grpc.NewServer()
		fanfare.RegisterToolServiceServer(server, &tools{calls: map[string]any{}})
		reflection.Register(server)
		listener := must(net.Listen("tcp", "127.0.0.1:"+os.Args[2]))
		fmt.Println("listening")
		panic(server.Serve(listener))
	}
	connection := must(grpc.NewClient(os.Args[2], grpc.WithTransportCredentials(insecure.NewCredentials())))
	orders := bufio.NewScanner(os.Stdin)
	orders.Buffer(nil, 64<<20)
	for orders.Scan() {
		var o order
		must(0, json.Unmarshal(orders.Bytes(), &o))
		response, err := call(connection, o)
		answer := map[string]any{"code": status.Code(err), "message": status.Convert(err).Message()}
		if err == nil && response != nil {
			answer["response"] = json.RawMessage(must(protojson.Marshal(response)))
		}
		fmt.Println(string(must(json.Marshal(answer))))
	}
}
