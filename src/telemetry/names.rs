//! Every name that telemetry uses: spans, attributes, metrics, and what they mean.
//! The tables of `deploy/observability/telemetry.md` are compared with the ones here.
//!
//! RPC names follow the OpenTelemetry semantic conventions 1.44
//! (<https://opentelemetry.io/docs/specs/semconv/rpc/>), names of tool calls the
//! GenAI conventions 1.42, which are still in development
//! (<https://github.com/open-telemetry/semantic-conventions-genai>). What neither
//! has a word for is under `fanfare.`. The next release of the conventions renames
//! [`STATUS_CODE`]: to follow it, change that one line.

use crate::core::status::Code;

/// The version of the conventions that spans and metrics refer to.
pub const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.44.0";
/// The instrumentation scope.
pub const SCOPE: &str = "fanfare";
/// What stands for a name that a caller made up.
pub const OTHER: &str = "_OTHER";

/// `grpc`, on spans and metrics of RPCs.
pub const RPC_SYSTEM: &str = "rpc.system.name";
/// The one RPC system here.
pub const GRPC: &str = "grpc";
/// Service and method.
pub const RPC_METHOD: &str = "rpc.method";
/// The name of the gRPC status.
pub const STATUS_CODE: &str = "rpc.response.status_code";
/// What kind of failure it was.
pub const ERROR_TYPE: &str = "error.type";
/// The tool service's host, as configured.
pub const SERVER_ADDRESS: &str = "server.address";
/// The tool service's port.
pub const SERVER_PORT: &str = "server.port";
/// The IP address at the other end of the connection.
pub const PEER_ADDRESS: &str = "network.peer.address";
/// The port at the other end of the connection.
pub const PEER_PORT: &str = "network.peer.port";
/// `execute_tool`.
pub const OPERATION: &str = "gen_ai.operation.name";
/// The one operation here.
pub const EXECUTE_TOOL: &str = "execute_tool";
/// The tool.
pub const TOOL_NAME: &str = "gen_ai.tool.name";
/// `extension`: the tool runs on the server's side.
pub const TOOL_TYPE: &str = "gen_ai.tool.type";
/// The one type here.
pub const EXTENSION: &str = "extension";
/// The caller's id of the call.
pub const CALL_ID: &str = "gen_ai.tool.call.id";
/// The arguments, as JSON.
pub const ARGUMENTS: &str = "gen_ai.tool.call.arguments";
/// The observation, as JSON.
pub const RESULT: &str = "gen_ai.tool.call.result";
/// How many calls the request has.
pub const BATCH_SIZE: &str = "fanfare.batch.size";
/// How many of them failed.
pub const BATCH_FAILED: &str = "fanfare.batch.failed";
/// What time the request had.
pub const REQUEST_TIMEOUT: &str = "fanfare.request.timeout";
/// The call's place in the request.
pub const CALL_INDEX: &str = "fanfare.call.index";
/// How often the tool was asked.
pub const CALL_ATTEMPTS: &str = "fanfare.call.attempts";
/// How long the call waited for its turn.
pub const CALL_QUEUED: &str = "fanfare.call.queue_duration";
/// Whether the tool may have run.
pub const CALL_EFFECT: &str = "fanfare.call.effect";
/// Which limit ran out.
pub const CALL_LIMIT: &str = "fanfare.call.limit";
/// The number of the attempt.
pub const ATTEMPT: &str = "fanfare.attempt";
/// A tool service, by its name in the configuration.
pub const TOOL_SERVICE: &str = "fanfare.tool_service";
/// A header of a caller's context.
pub const CONTEXT_HEADER: &str = "fanfare.context.header";
/// Why a request was not taken on.
pub const REJECTION_REASON: &str = "fanfare.rejection.reason";
/// A bound that was met: the setting, or what there is only so much of.
pub const BOUND: &str = "fanfare.bound";

/// The number of a worker, from 0.
pub const WORKER: &str = "fanfare.worker.index";

/// An attribute of a span.
#[derive(Clone, Copy, Debug)]
pub struct Attribute {
    /// Its name.
    pub name: &'static str,
    /// The spans that have it.
    pub spans: &'static str,
    /// What it says.
    pub meaning: &'static str,
}

const fn on(spans: &'static str, name: &'static str, meaning: &'static str) -> Attribute {
    Attribute {
        name,
        spans,
        meaning,
    }
}

/// All attributes of spans.
#[rustfmt::skip]
pub const ATTRIBUTES: &[Attribute] = &[
    on("SERVER, CLIENT", RPC_SYSTEM, "`grpc`"),
    on("SERVER, CLIENT", RPC_METHOD, "service and method; `_OTHER` for what is not served"),
    on("SERVER, CLIENT", STATUS_CODE, "the gRPC status, such as `OK`"),
    on("all", ERROR_TYPE, "on failure: the status, or for a call the `reason` of its error"),
    on("SERVER, CLIENT", PEER_ADDRESS, "the IP address of the caller, or of the replica that was asked"),
    on("SERVER", BATCH_SIZE, "calls in the request"),
    on("SERVER", BATCH_FAILED, "how many of them failed"),
    on("SERVER", REQUEST_TIMEOUT, "seconds that the request had when it arrived"),
    on("INTERNAL", OPERATION, "`execute_tool`"),
    on("INTERNAL", TOOL_NAME, "the tool"),
    on("INTERNAL", TOOL_TYPE, "`extension`"),
    on("INTERNAL", CALL_ID, "the caller's id, if not empty"),
    on("INTERNAL", CALL_INDEX, "the call's place in the request, from 0"),
    on("INTERNAL", CALL_ATTEMPTS, "how often the tool was asked"),
    on("INTERNAL", CALL_QUEUED, "seconds that the call waited for its turn"),
    on("INTERNAL", CALL_EFFECT, "on failure: `not_started`, `maybe` or `done`"),
    on("INTERNAL", CALL_LIMIT, "on DEADLINE_EXCEEDED: `call`, `tool`, `request` or `server`"),
    on("INTERNAL", ARGUMENTS, "opt-in: the arguments as JSON, cut to size"),
    on("INTERNAL", RESULT, "opt-in: the observation as JSON, cut to size"),
    on("CLIENT", SERVER_ADDRESS, "the tool service's host, as configured"),
    on("CLIENT", SERVER_PORT, "its port"),
    on("CLIENT", PEER_PORT, "the port of the replica that was asked"),
    on("CLIENT", ATTEMPT, "the number of the attempt, from 1"),
];

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// Histogram, counter or gauge.
    pub kind: &'static str,
    /// UCUM.
    pub unit: &'static str,
    /// Labels.
    pub attributes: &'static [&'static str],
    /// What it says.
    pub meaning: &'static str,
}

const fn metric(
    name: &'static str,
    kind: &'static str,
    unit: &'static str,
    attributes: &'static [&'static str],
    meaning: &'static str,
) -> Metric {
    Metric {
        name,
        kind,
        unit,
        attributes,
        meaning,
    }
}

macro_rules! metrics {
    ($($constant:ident = $name:literal, $kind:literal, $unit:literal, $attributes:expr, $meaning:literal;)*) => {
        $(
            #[doc = $meaning]
            pub const $constant: Metric = metric($name, $kind, $unit, $attributes, $meaning);
        )*
        /// All metrics.
        pub const METRICS: &[Metric] = &[$($constant),*];
    };
}

metrics! {
    SERVER_DURATION = "rpc.server.call.duration", "histogram", "s",
        &[RPC_SYSTEM, RPC_METHOD, STATUS_CODE, ERROR_TYPE],
        "an RPC, from arrival to its last byte";
    CLIENT_DURATION = "rpc.client.call.duration", "histogram", "s",
        &[RPC_SYSTEM, RPC_METHOD, SERVER_ADDRESS, SERVER_PORT, TOOL_NAME, STATUS_CODE, ERROR_TYPE],
        "one attempt at a tool";
    TOOL_DURATION = "gen_ai.execute_tool.duration", "histogram", "s",
        &[TOOL_NAME, TOOL_TYPE, ERROR_TYPE],
        "a call, with waiting and all attempts";
    ACTIVE_REQUESTS = "fanfare.active_requests", "gauge", "{request}",
        &[RPC_METHOD],
        "RPCs that are running";
    IN_FLIGHT_CALLS = "fanfare.in_flight_calls", "gauge", "{call}",
        &[],
        "calls that were accepted and whose results have not been sent yet";
    IN_FLIGHT_LIMIT = "fanfare.in_flight_calls.limit", "gauge", "{call}",
        &[],
        "their limit: `limits.max_in_flight_calls`";
    BUFFERED_BYTES = "fanfare.buffered", "gauge", "By",
        &[],
        "memory held by requests, observations and answers that have not been sent yet";
    BUFFERED_LIMIT = "fanfare.buffered.limit", "gauge", "By",
        &[],
        "its limit: `limits.max_buffered_bytes`";
    SERVER_CONNECTIONS = "fanfare.connections", "gauge", "{connection}",
        &[],
        "open connections of callers";
    SERVER_CONNECTIONS_LIMIT = "fanfare.connections.limit", "gauge", "{connection}",
        &[],
        "their limit: `server.max_connections`, or less if there are not enough file descriptors";
    WORKER_CONNECTIONS = "fanfare.worker.connections", "gauge", "{connection}",
        &[WORKER],
        "connections of callers that a worker has";
    WORKER_BUSY = "fanfare.worker.busy_time", "counter", "s",
        &[WORKER],
        "how long a worker was busy: the rate is the part of a core that it uses";
    WORKER_STUCK = "fanfare.worker.stuck", "gauge", "{worker}",
        &[WORKER],
        "1 if a worker has done nothing for 5 s or longer although it had something to do: `/healthz` then answers 503";
    OVERFLOWS = "fanfare.overflows", "counter", "{event}",
        &[BOUND],
        "how often a limit was reached that no caller is told of: `server.max_connections` and `admin_connections` (a connection was closed), `file_descriptors` (a connection had to wait), `unread_bodies` (a refused request was reset instead of read), `resolved_addresses` (some addresses of a name are not used)";
    ACTIVE_CALLS = "fanfare.tool.active_calls", "gauge", "{call}",
        &[TOOL_NAME],
        "calls that are with their tool; cancelled ones count until their stream is reset";
    QUEUE_LENGTH = "fanfare.tool.queue.length", "gauge", "{call}",
        &[TOOL_NAME],
        "calls that wait in their tool's queue";
    QUEUE_WAIT = "fanfare.tool.queue.wait.duration", "histogram", "s",
        &[TOOL_NAME],
        "how long calls waited in the queue, of those that waited 0.1 ms or longer";
    REQUEST_REJECTIONS = "fanfare.request.rejections", "counter", "{request}",
        &[RPC_METHOD, REJECTION_REASON],
        "requests that were rejected";
    TOOL_REJECTIONS = "fanfare.tool.rejections", "counter", "{call}",
        &[TOOL_NAME, ERROR_TYPE],
        "calls that failed before anything was sent to their tool";
    RETRIES = "fanfare.tool.retries", "counter", "{attempt}",
        &[TOOL_NAME],
        "attempts after the first";
    TIMEOUTS = "fanfare.tool.timeouts", "counter", "{call}",
        &[TOOL_NAME, CALL_LIMIT],
        "calls that timed out, by the limit that was reached: `call`, `tool`, `request` or `server`";
    CONTEXT_LEFT_OUT = "fanfare.context.left_out", "counter", "{header}",
        &[CONTEXT_HEADER],
        "`baggage`, `tracestate` or `traceparent` headers that were left out of an attempt: over W3C's limits, or more than the tool service accepts";
    REQUEST_BATCH_SIZE = "fanfare.request.batch.size", "histogram", "{call}",
        &[RPC_METHOD],
        "calls in a request";
    SAVED_TIME = "fanfare.request.saved_time", "counter", "s",
        &[RPC_METHOD],
        "the sum of the durations of the calls, less the duration of their request";
    DEADLINE_SLACK = "fanfare.request.deadline.slack", "histogram", "s",
        &[RPC_METHOD],
        "the time that was left until the caller's deadline when the answer was complete";
    BREAKER_STATE = "fanfare.tool_service.breaker.state", "gauge", "{state}",
        &[TOOL_SERVICE],
        "state of its circuit breaker: 0 closed, 1 half-open, 2 open";
    BREAKER_OPENINGS = "fanfare.tool_service.breaker.openings", "counter", "{opening}",
        &[TOOL_SERVICE],
        "how often its circuit breaker has opened";
    TOOL_BREAKER_STATE = "fanfare.tool.breaker.state", "gauge", "{state}",
        &[TOOL_NAME],
        "state of the tool's own circuit breaker: 0 closed, 1 half-open, 2 open";
    TOOL_BREAKER_OPENINGS = "fanfare.tool.breaker.openings", "counter", "{opening}",
        &[TOOL_NAME],
        "how often the tool's own circuit breaker has opened";
    CONNECTIONS = "fanfare.tool_service.connections", "gauge", "{connection}",
        &[TOOL_SERVICE],
        "open connections to it";
    CONNECTIVITY = "fanfare.tool_service.connectivity.state", "gauge", "{state}",
        &[TOOL_SERVICE],
        "whether it can be reached: 1 idle (unknown), 2 connecting, 3 ready, 4 transient failure (the last attempt failed)";
    EJECTED = "fanfare.tool_service.ejected_addresses", "gauge", "{address}",
        &[TOOL_SERVICE],
        "its addresses that are ejected because they kept failing";
    WORN_CONNECTIONS = "fanfare.tool_service.worn_connections", "counter", "{connection}",
        &[TOOL_SERVICE],
        "connections that were replaced because many calls on them had been cancelled";
    SERVICE_TOOLS = "fanfare.tool_service.tools", "gauge", "{tool}",
        &[TOOL_SERVICE],
        "tools of a service that is asked which ones it has";
    LEFT_OUT_TOOLS = "fanfare.tool_service.left_out_tools", "gauge", "{tool}",
        &[TOOL_SERVICE],
        "of what such a service has and should be exposed, how many are no tools: the log says why";
    TOOL_CHANGES = "fanfare.tool_service.tool_changes", "counter", "{change}",
        &[TOOL_SERVICE],
        "how often such a service had something else than before: each time a new catalogue comes into force";
    REFRESH_AGE = "fanfare.tool_service.refresh.age", "gauge", "s",
        &[TOOL_SERVICE],
        "how long ago such a service could last be asked; if never, since when it can't";
    FAILED_REFRESHES = "fanfare.tool_service.refresh.failures", "counter", "{refresh}",
        &[TOOL_SERVICE],
        "how often such a service could not be asked, or answered with nonsense: what it had before stays in force";
    DROPPED_SPANS = "fanfare.telemetry.dropped_spans", "counter", "{span}",
        &[ERROR_TYPE],
        "spans that did not reach the collector: `queue_full` or `export_failed`";
    IGNORED_SETTINGS = "fanfare.telemetry.ignored_settings", "gauge", "{setting}",
        &[],
        "`OTEL_*` values that are ignored because they are unknown or out of range: the log names them";
    DROPPED_LINES = "fanfare.log.dropped_lines", "counter", "{line}",
        &[ERROR_TYPE],
        "log lines that were dropped: `throttled`, because there were many alike, or `queue_full`";
}

/// The methods that callers may name; the others are counted as [`OTHER`].
pub const METHODS: &[&str] = &[
    "fanfare.v1.OrchestratorService/ExecuteTools",
    "fanfare.v1.OrchestratorService/StreamExecuteTools",
    "fanfare.v1.OrchestratorService/ListTools",
    CALL_TOOL,
    "fanfare.v1.ToolService/ListTools",
    "grpc.health.v1.Health/Check",
    "grpc.health.v1.Health/Watch",
    "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    OTHER,
];
/// What a tool service serves.
pub const CALL_TOOL: &str = "fanfare.v1.ToolService/CallTool";

/// A status as the conventions spell it.
pub fn code(code: tonic::Code) -> &'static str {
    Code::from_number(code as i32).name()
}
