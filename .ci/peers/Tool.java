import com.google.protobuf.Struct;
import com.google.protobuf.Value;
import com.google.protobuf.util.Values;
import fanfare.v1.CallToolRequest;
import fanfare.v1.CallToolResponse;
import fanfare.v1.ToolServiceGrpc.ToolServiceImplBase;
import io.grpc.ServerBuilder;
import io.grpc.Status;
import io.grpc.protobuf.services.ProtoReflectionServiceV1;
import io.grpc.stub.ServerCallStreamObserver;
import io.grpc.stub.StreamObserver;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;

/** A tool service with reflection on grpc-java: {@code Tool tool PORT}. */
public final class Tool extends ToolServiceImplBase {
  private final Map<String, Integer> calls = new ConcurrentHashMap<>();
  private final ScheduledExecutorService timer = Executors.newScheduledThreadPool(1);

  @Override
  public void callTool(CallToolRequest request, StreamObserver<CallToolResponse> answers) {
    var call = (ServerCallStreamObserver<CallToolResponse>) answers;
    var arguments = request.getArguments();
    calls.merge(request.getName(), 1, Integer::sum);
    switch (request.getName()) {
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
      default -> fail(call, Status.UNIMPLEMENTED.withDescription(request.getName()));
    }
  }

  private static void answer(StreamObserver<CallToolResponse> call, Value observation) {
    call.onNext(CallToolResponse.newBuilder().setObservation(observation).build());
    call.onCompleted();
  }

  private static void fail(StreamObserver<CallToolResponse> call, Status status) {
    call.onError(status.asRuntimeException());
  }

  public static void main(String[] options) throws Exception {
    var server = ServerBuilder.forPort(Integer.parseInt(options[1])).addService(new Tool());
    server.addService(ProtoReflectionServiceV1.newInstance()).build().start();
    System.out.println("listening");
    Thread.currentThread().join();
  }
}
