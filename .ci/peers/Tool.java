import com.google.protobuf.DescriptorProtos.FileDescriptorProto;
import com.google.protobuf.DescriptorProtos.FileDescriptorSet;
import com.google.protobuf.Descriptors.FileDescriptor;
import com.google.protobuf.Descriptors.MethodDescriptor;
import com.google.protobuf.DynamicMessage;
import com.google.protobuf.Message;
import com.google.protobuf.Struct;
import com.google.protobuf.Value;
import com.google.protobuf.util.Values;
import io.grpc.ServerBuilder;
import io.grpc.ServerServiceDefinition;
import io.grpc.Status;
import io.grpc.protobuf.ProtoUtils;
import io.grpc.stub.ServerCallStreamObserver;
import io.grpc.stub.ServerCalls;
import io.grpc.stub.StreamObserver;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;

/** A tool service on grpc-java: {@code Tool DESCRIPTORS tool PORT}. */
public final class Tool {
  private final MethodDescriptor method;
  private final Map<String, Integer> calls = new ConcurrentHashMap<>();
  private final ScheduledExecutorService timer = Executors.newScheduledThreadPool(1);

  private Tool(MethodDescriptor method) {
    this.method = method;
  }

  private void callTool(Message request, StreamObserver<Message> answers) {
    var call = (ServerCallStreamObserver<Message>) answers;
    var type = method.getInputType();
    var name = (String) request.getField(type.findFieldByName("name"));
    var arguments = arguments((Message) request.getField(type.findFieldByName("arguments")));
    calls.merge(name, 1, Integer::sum);
    switch (name) {
      case "echo" -> answer(call, Values.of(arguments));
      case "sleep" -> {
        var seconds = arguments.getFieldsOrThrow("seconds");
        var millis = (long) (seconds.getNumberValue() * 1000);
        var waiting = timer.schedule(() -> answer(call, seconds), millis, TimeUnit.MILLISECONDS);
        call.setOnCancelHandler(() -> waiting.cancel(false));
      }
      case "fail" -> {
        var code = (int) arguments.getFieldsOrThrow("code").getNumberValue();
        fail(call, Status.fromCodeValue(code).withDescription("as requested"));
      }
      case "calls" -> {
        var counts = Struct.newBuilder();
        calls.forEach((tool, count) -> counts.putFields(tool, Values.of(count)));
        answer(call, Values.of(counts.build()));
      }
      default -> fail(call, Status.UNIMPLEMENTED.withDescription(name));
    }
  }

  private void answer(StreamObserver<Message> call, Value observation) {
    var type = method.getOutputType();
    var field = type.findFieldByName("observation");
    try {
      var value = DynamicMessage.parseFrom(field.getMessageType(), observation.toByteString());
      call.onNext(DynamicMessage.newBuilder(type).setField(field, value).build());
      call.onCompleted();
    } catch (java.io.IOException error) {
      throw new IllegalStateException(error);
    }
  }

  private static void fail(StreamObserver<Message> call, Status status) {
    call.onError(status.asRuntimeException());
  }

  private static Struct arguments(Message message) {
    try {
      return Struct.parseFrom(message.toByteString());
    } catch (java.io.IOException error) {
      throw new IllegalStateException(error);
    }
  }

  private io.grpc.MethodDescriptor<Message, Message> rpc() {
    return io.grpc.MethodDescriptor.<Message, Message>newBuilder()
        .setType(io.grpc.MethodDescriptor.MethodType.UNARY)
        .setFullMethodName(method.getService().getFullName() + "/" + method.getName())
        .setRequestMarshaller(marshaller(method.getInputType()))
        .setResponseMarshaller(marshaller(method.getOutputType()))
        .build();
  }

  private static io.grpc.MethodDescriptor.Marshaller<Message> marshaller(
      com.google.protobuf.Descriptors.Descriptor type) {
    return ProtoUtils.marshaller((Message) DynamicMessage.getDefaultInstance(type));
  }

  /** The descriptors of a set, in which each file comes after those that it imports. */
  private static Map<String, FileDescriptor> link(FileDescriptorSet set) throws Exception {
    var linked = new HashMap<String, FileDescriptor>();
    for (FileDescriptorProto file : set.getFileList()) {
      var imports = file.getDependencyList().stream().map(linked::get).toArray(FileDescriptor[]::new);
      linked.put(file.getName(), FileDescriptor.buildFrom(file, imports));
    }
    return linked;
  }

  public static void main(String[] options) throws Exception {
    var files = link(FileDescriptorSet.parseFrom(Files.readAllBytes(Path.of(options[0]))));
    var service = files.get("fanfare/v1/tool.proto").findServiceByName("ToolService");
    var tool = new Tool(service.findMethodByName("CallTool"));
    var definition =
        ServerServiceDefinition.builder(service.getFullName())
            .addMethod(tool.rpc(), ServerCalls.asyncUnaryCall(tool::callTool))
            .build();
    var server = ServerBuilder.forPort(Integer.parseInt(options[2])).addService(definition).build().start();
    System.out.println("listening");
    server.awaitTermination();
  }
}
