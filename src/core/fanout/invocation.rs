//! What the fan-out calls through, and what it hands over with each call.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::core::{
    buffered::Buffered,
    call::{Arguments, Outcome, ToolCall},
    deadline::Deadline,
    error::CallError,
    observer::{Observer, Outlasting},
};

/// Something that can be called. The fan-out enforces the deadline and catches
/// panics; an implementation only has to try.
pub trait Tool: Send + Sync + 'static {
    /// The longest that a call may take, from the arrival of its request.
    fn timeout(&self) -> Duration;

    /// Whether calling twice does no more than calling once.
    fn idempotent(&self) -> bool;

    /// Reads the arguments of a call before any call of its request runs: what is to be
    /// sent to the tool, for which [`Invocation::payload`] keeps it. Here the arguments are
    /// what is sent.
    ///
    /// # Errors
    /// If the call can't be made with them.
    fn prepare(&self, call: &ToolCall) -> Result<Option<Bytes>, CallError> {
        Ok(match &call.arguments {
            Arguments::Absent => None,
            Arguments::Struct(bytes) | Arguments::Json(bytes) => Some(bytes.clone()),
        })
    }

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
    pub(super) observer: Option<Arc<dyn Observer>>,
    pub(super) buffered: Buffered,
}

/// How far a call has come. Needed if it is ended from outside.
#[derive(Debug)]
pub(super) struct Progress {
    /// What is sent.
    payload: Option<Bytes>,
    attempts: AtomicU32,
    /// How many of them were refused unseen.
    refused: AtomicU32,
    /// How long the call waited at its tool before it started, in nanoseconds;
    /// [`NOT_STARTED`] or [`WAITING`] until then.
    waited: AtomicU64,
}

/// It has not started, and its tool has not said that it waits.
const NOT_STARTED: u64 = u64::MAX - 1;
/// It waits for its turn at the tool.
const WAITING: u64 = u64::MAX;

impl Progress {
    /// Of a call that has not started.
    pub(super) fn new(payload: Option<Bytes>) -> Self {
        Self {
            payload,
            attempts: AtomicU32::new(0),
            refused: AtomicU32::new(0),
            waited: AtomicU64::new(NOT_STARTED),
        }
    }

    /// Whether the call is with its tool, or was.
    pub(super) fn was_started(&self) -> bool {
        self.waited.load(Ordering::Relaxed) < NOT_STARTED
    }

    pub(super) fn attempts(&self) -> u32 {
        self.attempts.load(Ordering::Relaxed)
    }

    /// How many attempts the tool may have run.
    pub(super) fn possible_runs(&self) -> u32 {
        let refused = self.refused.load(Ordering::Relaxed);
        self.attempts().saturating_sub(refused)
    }

    /// How long the call has waited at its tool; `None` if it still does.
    pub(super) fn waited(&self) -> Option<Duration> {
        match self.waited.load(Ordering::Relaxed) {
            WAITING => None,
            NOT_STARTED => Some(Duration::ZERO),
            nanos => Some(Duration::from_nanos(nanos)),
        }
    }
}

impl Invocation {
    /// The call.
    pub fn call(&self) -> &ToolCall {
        &self.shared.calls[self.index]
    }

    /// What is to be sent for it: what [`Tool::prepare`] made of its arguments.
    pub fn payload(&self) -> Option<&Bytes> {
        self.progress().payload.as_ref()
    }

    /// Its place in the batch.
    pub fn index(&self) -> usize {
        self.index
    }

    pub(super) fn observer(&self) -> Option<&dyn Observer> {
        self.shared.observer.as_deref()
    }

    /// The budget that the observation is held in while it is read.
    pub fn buffered(&self) -> &Buffered {
        &self.shared.buffered
    }

    /// When the call must end.
    pub fn deadline(&self) -> Deadline {
        self.deadline
    }

    /// Identifies the batch among those that run at the same time.
    pub fn batch_id(&self) -> usize {
        Arc::as_ptr(&self.shared).addr()
    }

    /// Notes that the call has to wait for a turn at its tool.
    pub fn waits(&self) {
        self.progress().waited.store(WAITING, Ordering::Relaxed);
    }

    /// Notes that it is with its tool from here on, for which it `waited` so long.
    pub fn started(&self, waited: Duration) {
        let nanos = u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX);
        let nanos = nanos.min(NOT_STARTED - 1);
        self.progress().waited.store(nanos, Ordering::Relaxed);
        if let Some(observer) = self.observer() {
            observer.call_started(self.index);
        }
    }

    /// Notes that a stream of it remains to be reset although the call is about to end.
    pub(crate) fn stream_outlasts(&self) -> Option<Outlasting> {
        self.observer()?.stream_outlasts_call(self.index)
    }

    /// The number of the next attempt. The first is 1.
    pub fn next_attempt(&self) -> u32 {
        self.progress().attempts() + 1
    }

    /// Notes that an attempt was sent: from here on the tool may have run.
    pub fn sent(&self) {
        self.progress().attempts.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that an attempt was refused unseen: that one has not run.
    pub fn refused(&self) {
        self.progress().refused.fetch_add(1, Ordering::Relaxed);
    }

    /// How many of the attempts so far the tool may have run.
    pub fn possible_runs(&self) -> u32 {
        self.progress().possible_runs()
    }

    fn progress(&self) -> &Progress {
        &self.shared.progress[self.index]
    }
}
