//! What the fan-out calls through, and what it hands over with each call.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;

use crate::{
    call::{Attachment, Outcome, ToolCall},
    deadline::Deadline,
};

/// Something that can be called. The fan-out enforces the deadline and catches
/// panics; an implementation only has to try.
pub trait Tool: Send + Sync + 'static {
    /// The longest that a call may take, from the arrival of its request.
    fn timeout(&self) -> Duration;

    /// Whether calling twice does no more than calling once.
    fn idempotent(&self) -> bool;

    /// Runs one call. Dropping the future cancels it.
    fn call(&self, invocation: Invocation) -> BoxFuture<'static, Outcome>;
}

/// One call on its way to its tool.
#[derive(Clone, Debug)]
pub struct Invocation {
    pub(super) shared: Arc<Shared>,
    pub(super) index: usize,
    pub(super) deadline: Deadline,
}

/// What the calls of a batch share with the fan-out: one allocation a request.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) calls: Arc<[ToolCall]>,
    pub(super) progress: Box<[Progress]>,
    pub(super) attachment: Attachment,
}

/// How far a call has come, for the case that it never ends by itself.
#[derive(Debug, Default)]
pub(super) struct Progress {
    pub(super) attempts: AtomicU32,
}

impl Invocation {
    /// The call.
    pub fn call(&self) -> &ToolCall {
        &self.shared.calls[self.index]
    }

    /// Its place in the batch.
    pub fn index(&self) -> usize {
        self.index
    }

    /// What travels with the batch.
    pub fn attachment(&self) -> &Attachment {
        &self.shared.attachment
    }

    /// When the call must end.
    pub fn deadline(&self) -> Deadline {
        self.deadline
    }

    /// The number of the next attempt. The first is 1.
    pub fn next_attempt(&self) -> u32 {
        self.progress().attempts.load(Ordering::Relaxed) + 1
    }

    /// Notes that an attempt was sent: from here on the tool may have run.
    pub fn sent(&self) {
        self.progress().attempts.fetch_add(1, Ordering::Relaxed);
    }

    fn progress(&self) -> &Progress {
        &self.shared.progress[self.index]
    }
}
