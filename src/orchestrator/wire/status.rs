//! Errors on the wire: the status of each failure, as callers get it.

use std::{collections::BTreeMap, time::Duration};

use prost::Message as _;
use tonic::{Code, Status};
use tonic_types::pb;

use crate::core::{
    admission::Full,
    error::{CallError, Effect, Reason, Violation, summary},
};

/// `ErrorInfo.domain` of every error that Fanfare names.
const DOMAIN: &str = "fanfare";
/// How many violations a status lists. Its details are sent in a header, of which peers
/// accept 8 to 16 KiB; this many stay under 4 KiB.
const MAX_VIOLATIONS: usize = 16;
/// When to retry a request that was shed: long enough for calls in flight to end, short
/// enough for an agent to wait.
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// The value of `grpc-accept-encoding`.
pub const ACCEPTED_ENCODINGS: &str = "identity,gzip";

/// `google.rpc.ErrorInfo` with sorted metadata: with the `HashMap` of the generated one,
/// equal errors would differ on the wire.
#[derive(Clone, PartialEq, prost::Message)]
struct ErrorInfo {
    #[prost(string, tag = "1")]
    reason: String,
    #[prost(string, tag = "2")]
    domain: String,
    #[prost(btree_map = "string, string", tag = "3")]
    metadata: BTreeMap<String, String>,
}

/// What is wrong with a request.
#[derive(Debug, Default)]
pub struct Violations(Vec<Violation>);

impl Violations {
    /// Adds that `field` is wrong, and how; a long `description` is truncated.
    pub fn add(&mut self, field: impl Into<String>, description: impl Into<String>) {
        self.0.push(Violation::new(field, description));
    }

    /// `Ok` if there are none.
    ///
    /// # Errors
    /// With all violations.
    pub fn into_result(self) -> Result<(), Self> {
        if self.0.is_empty() { Ok(()) } else { Err(self) }
    }
}

impl From<Violations> for Status {
    fn from(Violations(violations): Violations) -> Self {
        let message = summary(&violations);
        let violations = detail("BadRequest", &bad_request(violations));
        RequestError::invalid(Code::InvalidArgument)
            .with(violations)
            .into_status(message)
    }
}

impl From<Full> for Status {
    fn from(Full { max }: Full) -> Self {
        shed(format!(
            "too many calls in flight: this server takes {max} at a time \
             (limits.max_in_flight_calls)"
        ))
    }
}

/// Why a request failed as a whole, for its `ErrorInfo`.
///
/// Every status of ours has one. A caller's own gRPC library uses the same codes for a
/// lost connection or an expired deadline, and then tools may have run.
struct RequestError {
    code: Code,
    reason: &'static str,
    effect: Effect,
    retryable: bool,
    detail: Option<prost_types::Any>,
}

impl RequestError {
    /// No tool was called; a retry may succeed.
    fn retryable(code: Code, reason: &'static str) -> Self {
        Self {
            code,
            reason,
            effect: Effect::NotStarted,
            retryable: true,
            detail: None,
        }
    }

    /// No tool was called; a retry would fail again.
    fn permanent(code: Code, reason: &'static str) -> Self {
        Self {
            retryable: false,
            ..Self::retryable(code, reason)
        }
    }

    fn invalid(code: Code) -> Self {
        Self::permanent(code, "INVALID_REQUEST")
    }

    /// Tools may have run.
    fn started(code: Code, reason: &'static str) -> Self {
        Self {
            effect: Effect::Maybe,
            ..Self::permanent(code, reason)
        }
    }

    fn with(self, detail: prost_types::Any) -> Self {
        Self {
            detail: Some(detail),
            ..self
        }
    }

    fn into_status(self, message: impl Into<String>) -> Status {
        let message = message.into();
        let info = error_info(self.reason, self.effect, self.retryable);
        let mut details = vec![detail("ErrorInfo", &info)];
        details.extend(self.detail);
        let status = pb::Status {
            code: self.code as i32,
            message: message.clone(),
            details,
        };
        Status::with_details(self.code, message, status.encode_to_vec().into())
    }
}

/// For a request that the memory budget has no room for.
pub fn overloaded() -> Status {
    shed(
        "the server has no memory left for requests and responses \
         (limits.max_buffered_bytes)",
    )
}

fn shed(message: impl Into<String>) -> Status {
    let retry_delay = Some(super::duration(RETRY_DELAY));
    RequestError::retryable(Code::ResourceExhausted, "OVERLOADED")
        .with(detail("RetryInfo", &pb::RetryInfo { retry_delay }))
        .into_status(message)
}

/// For requests that arrive while the process drains.
pub fn draining() -> Status {
    RequestError::retryable(Code::Unavailable, "DRAINING")
        .into_status("the server is draining, send the request to another one")
}

/// For a request that was not complete before its deadline.
pub fn no_time_left() -> Status {
    expired("the request was not complete before its deadline: no tool was called")
}

/// For a request that was not complete after `timeout`.
pub fn not_complete(timeout: Duration) -> Status {
    let timeout = humantime::format_duration(timeout);
    expired(format!(
        "the request was not complete after {timeout} (server.receive_timeout): no tool was called"
    ))
}

fn expired(message: impl Into<String>) -> Status {
    RequestError::retryable(Code::DeadlineExceeded, "DEADLINE_EXCEEDED").into_status(message)
}

/// For a request whose headers are too long.
pub fn headers_too_long(bytes: usize, max: usize) -> Status {
    too_large(format!(
        "the headers are {bytes} bytes, the limit is {max} (server.max_header_list_bytes)"
    ))
}

/// For a request over `max` bytes: the limit of `setting`, or of the method.
pub fn request_too_large(max: usize, setting: Option<&str>) -> Status {
    let limit = setting.unwrap_or("the limit of this method");
    too_large(format!(
        "the request is too large: it may have {max} bytes, uncompressed ({limit})"
    ))
}

/// For a list of `count` tools that would be larger than `max` bytes.
pub fn list_too_large(count: usize, bytes: usize, max: usize) -> Status {
    RequestError::permanent(Code::ResourceExhausted, "RESPONSE_TOO_LARGE").into_status(format!(
        "the list of {count} tools is {bytes} bytes, the limit is {max} \
         (limits.max_response_bytes): ask for fewer with `names`"
    ))
}

/// For an unknown method. `services` lists the services of this server.
pub fn no_such_method(path: &str, services: &str) -> Status {
    const MAX_PATH_BYTES: usize = 200;
    let path = &path[..path.floor_char_boundary(MAX_PATH_BYTES)];
    RequestError::invalid(Code::Unimplemented).into_status(format!(
        "there is no method {path:?} here: this server has {services}"
    ))
}

fn too_large(message: String) -> Status {
    RequestError::permanent(Code::ResourceExhausted, "REQUEST_TOO_LARGE").into_status(message)
}

/// For a request that is not well-formed gRPC.
pub fn malformed(how: &str) -> Status {
    RequestError::invalid(Code::InvalidArgument)
        .into_status(format!("the request is malformed: {how}"))
}

/// For a unary request without a message, or with several (gRPC's statuscodes.md,
/// "Request cardinality violation").
pub fn not_one_message(how: &str) -> Status {
    RequestError::invalid(Code::Unimplemented)
        .into_status(format!("the request is malformed: {how}"))
}

/// For a request with a `grpc-encoding` other than [`ACCEPTED_ENCODINGS`].
pub fn unknown_compression(name: &str) -> Status {
    const MAX_ENCODING_NAME_BYTES: usize = 100;
    let end = name.floor_char_boundary(MAX_ENCODING_NAME_BYTES);
    let name = &name[..end];
    RequestError::invalid(Code::Unimplemented).into_status(format!(
        "grpc-encoding {name:?} is not known here, only {ACCEPTED_ENCODINGS}"
    ))
}

/// For a request that its caller cancelled before it was complete. Nobody reads this.
pub fn cancelled() -> Status {
    Status::cancelled("the caller cancelled the request")
}

/// For a long-lived stream over the limit per connection.
pub fn too_many_streams(max: usize) -> Status {
    RequestError::retryable(Code::ResourceExhausted, "TOO_MANY_STREAMS").into_status(format!(
        "a connection may have {max} health watches and reflection streams at a time"
    ))
}

/// Ends a long-lived stream at its deadline.
pub fn stream_is_old() -> Status {
    expired("the stream has reached its maximum age: open another")
}

/// For a request whose tools were called, but which did not end by its deadline.
pub fn answer_is_late() -> Status {
    RequestError::started(Code::DeadlineExceeded, "DEADLINE_EXCEEDED")
        .into_status("the answer was not ready by the request's deadline")
}

/// For a stream whose caller read too slowly.
pub fn read_too_slowly() -> Status {
    RequestError::started(Code::DeadlineExceeded, "DEADLINE_EXCEEDED")
        .into_status("the results were not read by the request's deadline")
}

/// For a bug of ours: the log has the details.
pub fn internal() -> Status {
    RequestError::started(Code::Internal, "INTERNAL").into_status("internal error")
}

/// The status of a failed call.
pub fn of_call_error(error: CallError) -> pb::Status {
    let mut info = error_info(error.reason.as_str(), error.effect, error.retryable);
    match &error.reason {
        Reason::DeadlineExceeded(limit) => {
            let limit = limit.as_str().to_owned();
            info.metadata.insert("limit".to_owned(), limit);
        }
        Reason::UnknownTool(Some(meant)) => {
            info.metadata.insert("suggestion".to_owned(), meant.clone());
        }
        _ => {}
    }
    let mut details = vec![detail("ErrorInfo", &info)];
    if let Some(delay) = error.retry_after {
        let retry_delay = Some(super::duration(delay));
        details.push(detail("RetryInfo", &pb::RetryInfo { retry_delay }));
    }
    let code = match error.reason {
        Reason::UnknownTool(_) => Code::NotFound as i32,
        Reason::InvalidArguments(violations) => {
            // They may have been dropped to make room for the other results.
            if !violations.is_empty() {
                details.push(detail("BadRequest", &bad_request(violations)));
            }
            Code::InvalidArgument as i32
        }
        Reason::ToolFailed(status) => {
            // Malformed details of the tool are left out.
            if let Ok(status) = pb::Status::decode(status.details) {
                details.extend(status.details);
            }
            status.code.number()
        }
        Reason::DeadlineExceeded(_) => Code::DeadlineExceeded as i32,
        Reason::ToolUnavailable | Reason::CircuitOpen => Code::Unavailable as i32,
        Reason::Cancelled => Code::Cancelled as i32,
        Reason::Overloaded | Reason::ResultTooLarge => Code::ResourceExhausted as i32,
        Reason::InvalidResponse(code) => code.number(),
        Reason::Internal => Code::Internal as i32,
    };
    pb::Status {
        code,
        message: error.message,
        details,
    }
}

fn error_info(reason: &str, effect: Effect, retryable: bool) -> ErrorInfo {
    ErrorInfo {
        reason: reason.to_owned(),
        domain: DOMAIN.to_owned(),
        metadata: BTreeMap::from([
            ("effect".to_owned(), effect.as_str().to_owned()),
            ("retryable".to_owned(), retryable.to_string()),
        ]),
    }
}

fn detail(name: &str, message: &impl prost::Message) -> prost_types::Any {
    prost_types::Any {
        type_url: format!("type.googleapis.com/google.rpc.{name}"),
        value: message.encode_to_vec(),
    }
}

fn bad_request(violations: Vec<Violation>) -> pb::BadRequest {
    let field_violations = violations
        .into_iter()
        .take(MAX_VIOLATIONS)
        .map(|violation| pb::bad_request::FieldViolation {
            field: violation.field,
            description: violation.description,
            ..Default::default()
        })
        .collect();
    pb::BadRequest { field_violations }
}
