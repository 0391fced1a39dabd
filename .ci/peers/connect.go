// A gRPC service on Connect: `connect PORT REFLECTION...`, where REFLECTION is v1 or v1alpha.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"

	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"
	"connectrpc.com/grpcreflect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/examples/helloworld/helloworld"
)

const greeter = "helloworld.Greeter"

func sayHello(_ context.Context, request *connect.Request[helloworld.HelloRequest]) (*connect.Response[helloworld.HelloReply], error) {
	if request.Msg.GetName() == "" {
		refused := connect.NewError(connect.CodeInvalidArgument, errors.New("who is it?"))
		violation := &errdetails.BadRequest_FieldViolation{Field: "name", Description: "must not be empty"}
		detail, err := connect.NewErrorDetail(&errdetails.BadRequest{
			FieldViolations: []*errdetails.BadRequest_FieldViolation{violation},
		})
		if err != nil {
			return nil, err
		}
		refused.AddDetail(detail)
		return nil, refused
	}
	return connect.NewResponse(&helloworld.HelloReply{Message: "Hello " + request.Msg.GetName()}), nil
}

func main() {
	mux := http.NewServeMux()
	mux.Handle("/"+greeter+"/SayHello", connect.NewUnaryHandler("/"+greeter+"/SayHello", sayHello))
	mux.Handle(grpchealth.NewHandler(grpchealth.NewStaticChecker(greeter)))
	reflector := grpcreflect.NewStaticReflector(greeter, grpchealth.HealthV1ServiceName)
	if slices.Contains(os.Args, "v1") {
		mux.Handle(grpcreflect.NewHandlerV1(reflector))
	}
	if slices.Contains(os.Args, "v1alpha") {
		mux.Handle(grpcreflect.NewHandlerV1Alpha(reflector))
	}
	listener, err := net.Listen("tcp", "127.0.0.1:"+os.Args[1])
	if err != nil {
		panic(err)
	}
	fmt.Println("listening")
	server := http.Server{Handler: mux, Protocols: new(http.Protocols)}
	server.Protocols.SetUnencryptedHTTP2(true)
	panic(server.Serve(listener))
}
