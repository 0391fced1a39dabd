import com.google.gson.*;
import fanfare.v1.*;
import fanfare.v1.OrchestratorServiceGrpc.OrchestratorServiceBlockingStub;
import io.grpc.*;
import java.nio.file.*;
import java.util.*;
import java.util.concurrent.TimeUnit;

/** One turn of an agent on Anthropic's Messages: {@code Agent FANFARE ANSWER}. */
public final class Agent {
  /** Here the model is asked: {@code client.messages().create(...)}. */
  static JsonObject askModel(Object request, String recorded) throws Exception {
    return Content.GSON.fromJson(Files.readString(Path.of(recorded)), JsonObject.class);
  }

  /** The results, in the order of the calls. */
  static List<ToolExecutionResult> runTools(
      OrchestratorServiceBlockingStub fanfare, ExecuteToolsRequest request) throws Exception {
    var results = new ArrayList<ToolExecutionResult>();
    try {
      var events = fanfare.streamExecuteTools(request);
      while (events.hasNext()) {
        var event = events.next();
        if (event.hasCompletion()) {
          var done = event.getCompletion();
          var error = done.getError().getMessage();
          System.err.println(done.getId() + " " + done.getName() + " " + error);
        }
        results.addAll(event.getAggregate().getResultsList());
      }
      return results;
    } catch (StatusRuntimeException error) {
      // Otherwise tools may have run, as when Fanfare says nothing: then a connection was lost.
      Thread.sleep(Content.retryMillis(error).orElseThrow(() -> error));
      return runTools(fanfare, request);
    }
  }

  public static void main(String[] options) throws Exception {
    var channel = Grpc.newChannelBuilder(options[0], InsecureChannelCredentials.create()).build();
    var deadline = Deadline.after(10, TimeUnit.SECONDS);
    var fanfare = OrchestratorServiceGrpc.newBlockingStub(channel).withDeadline(deadline);
    var list = ListToolsRequest.newBuilder().setFormat(ToolFormat.TOOL_FORMAT_ANTHROPIC).build();
    var tools = new ArrayList<>();
    for (var definition : fanfare.listTools(list).getDefinitionsList()) {
      tools.add(Content.plain(definition));
    }
    var question = Map.of("role", "user", "content", "How is the weather in Oslo and Bern?");
    var messages = new ArrayList<Object>(List.of(question));
    var model = "claude-sonnet-4-5";
    var request = Map.of("model", model, "max_tokens", 1024, "tools", tools, "messages", messages);
    var answer = askModel(request, options[1]).getAsJsonArray("content");
    messages.add(Map.of("role", "assistant", "content", answer));
    var calls = ExecuteToolsRequest.newBuilder();
    for (var each : answer) {
      var use = each.getAsJsonObject();
      if (use.get("type").getAsString().equals("tool_use")) {
        var call = calls.addCallsBuilder().setArgumentsJson(use.get("input").toString());
        call.setId(use.get("id").getAsString()).setName(use.get("name").getAsString());
      }
    }
    var blocks = new ArrayList<>();
    for (var result : runTools(fanfare, calls.build())) {
      var block = new HashMap<String, Object>();
      block.put("type", "tool_result");
      block.put("tool_use_id", result.getId());
      block.put("content", Content.of(result));
      block.put("is_error", result.hasError());
      blocks.add(block);
    }
    messages.add(Map.of("role", "user", "content", blocks));
    System.out.println(Content.GSON.toJson(request)); // what the model is asked next
    channel.shutdown();
  }
}
