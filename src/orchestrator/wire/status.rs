//! Errors on the wire: the one table of what each failure looks like to a caller.

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
/// How many violations a caller is told of. The details of a status travel in a
/// header, and peers accept 8 to 16 KiB of those: so many, with the first as the
/// message of the status, stay under 4 KiB.
const MAX_VIOLATIONS: usize = 16;
/// When to try again after a request was shed. Long enough for in-flight calls
/// to end, short enough for an agent that waits.
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// The compressions of messages that are understood, as `grpc-accept-encoding` says.
pub const ACCEPTED_ENCODINGS: &str = "identity,gzip";

/// `google.rpc.ErrorInfo` with its metadata in order: the generated one has a
/// `HashMap`, and equal errors would differ on the wire.
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
    /// Notes that `field` is wrong, and how; a long `description` is cut.
    pub fn add(&mut self, field: impl Into<String>, description: impl Into<String>) {
        self.0.push(Violation::new(field, description));
    }

    /// `Err` if anything was wrong.
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
        let told = detail("BadRequest", &bad_request(violations));
        let failure = NotServed::refused(Code::InvalidArgument, "INVALID_REQUEST", Again::InVain);
        failure.with(told).says(message)
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

/// Why a request was not served: what its `ErrorInfo` says, and more details.
///
/// There is one in every status of ours. The same codes come from a caller's own gRPC
/// library, for a connection that was lost or a deadline of its own, and then tools may
/// have run.
struct NotServed {
    code: Code,
    reason: &'static str,
    effect: Effect,
    again: Again,
    more: Option<prost_types::Any>,
}

/// Whether the same request sent again has a chance, and does no side effect twice.
#[derive(PartialEq)]
enum Again {
    MayHelp,
    InVain,
}

impl NotServed {
    /// No tool was called.
    fn refused(code: Code, reason: &'static str, again: Again) -> Self {
        Self {
            code,
            reason,
            effect: Effect::NotStarted,
            again,
            more: None,
        }
    }

    /// Tools may have run.
    fn begun(code: Code, reason: &'static str) -> Self {
        Self {
            effect: Effect::Maybe,
            ..Self::refused(code, reason, Again::InVain)
        }
    }

    fn with(self, more: prost_types::Any) -> Self {
        Self {
            more: Some(more),
            ..self
        }
    }

    fn says(self, message: impl Into<String>) -> Status {
        let message = message.into();
        let info = error_info(self.reason, self.effect, self.again == Again::MayHelp);
        let mut details = vec![detail("ErrorInfo", &info)];
        details.extend(self.more);
        let whole = pb::Status {
            code: self.code as i32,
            message: message.clone(),
            details,
        };
        Status::with_details(self.code, message, whole.encode_to_vec().into())
    }
}

/// The answer to a request that this process has no memory for.
pub fn overloaded() -> Status {
    shed(
        "the server holds as many bytes of requests and answers as it may \
         (limits.max_buffered_bytes)",
    )
}

fn shed(message: impl Into<String>) -> Status {
    let retry_delay = Some(super::duration(RETRY_DELAY));
    NotServed::refused(Code::ResourceExhausted, "OVERLOADED", Again::MayHelp)
        .with(detail("RetryInfo", &pb::RetryInfo { retry_delay }))
        .says(message)
}

/// The answer while the process shuts down.
pub fn draining() -> Status {
    NotServed::refused(Code::Unavailable, "DRAINING", Again::MayHelp)
        .says("the server is draining, send the request to another one")
}

/// The answer to a request that has no time left when it is complete.
pub fn no_time_left() -> Status {
    expired("the request was not complete before its deadline: no tool was called")
}

/// The answer to a request that is not complete after `timeout`.
pub fn not_complete(timeout: Duration) -> Status {
    let timeout = humantime::format_duration(timeout);
    expired(format!(
        "the request was not complete after {timeout} (server.receive_timeout): no tool was called"
    ))
}

fn expired(message: impl Into<String>) -> Status {
    NotServed::refused(Code::DeadlineExceeded, "DEADLINE_EXCEEDED", Again::MayHelp).says(message)
}

/// The answer to a request whose headers are too long.
pub fn headers_too_long(bytes: usize, max: usize) -> Status {
    too_large(format!(
        "the headers are {bytes} bytes, the limit is {max} (server.max_header_list_bytes)"
    ))
}

/// The answer to a request over the limit, which is `setting` or the method's own.
pub fn request_too_large(max: usize, setting: Option<&str>) -> Status {
    let whose = setting.unwrap_or("the limit of this method");
    too_large(format!(
        "the request is too large: it may have {max} bytes, uncompressed ({whose})"
    ))
}

/// The answer to a method that is not among those of `services`, which are named.
pub fn no_such_method(path: &str, services: &str) -> Status {
    const MAX_PATH_BYTES: usize = 200;
    let path = &path[..path.floor_char_boundary(MAX_PATH_BYTES)];
    NotServed::refused(Code::Unimplemented, "INVALID_REQUEST", Again::InVain).says(format!(
        "there is no method {path:?} here: this server has {services}"
    ))
}

fn too_large(message: String) -> Status {
    NotServed::refused(Code::ResourceExhausted, "REQUEST_TOO_LARGE", Again::InVain).says(message)
}

/// The answer to a body that is not one message of gRPC.
pub fn malformed(how: &str) -> Status {
    NotServed::refused(Code::InvalidArgument, "INVALID_REQUEST", Again::InVain)
        .says(format!("the request is malformed: {how}"))
}

/// The answer to a request of no message, or of several (gRPC's statuscodes.md, "Request
/// cardinality violation").
pub fn not_one_message(how: &str) -> Status {
    NotServed::refused(Code::Unimplemented, "INVALID_REQUEST", Again::InVain)
        .says(format!("the request is malformed: {how}"))
}

/// The answer to a request in a compression other than [`ACCEPTED_ENCODINGS`].
pub fn unknown_compression(name: &str) -> Status {
    const MAX_ENCODING_NAME_BYTES: usize = 100;
    let end = name.floor_char_boundary(MAX_ENCODING_NAME_BYTES);
    let name = &name[..end];
    NotServed::refused(Code::Unimplemented, "INVALID_REQUEST", Again::InVain).says(format!(
        "grpc-encoding {name:?} is not known here, only {ACCEPTED_ENCODINGS}"
    ))
}

/// The answer to a request whose caller went away before it was complete: nobody reads it.
pub fn cancelled() -> Status {
    Status::cancelled("the caller cancelled the request")
}

/// The answer to one open-ended stream too many.
pub fn too_many_streams(max: usize) -> Status {
    NotServed::refused(Code::ResourceExhausted, "TOO_MANY_STREAMS", Again::MayHelp).says(format!(
        "a connection may have {max} health watches and reflection streams at a time"
    ))
}

/// The end of a stream that would not end by itself.
pub fn stream_is_old() -> Status {
    expired("the stream is as old as it may be: open another")
}

/// The answer to a request that was begun and whose answer is not there in time.
pub fn answer_is_late() -> Status {
    NotServed::begun(Code::DeadlineExceeded, "DEADLINE_EXCEEDED")
        .says("the answer was not ready by the request's deadline")
}

/// The answer to a stream's caller that read too slowly.
pub fn read_too_slowly() -> Status {
    NotServed::begun(Code::DeadlineExceeded, "DEADLINE_EXCEEDED")
        .says("the results were not read by the request's deadline")
}

/// The answer when something of ours broke: the log has the details.
pub fn internal() -> Status {
    NotServed::begun(Code::Internal, "INTERNAL").says("internal error")
}

/// A failed call, as its result shows it.
pub fn of_call_error(error: CallError) -> pb::Status {
    let mut info = error_info(error.reason.as_str(), error.effect, error.retryable);
    if let Reason::DeadlineExceeded(limit) = error.reason {
        let limit = limit.as_str().to_owned();
        info.metadata.insert("limit".to_owned(), limit);
    }
    let mut details = vec![detail("ErrorInfo", &info)];
    if let Some(delay) = error.retry_after {
        let retry_delay = Some(super::duration(delay));
        details.push(detail("RetryInfo", &pb::RetryInfo { retry_delay }));
    }
    let code = match error.reason {
        Reason::UnknownTool => Code::NotFound as i32,
        Reason::InvalidArguments(violations) => {
            // None are left if they had to give way to the other results.
            if !violations.is_empty() {
                details.push(detail("BadRequest", &bad_request(violations)));
            }
            Code::InvalidArgument as i32
        }
        Reason::ToolFailed(status) => {
            // Details that do not decode can't be passed on as details.
            if let Ok(theirs) = pb::Status::decode(status.details) {
                details.extend(theirs.details);
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
    let told = violations.into_iter().take(MAX_VIOLATIONS);
    let field_violations = told
        .map(|violation| pb::bad_request::FieldViolation {
            field: violation.field,
            description: violation.description,
            ..Default::default()
        })
        .collect();
    pb::BadRequest { field_violations }
}
