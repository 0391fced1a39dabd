//! Why a call has no observation: whose fault it is, whether the tool may have
//! run, whether to try again, and what the caller may read.
//!
//! How these become a `google.rpc.Status` is `wire`'s business.

use std::time::Duration;

use bytes::Bytes;

use super::status::Code;

/// The longest message that a caller gets to read, in bytes. A longer one, from
/// a tool, is cut: a thousand of them must still fit into one response.
pub const MAX_MESSAGE_BYTES: usize = 1024;
/// The most of a tool's own status details that a caller gets, in bytes.
pub const MAX_TOOL_DETAILS_BYTES: usize = 4096;
/// How long [`Violation::description`] may be, in bytes: it may quote what the
/// caller sent, escaped.
pub const MAX_DESCRIPTION_BYTES: usize = 160;

/// A failed call.
#[derive(Clone, Debug)]
pub struct CallError {
    /// What happened.
    pub reason: Reason,
    /// May the tool have run?
    pub effect: Effect,
    /// May the same call be sent again, with hope and without harm?
    pub retryable: bool,
    /// When trying again may first help, if that is known.
    pub retry_after: Option<Duration>,
    /// For the caller to read, at most [`MAX_MESSAGE_BYTES`] long.
    pub message: String,
}

/// What happened to a failed call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// No tool has this name; with the one that was probably meant.
    UnknownTool(Option<String>),
    /// The call can't be made as it is: what is wrong with it, at least one thing.
    InvalidArguments(Vec<Violation>),
    /// The tool answered with a status of its own.
    ToolFailed(ToolStatus),
    /// A limit ran out.
    DeadlineExceeded(Limit),
    /// The tool can't be reached, or was lost mid-call.
    ToolUnavailable,
    /// The failure policy or the end of this process cancelled it.
    Cancelled,
    /// A bound of this tool is full.
    Overloaded,
    /// The tool kept failing and is left alone for a while.
    CircuitOpen,
    /// The observation is over a size limit.
    ResultTooLarge,
    /// The tool's answer is not what the contract says, or no tool's; with the
    /// code that says best what it is.
    InvalidResponse(Code),
    /// A bug of ours.
    Internal,
}

/// A field that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Its path, such as `timeout` in a call, or `calls` in a request.
    pub field: String,
    /// What is wrong with it, at most [`MAX_DESCRIPTION_BYTES`] long.
    pub description: String,
}

/// The status that a tool answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolStatus {
    /// Never [`Code::Ok`].
    pub code: Code,
    /// The encoded `google.rpc.Status` of the tool, if it sent one that is at
    /// most [`MAX_TOOL_DETAILS_BYTES`] long; else empty.
    pub details: Bytes,
}

/// Which limit ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// The call's own timeout.
    Call,
    /// The tool's configured timeout.
    Tool,
    /// The caller's deadline.
    Request,
    /// The server's cap on requests.
    Server,
}

/// May the tool have run?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Certainly not.
    NotStarted,
    /// It was asked and did not answer.
    Maybe,
    /// It answered.
    Done,
}

impl Reason {
    /// The word in `ErrorInfo.reason`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::UnknownTool(_) => "UNKNOWN_TOOL",
            Self::InvalidArguments(_) => "INVALID_ARGUMENTS",
            Self::ToolFailed(_) => "TOOL_FAILED",
            Self::DeadlineExceeded(_) => "DEADLINE_EXCEEDED",
            Self::ToolUnavailable => "TOOL_UNAVAILABLE",
            Self::Cancelled => "CANCELLED",
            Self::Overloaded => "OVERLOADED",
            Self::CircuitOpen => "CIRCUIT_OPEN",
            Self::ResultTooLarge => "RESULT_TOO_LARGE",
            Self::InvalidResponse(_) => "INVALID_RESPONSE",
            Self::Internal => "INTERNAL",
        }
    }

    /// Whether trying again may help at all. A tool's own answer counts as
    /// passing only with the codes that gRPC documents so
    /// (<https://grpc.io/docs/guides/status-codes/>).
    fn is_transient(&self) -> bool {
        match self {
            Self::DeadlineExceeded(_)
            | Self::ToolUnavailable
            | Self::Cancelled
            | Self::Overloaded
            | Self::CircuitOpen => true,
            Self::ToolFailed(status) => {
                matches!(
                    status.code,
                    Code::ResourceExhausted | Code::Aborted | Code::Unavailable
                )
            }
            Self::UnknownTool(_)
            | Self::InvalidArguments(_)
            | Self::ResultTooLarge
            | Self::InvalidResponse(_)
            | Self::Internal => false,
        }
    }
}

impl Limit {
    /// The word in the metadata of `ErrorInfo`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Call => "call",
            Self::Tool => "tool",
            Self::Request => "request",
            Self::Server => "server",
        }
    }
}

impl Effect {
    /// The word in the metadata of `ErrorInfo`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotStarted => "not_started",
            Self::Maybe => "maybe",
            Self::Done => "done",
        }
    }
}

impl CallError {
    /// A failure of a call to a tool that is `idempotent` or not: it may be
    /// retried if that may help, and if the tool has not run or may run twice.
    pub fn new(
        reason: Reason,
        effect: Effect,
        idempotent: bool,
        message: impl Into<String>,
    ) -> Self {
        let retryable = reason.is_transient() && (idempotent || effect == Effect::NotStarted);
        Self {
            reason,
            effect,
            retryable,
            retry_after: None,
            message: shortened(message.into()),
        }
    }

    /// The same, with when trying again may first help.
    pub fn retry_after(self, retry_after: Option<Duration>) -> Self {
        Self {
            retry_after,
            ..self
        }
    }

    /// A call that can't be made as it is: its fields are wrong in so many ways.
    pub fn invalid_arguments(violations: Vec<Violation>) -> Self {
        let message = summary(&violations);
        let reason = Reason::InvalidArguments(violations);
        Self::new(reason, Effect::NotStarted, false, message)
    }

    /// A bug of ours: fixed text, the details belong in the log.
    pub fn internal(effect: Effect) -> Self {
        Self::new(Reason::Internal, effect, false, "internal error")
    }
}

impl Violation {
    /// `field` is wrong in the way of `description`, which is cut if it is long.
    pub fn new(field: impl Into<String>, description: impl Into<String>) -> Self {
        let mut description = description.into();
        description.truncate(description.floor_char_boundary(MAX_DESCRIPTION_BYTES));
        Self {
            field: field.into(),
            description,
        }
    }
}

/// The first of them, and how many there are beside it.
pub fn summary(violations: &[Violation]) -> String {
    let mut summary = violations.first().map_or_else(String::new, |first| {
        format!("{}: {}", first.field, first.description)
    });
    if violations.len() > 1 {
        summary.push_str(&format!(" (and {} more)", violations.len() - 1));
    }
    summary
}

fn shortened(mut message: String) -> String {
    const CUT: &str = " [cut]";
    if message.len() > MAX_MESSAGE_BYTES {
        message.truncate(message.floor_char_boundary(MAX_MESSAGE_BYTES - CUT.len()));
        message.push_str(CUT);
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_messages_are_cut_between_characters() {
        let long = "é".repeat(MAX_MESSAGE_BYTES);
        let error = CallError::new(Reason::ToolUnavailable, Effect::Maybe, false, long);
        assert!(error.message.len() <= MAX_MESSAGE_BYTES);
        assert!(error.message.ends_with("é [cut]"));
    }

    #[test]
    fn only_harmless_and_hopeful_calls_are_retryable() {
        let retryable =
            |reason, effect, idempotent| CallError::new(reason, effect, idempotent, "").retryable;
        assert!(retryable(
            Reason::ToolUnavailable,
            Effect::NotStarted,
            false
        ));
        assert!(!retryable(Reason::ToolUnavailable, Effect::Maybe, false));
        assert!(retryable(Reason::ToolUnavailable, Effect::Maybe, true));
        let unknown = Reason::UnknownTool(None);
        assert!(!retryable(unknown, Effect::NotStarted, true));
    }
}
