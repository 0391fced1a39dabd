//! Whose failure it was, and whether the tool may have run.
//!
//! A caller must learn UNAVAILABLE of a tool that died, and whether anything was
//! sent: gRPC libraries say UNKNOWN, CANCELLED or INTERNAL here.

use std::{sync::Arc, time::Duration};

use http::{HeaderValue, StatusCode};
use tonic::Code;

use super::not_grpc;
use crate::{
    core::error::{CallError, Effect, Reason, ToolStatus},
    policy::breaker::Owner,
    telemetry::names,
};

const INTERNAL: i32 = Code::Internal as i32;
/// The setting that bounds replies.
const MAX_RESULT: &str = "limits.max_result_bytes";

/// Why there is no observation.
#[derive(Debug)]
pub(crate) enum Fault {
    /// There is no connection, for this reason. Nothing was sent. `connect_epoch` counts
    /// what was tried in vain to get one; calls in between meet the same count.
    NoConnection {
        service: String,
        reason: String,
        connect_epoch: u32,
    },
    /// The circuit breaker is open. Nothing was sent.
    CircuitOpen {
        owner: Owner,
        retry_after: Duration,
        /// How it failed last.
        last: Arc<str>,
    },
    /// There is no place with the tool, for this reason. Nothing was sent.
    Overloaded {
        reason: &'static str,
        retry_after: Option<Duration>,
    },
    /// The tool answered with a status.
    Tool {
        status: ToolStatus,
        message: String,
        pushback: Option<Pushback>,
    },
    /// The service said, before anything else, that it did not look at the call.
    Unprocessed(h2::Error),
    /// The transport failed after the request was handed to it.
    Transport(h2::Error),
    /// An HTTP response without a gRPC status, and what it says.
    NotGrpc {
        status: StatusCode,
        quote: String,
        /// Whether it came to its end.
        is_complete: bool,
    },
    /// The message is longer than it may be; how long, if that is known.
    TooLarge { bytes: Option<usize> },
    /// There is no memory for it: this process holds as much as it may.
    NoMemory { bytes: usize },
    /// The reply breaks off before all of it is there.
    Incomplete(&'static str),
    /// The reply is something that gRPC does not allow here.
    Invalid(&'static str),
    /// The message is no `CallToolResponse`.
    Garbage(prost::DecodeError),
}

/// When a tool wants to be asked again (gRFC A6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pushback {
    /// Not at all.
    Never,
    /// After so long.
    After(Duration),
}

/// How far a failed attempt got, which tells whom it speaks against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FailureStage {
    /// We did not let it go.
    NotAdmitted,
    /// It could not be sent; the connect_epoch so far.
    Unsent(u32),
    /// The service refused it unseen.
    Refused,
    /// It was sent, and its connection was lost.
    Lost,
    /// It was sent, and the service, or what is in front of it, ended it without an
    /// answer of the tool.
    Reset,
    /// Somebody answered.
    Answered,
}

impl Pushback {
    /// What the value of `grpc-retry-pushback-ms` says. What is no number of
    /// milliseconds means never.
    pub(crate) fn parse(value: &HeaderValue) -> Self {
        let text = value.to_str().unwrap_or_default();
        text.parse().map_or(Self::Never, |ms: u32| {
            Self::After(Duration::from_millis(ms.into()))
        })
    }
}

impl Fault {
    /// As no response headers have come. These commit a call (gRFC A6): what fails
    /// later is [`Fault::Transport`], whatever the service says of it.
    pub(crate) fn unanswered(error: h2::Error) -> Self {
        if is_unprocessed(&error) {
            Self::Unprocessed(error)
        } else {
            Self::Transport(error)
        }
    }

    /// Whether it is the fault of the address that was called, or of what is in
    /// front of it; `None` if this says nothing about that, as when it says goodbye.
    pub(crate) fn speaks_against_address(&self) -> Option<bool> {
        match self {
            Self::NoConnection { .. } | Self::CircuitOpen { .. } | Self::Overloaded { .. } => None,
            Self::Unprocessed(error) => {
                let is_angry = error.is_go_away() && reason(error) != h2::Reason::NO_ERROR;
                is_angry.then_some(true)
            }
            Self::Transport(error) => (!is_unprocessed(error) && !error.is_reset()).then_some(true),
            Self::NotGrpc { status, .. } => Some(status.is_server_error()),
            Self::Tool { .. }
            | Self::TooLarge { .. }
            | Self::NoMemory { .. }
            | Self::Incomplete(_)
            | Self::Invalid(_)
            | Self::Garbage(_) => Some(false),
        }
    }

    /// Whether a deadline that ran out at the other side, at the tool or on the way to
    /// it, may have ended the attempt so: each library and proxy has its own way, from
    /// a status to a bare RST_STREAM or a stream that just stops. What a tool says
    /// with any other status it says for a reason of its own.
    pub(crate) fn may_be_of_expiry(&self) -> bool {
        match self {
            Self::Transport(error) => !is_broken_http(error),
            Self::Tool { status, .. } => matches!(
                status.code.into(),
                // UNAVAILABLE is what gRPC calls a proxy's 504.
                Code::Cancelled | Code::DeadlineExceeded | Code::Unavailable
            ),
            Self::NotGrpc { status, .. } => {
                *status == StatusCode::REQUEST_TIMEOUT || not_grpc::is_unavailable(*status)
            }
            Self::Incomplete(_) => true,
            Self::NoConnection { .. }
            | Self::Unprocessed(_)
            | Self::CircuitOpen { .. }
            | Self::Overloaded { .. }
            | Self::TooLarge { .. }
            | Self::NoMemory { .. }
            | Self::Invalid(_)
            | Self::Garbage(_) => false,
        }
    }

    /// Whether the request got no further than its headers, which were too large. That
    /// says gRPC C-core in words only, in place of the tool.
    fn is_of_headers(&self) -> bool {
        const RESOURCE_EXHAUSTED: i32 = Code::ResourceExhausted as i32;
        match self {
            Self::NotGrpc { status, .. } => *status == StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Tool {
                status, message, ..
            } => {
                status.code == RESOURCE_EXHAUSTED
                    && message.starts_with("received metadata size exceeds ")
            }
            _ => false,
        }
    }

    /// Whether it ended more than its own stream.
    pub(crate) fn is_of_connection(&self) -> bool {
        matches!(self, Self::Transport(error) if !error.is_reset())
    }

    /// Whether the stream had ended by then: there is nothing to reset.
    pub(crate) fn ends_stream(&self) -> bool {
        match self {
            Self::NotGrpc { is_complete, .. } => *is_complete,
            Self::TooLarge { .. } | Self::NoMemory { .. } | Self::Invalid(_) => false,
            _ => true,
        }
    }

    /// How far the attempt got.
    pub(crate) fn scope(&self) -> FailureStage {
        match self {
            Self::CircuitOpen { .. } | Self::Overloaded { .. } => FailureStage::NotAdmitted,
            Self::NoConnection { connect_epoch, .. } => FailureStage::Unsent(*connect_epoch),
            Self::Unprocessed(_) => FailureStage::Refused,
            Self::Transport(error) if is_broken_http(error) => FailureStage::Answered,
            Self::Transport(error) if error.is_reset() || is_unprocessed(error) => {
                FailureStage::Reset
            }
            Self::Transport(_) => FailureStage::Lost,
            fault if fault.is_of_headers() => FailureStage::Refused,
            // What is too much for a proxy, too.
            Self::NotGrpc { status, .. }
                if status.is_server_error() || not_grpc::is_unavailable(*status) =>
            {
                FailureStage::Reset
            }
            Self::Tool { .. }
            | Self::NotGrpc { .. }
            | Self::TooLarge { .. }
            | Self::NoMemory { .. }
            | Self::Incomplete(_)
            | Self::Invalid(_)
            | Self::Garbage(_) => FailureStage::Answered,
        }
    }

    /// As the error of a call to a tool that is `idempotent` or not, that some
    /// attempt `may_have_run`, and whose replies may have `max_bytes`.
    pub(crate) fn into_call_error(
        self,
        idempotent: bool,
        may_have_run: bool,
        max_bytes: usize,
    ) -> CallError {
        let message = self.message(max_bytes);
        // Unlike the others of this reason, it may pass.
        let hopeful = matches!(self, Self::NoMemory { .. });
        let is_of_headers = self.is_of_headers();
        let mut retry_after = None;
        let (reason, effect) = match self {
            Self::CircuitOpen {
                retry_after: after, ..
            } => {
                retry_after = Some(after);
                (Reason::CircuitOpen, Effect::NotStarted)
            }
            Self::Overloaded {
                retry_after: after, ..
            } => {
                retry_after = after;
                (Reason::Overloaded, Effect::NotStarted)
            }
            Self::NoConnection { .. } | Self::Unprocessed(_) => {
                (Reason::ToolUnavailable, Effect::NotStarted)
            }
            Self::Tool { status, .. } if is_of_headers => {
                (Reason::ToolFailed(status), Effect::NotStarted)
            }
            Self::Tool { status, .. } => (Reason::ToolFailed(status), Effect::Done),
            Self::Transport(error) => of_transport(&error),
            Self::NotGrpc { status, .. } if not_grpc::is_unavailable(status) => {
                (Reason::ToolUnavailable, Effect::Maybe)
            }
            Self::NotGrpc { status, .. } => {
                let code = not_grpc::code(status) as i32;
                let effect = if is_of_headers {
                    Effect::NotStarted
                } else {
                    Effect::Maybe
                };
                (Reason::InvalidResponse(code), effect)
            }
            Self::Incomplete(_) => (Reason::InvalidResponse(INTERNAL), Effect::Maybe),
            Self::TooLarge { .. } | Self::NoMemory { .. } => (Reason::ResultTooLarge, Effect::Done),
            Self::Invalid(_) | Self::Garbage(_) => {
                (Reason::InvalidResponse(INTERNAL), Effect::Done)
            }
        };
        // An earlier attempt may have run where the last one did not.
        let effect = match effect {
            Effect::NotStarted if may_have_run => Effect::Maybe,
            effect => effect,
        };
        let error = CallError::new(reason, effect, idempotent, message);
        CallError {
            retryable: error.retryable || (hopeful && idempotent),
            ..error.retry_after(retry_after)
        }
    }

    /// For the caller, and the span of the attempt.
    pub(crate) fn message(&self, max_bytes: usize) -> String {
        match self {
            Self::NoConnection {
                service, reason, ..
            } => {
                format!("can't connect to tool service {service}: {reason}")
            }
            Self::CircuitOpen { owner, last, .. } => {
                format!("{owner} keeps failing and is left alone for a while: {last}")
            }
            Self::Overloaded { reason, .. } => format!("the tool is busy: {reason}"),
            Self::Tool { message, .. } => message.clone(),
            Self::Unprocessed(error) if reason(error) == h2::Reason::NO_ERROR => {
                "the tool service refused the call unseen, as it shuts down".to_owned()
            }
            Self::Unprocessed(error) => {
                format!("the tool service refused the call unseen: {error}")
            }
            Self::Transport(error) => transport_message(error),
            Self::NotGrpc { status, quote, .. } => {
                let colon = if quote.is_empty() { "" } else { ": " };
                format!("not gRPC, but HTTP status {status}, came back{colon}{quote}")
            }
            Self::TooLarge { bytes: None } => {
                format!("the tool's reply inflates to more than {max_bytes} bytes ({MAX_RESULT})")
            }
            Self::TooLarge { bytes: Some(bytes) } => {
                format!("the tool's reply of {bytes} bytes is over {max_bytes} ({MAX_RESULT})")
            }
            Self::NoMemory { bytes } => format!(
                "there is no room for the tool's reply of {bytes} bytes: this server holds as \
                 many as it may for its callers (limits.max_buffered_bytes)"
            ),
            Self::Incomplete(what) => format!("the tool's reply is incomplete: {what}"),
            Self::Invalid(what) => format!("the tool's reply is invalid: {what}"),
            Self::Garbage(error) => {
                format!("the tool's reply is no CallToolResponse: {error}")
            }
        }
    }

    /// For those whose call it was not: without the words of whoever answered.
    pub(crate) fn message_for_others(&self) -> String {
        match self {
            Self::Tool { status, .. } => {
                format!("it answered {}", names::code(status.code.into()))
            }
            Self::NotGrpc { status, .. } => {
                format!("not gRPC, but HTTP status {status}, came back")
            }
            fault => fault.message(0),
        }
    }

    /// The gRPC status of the attempt: the tool's own, or the one that says best
    /// what went wrong.
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::Tool { status, .. } => status.code.into(),
            Self::NoConnection { .. } | Self::CircuitOpen { .. } => Code::Unavailable,
            Self::Transport(error) if is_broken_http(error) => Code::Internal,
            Self::Unprocessed(_) | Self::Transport(_) => Code::Unavailable,
            Self::NotGrpc { status, .. } => not_grpc::code(*status),
            Self::TooLarge { .. } | Self::NoMemory { .. } | Self::Overloaded { .. } => {
                Code::ResourceExhausted
            }
            Self::Incomplete(_) | Self::Invalid(_) | Self::Garbage(_) => Code::Internal,
        }
    }
}

fn of_transport(error: &h2::Error) -> (Reason, Effect) {
    if is_broken_http(error) {
        (Reason::InvalidResponse(INTERNAL), Effect::Maybe)
    } else {
        (Reason::ToolUnavailable, Effect::Maybe)
    }
}

fn transport_message(error: &h2::Error) -> String {
    let reason = reason(error);
    if is_unprocessed(error) {
        "the tool service dropped the call after it had begun to answer".to_owned()
    } else if is_broken_http(error) {
        format!("the tool's reply breaks HTTP/2: {reason}")
    } else if let Some(io) = error.get_io() {
        format!("the connection broke: {io}")
    } else if error.is_reset() {
        format!("the tool service reset the call: {reason}")
    } else {
        format!("the connection was shut: {error}")
    }
}

fn reason(error: &h2::Error) -> h2::Reason {
    error.reason().unwrap_or(h2::Reason::INTERNAL_ERROR)
}

/// Whether the service says that it did not look at the call: by REFUSED_STREAM, or by
/// a GOAWAY, whatever its code (RFC 9113, 8.7 and 6.8). Of a GOAWAY h2 tells only the
/// streams above its last id; the others go on, or end with the connection.
fn is_unprocessed(error: &h2::Error) -> bool {
    error.is_remote()
        && (error.is_go_away() || (error.is_reset() && reason(error) == h2::Reason::REFUSED_STREAM))
}

fn is_broken_http(error: &h2::Error) -> bool {
    error.is_reset() && error.is_library()
}
