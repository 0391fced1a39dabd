//! The domain's words: a tool call, a batch of them, and how a call ended.
//!
//! Calls that can't be made are in a batch with the others, beside what is wrong
//! with them. Nothing in this file knows gRPC.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::Instant;

use super::error::CallError;

/// The longest tool name, in bytes.
pub const MAX_NAME_BYTES: usize = 128;
/// The longest call id, in bytes.
pub const MAX_ID_BYTES: usize = 1024;

/// The name of a tool: 1 to [`MAX_NAME_BYTES`] of `A-Z a-z 0-9 _ - . /`, which
/// covers what LLM providers and MCP allow and is safe in logs and labels.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ToolName(String);

/// Why a string is not a [`ToolName`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidToolName {
    /// It has no characters.
    #[error("must not be empty")]
    Empty,
    /// It is over [`MAX_NAME_BYTES`].
    #[error("must be at most {MAX_NAME_BYTES} characters long, is {0} bytes")]
    TooLong(usize),
    /// It holds a character outside of the allowed set.
    #[error("must hold only A-Z a-z 0-9 _ - . /, has {0:?}")]
    Character(char),
}

impl ToolName {
    /// Checks and wraps a name.
    ///
    /// # Errors
    /// See [`check`](Self::check).
    pub fn try_new(name: String) -> Result<Self, InvalidToolName> {
        Self::check(&name)?;
        Ok(Self(name))
    }

    /// Whether a tool may have this name.
    ///
    /// # Errors
    /// If it is empty, too long, or holds a character that is not allowed.
    pub fn check(name: &str) -> Result<(), InvalidToolName> {
        if name.is_empty() {
            return Err(InvalidToolName::Empty);
        }
        if name.len() > MAX_NAME_BYTES {
            return Err(InvalidToolName::TooLong(name.len()));
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/');
        match name.chars().find(|&c| !allowed(c)) {
            Some(c) => Err(InvalidToolName::Character(c)),
            None => Ok(()),
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ToolName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::borrow::Borrow<str> for ToolName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// One tool call of a batch.
#[derive(Clone, Debug)]
pub struct ToolCall {
    /// The caller's id, at most [`MAX_ID_BYTES`] long; may be empty.
    pub id: String,
    /// The tool to call, as the caller wrote it, at most [`MAX_NAME_BYTES`] long. It may
    /// name no tool, and need not be a valid [`ToolName`].
    pub name: String,
    /// The arguments, as they came.
    pub arguments: Arguments,
    /// The caller's own limit for this call, from the arrival of the request.
    pub timeout: Option<Duration>,
}

/// The arguments of a call, opaque: only its tool can read them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Arguments {
    /// The caller sent none.
    #[default]
    Absent,
    /// An encoded `google.protobuf.Struct`.
    Struct(Bytes),
    /// JSON text, as a model wrote it: perhaps no JSON at all.
    Json(Bytes),
}

/// What the failure of one call means for the others of its batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FailurePolicy {
    /// Nothing.
    #[default]
    Continue,
    /// It cancels those that have not ended.
    CancelRest,
}

/// A batch of calls, not empty and within the configured bound: see
/// `wire`, the only place that makes one from outside input.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The calls, in the caller's order. Shared with the tasks that run them.
    pub calls: Arc<[ToolCall]>,
    /// What one failure means for the rest.
    pub failure_policy: FailurePolicy,
    /// How many of the calls may run at a time; at least 1.
    pub concurrency_limit: usize,
}

/// How one call ended: the encoded observation, or why there is none.
pub type Outcome = Result<Bytes, CallError>;

/// The end of one call.
#[derive(Clone, Debug)]
pub struct Completion {
    /// Which call, as an index into [`Batch::calls`].
    pub index: usize,
    /// How it ended.
    pub outcome: Outcome,
    /// When the outcome was known.
    pub end: Instant,
    /// How long the call waited for its turn.
    pub queued: Duration,
    /// How many attempts were sent to the tool.
    pub attempts: u32,
}
