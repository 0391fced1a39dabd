import com.google.gson.*;
import com.google.protobuf.MessageOrBuilder;
import com.google.protobuf.util.JsonFormat;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import com.google.rpc.Status;
import fanfare.v1.*;
import fanfare.v1.OrchestratorServiceGrpc.OrchestratorServiceBlockingStub;
import io.grpc.*;
import io.grpc.protobuf.StatusProto;
import java.math.BigDecimal;
import java.nio.file.*;
import java.util.*;
import java.util.concurrent.TimeUnit;

/** One turn of an agent on Anthropic's Messages: {@code Agent FANFARE ANSWER}. */
public final class Agent {
  /** Numbers keep their digits, and 3.0 is 3. */
  static final Gson GSON = new GsonBuilder().serializeNulls().setObjectToNumberStrategy(in -> {
    var number = new BigDecimal(in.nextString()).stripTrailingZeros();
    return number.scale() > 0 ? number : number.toBigInteger();
  }).create();

  /** Here the model is asked: {@code client.messages().create(...)}. */
  static JsonObject askModel(Object request, String recorded) throws Exception {
    return GSON.fromJson(Files.readString(Path.of(recorded)), JsonObject.class);
  }

  /** A {@code Struct} or {@code Value}, say, as JSON. */
  static Object plain(MessageOrBuilder message) throws Exception {
    return GSON.fromJson(JsonFormat.printer().print(message), Object.class);
  }

  /** What the model gets to read of a failure: what is wrong, and whether to try again. */
  static Map<String, Object> told(Status failure) throws Exception {
    var told = new LinkedHashMap<String, Object>(Map.of("error", failure.getMessage()));
    for (var each : failure.getDetailsList()) {
      if (each.is(ErrorInfo.class)) {
        told.put("retryable", each.unpack(ErrorInfo.class).getMetadataOrDefault("retryable", "").equals("true"));
      } else if (each.is(BadRequest.class)) {
        var violations = new ArrayList<>();
        for (var wrong : each.unpack(BadRequest.class).getFieldViolationsList()) violations.add(plain(wrong));
        told.put("violations", violations);
      }
    }
    return told;
  }

  /** The results, in the order of the calls. */
  static List<ToolExecutionResult> runTools(OrchestratorServiceBlockingStub fanfare, ExecuteToolsRequest request) throws Exception {
    var results = new ArrayList<ToolExecutionResult>();
    try {
      fanfare.streamExecuteTools(request).forEachRemaining(event -> {
        var done = event.getCompletion();
        if (event.hasCompletion()) System.err.println(done.getId() + " " + done.getName() + " " + done.getError().getMessage());
        results.addAll(event.getAggregate().getResultsList());
      });
      return results;
    } catch (StatusRuntimeException error) {
      // Otherwise tools may have run, as when Fanfare says nothing: then a connection was lost.
      if (!Boolean.TRUE.equals(told(StatusProto.fromThrowable(error)).get("retryable"))) throw error;
      Thread.sleep(500); // so long a RetryInfo asks for
      return runTools(fanfare, request);
    }
  }

  public static void main(String[] options) throws Exception {
    var channel = Grpc.newChannelBuilder(options[0], InsecureChannelCredentials.create()).build();
    var fanfare = OrchestratorServiceGrpc.newBlockingStub(channel).withDeadline(Deadline.after(10, TimeUnit.SECONDS));
    var list = ListToolsRequest.newBuilder().setFormat(ToolFormat.TOOL_FORMAT_ANTHROPIC).build();
    var tools = new ArrayList<>();
    for (var definition : fanfare.listTools(list).getDefinitionsList()) tools.add(plain(definition));
    var messages = new ArrayList<Object>(List.of(Map.of("role", "user", "content", "How is the weather in Oslo and Bern?")));
    var request = Map.of("model", "claude-sonnet-4-5", "max_tokens", 1024, "tools", tools, "messages", messages);
    var answer = askModel(request, options[1]).getAsJsonArray("content");
    messages.add(Map.of("role", "assistant", "content", answer));
    var calls = ExecuteToolsRequest.newBuilder();
    for (var each : answer) {
      var use = each.getAsJsonObject();
      if (!use.get("type").getAsString().equals("tool_use")) continue;
      var call = calls.addCallsBuilder().setId(use.get("id").getAsString()).setName(use.get("name").getAsString());
      call.setArgumentsJson(use.get("input").toString());
    }
    var blocks = new ArrayList<>();
    for (var result : runTools(fanfare, calls.build())) {
      var content = GSON.toJson(result.hasError() ? told(result.getError()) : plain(result.getObservation()));
      blocks.add(Map.of("type", "tool_result", "tool_use_id", result.getId(), "content", content, "is_error", result.hasError()));
    }
    messages.add(Map.of("role", "user", "content", blocks));
    System.out.println(GSON.toJson(request)); // what the model is asked next
    channel.shutdown();
  }
}
