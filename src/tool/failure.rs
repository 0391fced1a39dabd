//! Whose failure it was, and whether the tool may have run.
//!
//! A caller must learn UNAVAILABLE of a tool that died, and whether anything was
//! sent: gRPC libraries say UNKNOWN, CANCELLED or INTERNAL here.

use http::StatusCode;

use crate::error::{CallError, Effect, Reason, ToolStatus};

/// Why there is no observation.
#[derive(Debug)]
pub(super) enum Fault {
    /// There is no connection, for this reason. Nothing was sent.
    NoConnection { service: String, reason: String },
    /// The tool answered with a status.
    Tool { status: ToolStatus, message: String },
    /// The transport failed after the request was handed to it.
    Transport(h2::Error),
    /// An HTTP response that is not gRPC.
    NotGrpc { status: StatusCode },
    /// The message is longer than it may be.
    TooLarge { bytes: usize },
    /// The reply breaks off before all of it is there.
    Incomplete(&'static str),
    /// The reply is something that gRPC does not allow here.
    Invalid(&'static str),
    /// The message is no `CallToolResponse`.
    Garbage(prost::DecodeError),
}

impl Fault {
    /// Whether it is the fault of the address that was called, or of what is in
    /// front of it; `None` if this says nothing about that, as when it says goodbye.
    pub(super) fn speaks_against_address(&self) -> Option<bool> {
        match self {
            Self::NoConnection { .. } => None,
            Self::Transport(error) => (!is_unprocessed(error) && !error.is_reset()).then_some(true),
            Self::NotGrpc { status } => Some(status.is_server_error()),
            Self::Tool { .. }
            | Self::TooLarge { .. }
            | Self::Incomplete(_)
            | Self::Invalid(_)
            | Self::Garbage(_) => Some(false),
        }
    }

    /// As the error of a call to a tool that is `idempotent` or not, and whose
    /// replies may have `max_bytes`.
    pub(super) fn into_call_error(self, idempotent: bool, max_bytes: usize) -> CallError {
        let (reason, effect, message) = match self {
            Self::NoConnection { service, reason } => (
                Reason::ToolUnavailable,
                Effect::NotStarted,
                format!("can't connect to tool service {service}: {reason}"),
            ),
            Self::Tool { status, message } => (Reason::ToolFailed(status), Effect::Done, message),
            Self::Transport(error) => of_transport(&error),
            // A proxy that can't reach the tool says so in HTTP.
            Self::NotGrpc { status } if status.is_server_error() => (
                Reason::ToolUnavailable,
                Effect::Maybe,
                format!("the tool service answered with HTTP status {status}"),
            ),
            Self::NotGrpc { status } => (
                Reason::InvalidResponse,
                Effect::Maybe,
                format!("the tool's reply is not gRPC, its HTTP status is {status}"),
            ),
            Self::TooLarge { bytes } => (
                Reason::ResultTooLarge,
                Effect::Done,
                format!("the tool's reply of {bytes} bytes is over the limit of {max_bytes}"),
            ),
            Self::Incomplete(what) => (
                Reason::InvalidResponse,
                Effect::Maybe,
                format!("the tool's reply is incomplete: {what}"),
            ),
            Self::Invalid(what) => (
                Reason::InvalidResponse,
                Effect::Done,
                format!("the tool's reply is invalid: {what}"),
            ),
            Self::Garbage(error) => (
                Reason::InvalidResponse,
                Effect::Done,
                format!("the tool's reply is no CallToolResponse: {error}"),
            ),
        };
        CallError::new(reason, effect, idempotent, message)
    }
}

/// Whether the peer has not looked at the call: streams that a GOAWAY without error
/// or a REFUSED_STREAM ends (RFC 9113, 6.8 and 8.7).
fn is_unprocessed(error: &h2::Error) -> bool {
    let reason = error.reason();
    error.is_remote()
        && ((error.is_go_away() && reason == Some(h2::Reason::NO_ERROR))
            || (error.is_reset() && reason == Some(h2::Reason::REFUSED_STREAM)))
}

fn of_transport(error: &h2::Error) -> (Reason, Effect, String) {
    let reason = error.reason().unwrap_or(h2::Reason::INTERNAL_ERROR);
    if is_unprocessed(error) {
        return (
            Reason::ToolUnavailable,
            Effect::NotStarted,
            "the tool service refused the call unseen".to_owned(),
        );
    }
    if error.is_reset() && error.is_library() {
        return (
            Reason::InvalidResponse,
            Effect::Maybe,
            format!("the tool's reply breaks HTTP/2: {reason}"),
        );
    }
    let message = if let Some(io) = error.get_io() {
        format!("the connection broke: {io}")
    } else if error.is_reset() {
        format!("the tool service reset the call: {reason}")
    } else {
        format!("the connection was shut: {reason}")
    };
    (Reason::ToolUnavailable, Effect::Maybe, message)
}
