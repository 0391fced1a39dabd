//! Whose failure it was, and whether the tool may have run.
//!
//! tonic reports a killed tool as UNKNOWN and a draining one as CANCELLED or
//! INTERNAL; a caller must learn UNAVAILABLE, and whether anything was sent.

use std::error::Error as _;

use bytes::Bytes;
use tonic::Status;

use super::reply::{Fault, Seen};
use crate::error::{CallError, Effect, MAX_TOOL_DETAILS_BYTES, Reason, ToolStatus};

/// What failed, before it is known whether the tool is idempotent.
pub(super) struct Failure {
    pub(super) reason: Reason,
    pub(super) effect: Effect,
    pub(super) message: String,
}

impl Failure {
    fn new(reason: Reason, effect: Effect, message: impl Into<String>) -> Self {
        Self {
            reason,
            effect,
            message: message.into(),
        }
    }

    /// As the error of a call to a tool that is `idempotent` or not.
    pub(super) fn into_call_error(self, idempotent: bool) -> CallError {
        CallError::new(self.reason, self.effect, idempotent, self.message)
    }

    /// There is no connection, for this reason.
    pub(super) fn no_connection(service: &str, reason: &str) -> Self {
        let message = format!("can't connect to tool service {service}: {reason}");
        Self::new(Reason::ToolUnavailable, Effect::NotStarted, message)
    }

    /// tonic's client failed with `status`, and this was seen of the reply.
    pub(super) fn of_reply(status: &Status, seen: Seen, max_bytes: usize) -> Self {
        if let Some(fault) = seen.fault {
            return of_fault(fault, max_bytes);
        }
        if seen.failed {
            return of_tool(status);
        }
        // A status of tonic's: the reply is not what gRPC or the contract says.
        Self::new(
            Reason::InvalidResponse,
            Effect::Maybe,
            format!("the tool's reply is invalid: {}", status.message()),
        )
    }
}

fn of_tool(status: &Status) -> Failure {
    let mut details = Bytes::copy_from_slice(status.details());
    if details.len() > MAX_TOOL_DETAILS_BYTES {
        details.clear();
    }
    let code = status.code() as i32;
    Failure::new(
        Reason::ToolFailed(ToolStatus { code, details }),
        Effect::Done,
        status.message(),
    )
}

fn of_fault(fault: Fault, max_bytes: usize) -> Failure {
    let invalid = |message: &str| Failure::new(Reason::InvalidResponse, Effect::Done, message);
    match fault {
        Fault::Transport(error) => of_transport(&error),
        // A proxy that can't reach the tool says so in HTTP.
        Fault::NotGrpc { status } if status.is_server_error() => Failure::new(
            Reason::ToolUnavailable,
            Effect::Maybe,
            format!("the tool service answered with HTTP status {status}"),
        ),
        Fault::NotGrpc { status } => Failure::new(
            Reason::InvalidResponse,
            Effect::Maybe,
            format!("the tool's reply is not gRPC, its HTTP status is {status}"),
        ),
        Fault::TooLarge { bytes } => Failure::new(
            Reason::ResultTooLarge,
            Effect::Done,
            format!("the tool's reply of {bytes} bytes is over the limit of {max_bytes}"),
        ),
        Fault::Compressed => invalid("the tool's reply is compressed, which was not offered"),
        Fault::SecondMessage => invalid("the tool's reply has more than one message"),
    }
}

fn of_transport(error: &hyper::Error) -> Failure {
    let unavailable =
        |effect, message: String| Failure::new(Reason::ToolUnavailable, effect, message);
    // hyper: the request never left, the connection was closing.
    if error.is_canceled() {
        return unavailable(
            Effect::NotStarted,
            "the connection closed before the call was sent".to_owned(),
        );
    }
    let Some(h2) = find_h2(error) else {
        let cause = innermost(error);
        return unavailable(Effect::Maybe, format!("the connection broke: {cause}"));
    };
    let reason = h2.reason().unwrap_or(h2::Reason::INTERNAL_ERROR);
    // Streams that a GOAWAY without error or a REFUSED_STREAM ends were not
    // looked at (RFC 9113, 6.8 and 8.7).
    let unprocessed = h2.is_remote()
        && ((h2.is_go_away() && reason == h2::Reason::NO_ERROR)
            || (h2.is_reset() && reason == h2::Reason::REFUSED_STREAM));
    if unprocessed {
        return unavailable(
            Effect::NotStarted,
            "the tool service refused the call unseen".to_owned(),
        );
    }
    if h2.is_reset() && h2.is_library() {
        return Failure::new(
            Reason::InvalidResponse,
            Effect::Maybe,
            format!("the tool's reply breaks HTTP/2: {reason}"),
        );
    }
    let what = if h2.is_io() {
        format!("the connection broke: {}", innermost(error))
    } else if h2.is_reset() {
        format!("the tool service reset the call: {reason}")
    } else {
        format!("the connection was shut: {reason}")
    };
    unavailable(Effect::Maybe, what)
}

fn find_h2(error: &hyper::Error) -> Option<&h2::Error> {
    let mut source = error.source();
    while let Some(error) = source {
        if let Some(h2) = error.downcast_ref() {
            return Some(h2);
        }
        source = error.source();
    }
    None
}

fn innermost(error: &hyper::Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
