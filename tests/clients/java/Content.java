import com.google.gson.*;
import com.google.protobuf.*;
import com.google.protobuf.util.Durations;
import com.google.protobuf.util.JsonFormat;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;
import com.google.rpc.Status;
import fanfare.v1.ToolExecutionResult;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import java.math.BigDecimal;
import java.util.*;

/** What the model gets to read. */
final class Content {
  /** Numbers keep their digits, and 3.0 is 3. */
  static final Gson GSON =
      new GsonBuilder()
          .serializeNulls()
          .setObjectToNumberStrategy(
              in -> {
                var number = new BigDecimal(in.nextString()).stripTrailingZeros();
                return number.scale() > 0 ? number : number.toBigInteger();
              })
          .create();

  /** A {@code Struct} or {@code Value}, say, as JSON. */
  static Object plain(MessageOrBuilder message) throws InvalidProtocolBufferException {
    return GSON.fromJson(JsonFormat.printer().print(message), Object.class);
  }

  /** The observation, or what is wrong and whether to try again. */
  static String of(ToolExecutionResult result) throws InvalidProtocolBufferException {
    if (!result.hasError()) {
      return GSON.toJson(plain(result.getObservation()));
    }
    var told = new LinkedHashMap<String, Object>();
    told.put("error", result.getError().getMessage());
    told.put("retryable", retryable(result.getError()));
    var violations = new ArrayList<>();
    var wrong = detail(result.getError(), BadRequest.getDefaultInstance());
    for (var each : wrong.getFieldViolationsList()) {
      violations.add(plain(each));
    }
    if (!violations.isEmpty()) {
      told.put("violations", violations);
    }
    return GSON.toJson(told);
  }

  /** After how many milliseconds a failed request may be sent again, if at all. */
  static Optional<Long> retryMillis(StatusRuntimeException error)
      throws InvalidProtocolBufferException {
    var failure = StatusProto.fromThrowable(error);
    var delay = detail(failure, RetryInfo.getDefaultInstance()).getRetryDelay();
    var millis = Math.max(Durations.toMillis(delay), 100);
    return retryable(failure) ? Optional.of(millis) : Optional.empty();
  }

  static boolean retryable(Status failure) throws InvalidProtocolBufferException {
    var info = detail(failure, ErrorInfo.getDefaultInstance());
    return info.getMetadataOrDefault("retryable", "").equals("true");
  }

  /** The first detail of this kind that a failure has, or an empty one. */
  static <T extends Message> T detail(Status failure, T empty)
      throws InvalidProtocolBufferException {
    for (var each : failure.getDetailsList()) {
      if (each.isSameTypeAs(empty)) {
        return each.unpackSameTypeAs(empty);
      }
    }
    return empty;
  }
}
