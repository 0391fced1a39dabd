// A tool service and a caller on grpc-go: `peer DESCRIPTORS tool PORT`,
// `peer DESCRIPTORS call TARGET`.
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

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
)

var files *protoregistry.Files

func method(path string) protoreflect.MethodDescriptor {
	name := strings.ReplaceAll(strings.TrimPrefix(path, "/"), "/", ".")
	return must(files.FindDescriptorByName(protoreflect.FullName(name))).(protoreflect.MethodDescriptor)
}

func toJSON(message proto.Message) ([]byte, error) {
	return protojson.MarshalOptions{Resolver: dynamicpb.NewTypes(files)}.Marshal(message)
}

type tools struct {
	lock  sync.Mutex
	calls map[string]int
}

func (t *tools) callTool(ctx context.Context, name string, arguments map[string]any) (any, error) {
	t.lock.Lock()
	defer t.lock.Unlock()
	t.calls[name]++
	switch name {
	case "echo":
		return arguments, nil
	case "sleep":
		t.lock.Unlock()
		defer t.lock.Lock()
		select {
		case <-ctx.Done():
			return nil, status.FromContextError(ctx.Err()).Err()
		case <-time.After(time.Duration(arguments["seconds"].(float64) * float64(time.Second))):
			return arguments["seconds"], nil
		}
	case "fail":
		return nil, status.Error(codes.Code(arguments["code"].(float64)), "as requested")
	case "calls":
		return t.calls, nil
	}
	return nil, status.Error(codes.Unimplemented, name)
}

func serve(port string) {
	called := method("fanfare.v1.ToolService/CallTool")
	t := tools{calls: map[string]int{}}
	handler := func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		request := dynamicpb.NewMessage(called.Input())
		if err := decode(request); err != nil {
			return nil, err
		}
		var call struct {
			Name      string
			Arguments map[string]any
		}
		if err := json.Unmarshal(must(toJSON(request)), &call); err != nil {
			return nil, err
		}
		observation, err := t.callTool(ctx, call.Name, call.Arguments)
		if err != nil {
			return nil, err
		}
		response := dynamicpb.NewMessage(called.Output())
		return response, protojson.Unmarshal(must(json.Marshal(map[string]any{"observation": observation})), response)
	}
	server := grpc.NewServer()
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: "fanfare.v1.ToolService",
		Methods:     []grpc.MethodDesc{{MethodName: "CallTool", Handler: handler}},
	}, nil)
	listener := must(net.Listen("tcp", "127.0.0.1:"+port))
	fmt.Println("listening")
	panic(server.Serve(listener))
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

func call(connection *grpc.ClientConn, o order) (json.RawMessage, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(o.Timeout*float64(time.Second)))
	var options []grpc.CallOption
	if o.Gzip {
		options = append(options, grpc.UseCompressor(gzip.Name))
	}
	ctx = metadata.NewOutgoingContext(ctx, metadata.New(o.Metadata))
	called := method(o.Method)
	description := grpc.StreamDesc{ClientStreams: true, ServerStreams: o.Unread}
	stream, err := connection.NewStream(ctx, &description, o.Method, options...)
	if err != nil {
		return nil, err
	}
	for _, body := range o.Requests {
		request := dynamicpb.NewMessage(called.Input())
		if err := protojson.Unmarshal(body, request); err != nil {
			return nil, err
		}
		// An error here is io.EOF; RecvMsg tells what it was.
		_ = stream.SendMsg(request)
	}
	_ = stream.CloseSend()
	if o.Unread {
		return json.RawMessage("null"), nil
	}
	defer cancel()
	response := dynamicpb.NewMessage(called.Output())
	if err := stream.RecvMsg(response); err != nil {
		return nil, err
	}
	return toJSON(response)
}

func makeCalls(target string) {
	connection := must(grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials())))
	orders := bufio.NewScanner(os.Stdin)
	orders.Buffer(nil, 64<<20)
	for orders.Scan() {
		var o order
		if err := json.Unmarshal(orders.Bytes(), &o); err != nil {
			panic(err)
		}
		response, err := call(connection, o)
		answer := map[string]any{"code": status.Code(err), "message": status.Convert(err).Message()}
		if response != nil {
			answer["response"] = response
		}
		fmt.Println(string(must(json.Marshal(answer))))
	}
}

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func main() {
	var set descriptorpb.FileDescriptorSet
	if err := proto.Unmarshal(must(os.ReadFile(os.Args[1])), &set); err != nil {
		panic(err)
	}
	files = must(protodesc.NewFiles(&set))
	if os.Args[2] == "tool" {
		serve(os.Args[3])
	} else {
		makeCalls(os.Args[3])
	}
}
