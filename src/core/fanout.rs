//! Runs a batch of calls at the same time and yields each completion the moment
//! it is known. Dropping a [`FanOut`] cancels what still runs.
//!
//! All calls of a request are polled by whoever awaits [`FanOut::next`], not by a
//! task each: dropping it ends them in the same instant, nothing is detached,
//! and a call costs no task. Calls, the one timer and the stop signal are members
//! of one set, so each is polled only when it has something to say.
//!
//! A call that panics fails alone. This file knows neither gRPC nor telemetry; it
//! calls through the [`Tool`] trait, and is watched through an [`Observer`].

mod attempt;
mod invocation;
mod member;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::Arc,
    thread,
};

use bytes::Bytes;
use futures_util::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use tokio::time::{Instant, sleep_until};

use super::{
    buffered::Buffered,
    call::{Batch, Completion, FailurePolicy, Outcome},
    deadline::Deadline,
    error::{CallError, Effect, Limit, Reason},
    observer::{CallReport, Observer},
};
pub use attempt::Attempt;
pub use invocation::{Invocation, Tool};
use invocation::{Progress, Shared};
use member::{Event, Member};

/// A batch that is running.
pub struct FanOut {
    shared: Arc<Shared>,
    slots: Vec<Slot>,
    failure_policy: FailurePolicy,
    concurrency_limit: usize,
    started: Instant,
    unended: usize,
    running: usize,
    /// Calls before this one have been started, or have ended without.
    next_to_start: usize,
    /// The calls by deadline, the earliest last.
    expiry: Vec<usize>,
    members: FuturesUnordered<Member>,
    ended: VecDeque<Completion>,
}

/// How one call of a batch is to be made.
pub struct PlannedCall {
    /// Its tool, or why it can't be made.
    pub tool: Result<Arc<dyn Tool>, CallError>,
    /// What its tool made of its arguments.
    pub payload: Option<Bytes>,
    /// When it ends at the latest.
    pub deadline: Deadline,
}

/// What a batch runs in.
pub struct Surroundings {
    /// The budget that observations are held in.
    pub buffered: Buffered,
    /// Who watches the calls.
    pub observer: Option<Arc<dyn Observer>>,
    /// When this completes, the calls that have not ended are cancelled.
    pub stop: BoxFuture<'static, ()>,
}

struct Slot {
    tool: Option<Arc<dyn Tool>>,
    deadline: Deadline,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Running { since: Instant },
    Ended,
}

impl FanOut {
    /// Starts the calls of `batch`, each as planned at the same place in `planned`. Those
    /// that can't be made have ended before any begins.
    pub fn start(batch: Batch, planned: Vec<PlannedCall>, surroundings: Surroundings) -> Self {
        let Surroundings {
            buffered,
            observer,
            stop,
        } = surroundings;
        let mut refused = Vec::new();
        let mut progress = Vec::with_capacity(planned.len());
        let slot = |(index, call): (usize, PlannedCall)| {
            progress.push(Progress::new(call.payload));
            Slot {
                tool: call.tool.map_err(|error| refused.push((index, error))).ok(),
                deadline: call.deadline,
                state: State::Waiting,
            }
        };
        let slots: Vec<Slot> = planned.into_iter().enumerate().map(slot).collect();
        let mut expiry: Vec<usize> = (0..slots.len()).collect();
        expiry.sort_by_key(|&index| std::cmp::Reverse(slots[index].deadline.at));

        let started = Instant::now();
        let members = FuturesUnordered::new();
        members.push(Member::Stop(stop));
        let mut fan_out = Self {
            shared: Arc::new(Shared {
                progress: progress.into(),
                calls: batch.calls,
                observer,
                buffered,
            }),
            failure_policy: batch.failure_policy,
            concurrency_limit: batch.concurrency_limit,
            started,
            unended: slots.len(),
            slots,
            running: 0,
            next_to_start: 0,
            expiry,
            members,
            ended: VecDeque::new(),
        };
        for (index, error) in refused {
            // One that failed may have cancelled the rest.
            if fan_out.slots[index].state == State::Waiting {
                fan_out.end(index, Err(error));
            }
        }
        // Those that start at once have not waited for as much as a nanosecond.
        fan_out.start_waiting(Some(started));
        fan_out.set_timer();
        fan_out
    }

    /// The next completion; `None` after every call has had its own.
    ///
    /// # Cancel safety
    /// A completion is not lost if the returned future is dropped.
    pub async fn next(&mut self) -> Option<Completion> {
        loop {
            if let Some(completion) = self.ended.pop_front() {
                self.tell(&completion, false);
                return Some(completion);
            }
            if self.unended == 0 {
                return None;
            }
            match self.members.next().await? {
                Event::Done(index, outcome) => {
                    self.running -= 1;
                    self.end(index, outcome);
                    self.start_waiting(None);
                }
                Event::TimerFired => {
                    self.expire(Instant::now());
                    self.start_waiting(None);
                    self.set_timer();
                }
                Event::Stop => self.cancel_rest("the server is shutting down"),
            }
        }
    }

    /// Starts those whose turn it is `now`.
    fn start_waiting(&mut self, mut now: Option<Instant>) {
        // One reading for all: starting a call only makes its future.
        while self.running < self.concurrency_limit && self.next_to_start < self.slots.len() {
            let index = self.next_to_start;
            self.next_to_start += 1;
            let slot = &mut self.slots[index];
            let (State::Waiting, Some(tool)) = (slot.state, &slot.tool) else {
                continue;
            };
            let invocation = Invocation {
                shared: Arc::clone(&self.shared),
                index,
                deadline: slot.deadline,
            };
            slot.state = State::Running {
                since: *now.get_or_insert_with(Instant::now),
            };
            match catch_unwind(AssertUnwindSafe(|| tool.call(invocation))) {
                Ok(call) => {
                    self.running += 1;
                    self.members.push(Member::Call(index, Some(call)));
                }
                Err(_) => self.end(index, Err(CallError::internal(Effect::Maybe))),
            }
        }
    }

    /// Ends `index` in `outcome`, and under the policy the others with it.
    fn end(&mut self, index: usize, outcome: Outcome) {
        let failed = outcome.is_err();
        self.push_completion(index, outcome);
        if failed && self.failure_policy == FailurePolicy::CancelRest {
            self.cancel_rest("another call of the request failed");
        }
    }

    fn push_completion(&mut self, index: usize, outcome: Outcome) {
        let slot = &mut self.slots[index];
        let end = Instant::now();
        let turn = match slot.state {
            State::Running { since } => since,
            State::Waiting | State::Ended => end,
        };
        slot.state = State::Ended;
        self.unended -= 1;
        let progress = &self.shared.progress[index];
        let queued = match progress.waited() {
            Some(waited) => turn.saturating_duration_since(self.started) + waited,
            None => end.saturating_duration_since(self.started),
        };
        self.ended.push_back(Completion {
            index,
            outcome,
            end,
            queued,
            attempts: progress.attempts(),
        });
    }

    fn expire(&mut self, now: Instant) {
        let mut stopped = false;
        while let Some(&index) = self.expiry.last()
            && self.slots[index].deadline.at <= now
        {
            self.expiry.pop();
            if self.slots[index].state == State::Ended {
                continue;
            }
            stopped |= self.slots[index].state != State::Waiting;
            let error = self.unfinished(
                index,
                Reason::DeadlineExceeded(self.slots[index].deadline.limit),
                &self.out_of_time(index),
            );
            self.end(index, Err(error));
        }
        if stopped {
            self.drop_calls(false)
                .unwrap_or_else(|panic| resume_unwind(panic));
        }
    }

    fn out_of_time(&self, index: usize) -> String {
        let deadline = self.slots[index].deadline;
        let what = match deadline.limit {
            Limit::Call => "the call's timeout",
            Limit::Tool => "the tool's timeout",
            Limit::Request => "the caller's deadline",
            Limit::Server => "the server's limit for a request",
        };
        let after = deadline.at.saturating_duration_since(deadline.arrival);
        format!("{what} ran out after {after:.3?}")
    }

    fn cancel_rest(&mut self, why: &str) {
        self.drop_calls(true)
            .unwrap_or_else(|panic| resume_unwind(panic));
        self.members.clear();
        self.next_to_start = self.slots.len();
        for index in 0..self.slots.len() {
            if self.slots[index].state != State::Ended {
                let error = self.unfinished(index, Reason::Cancelled, &format!("cancelled: {why}"));
                self.push_completion(index, Err(error));
            }
        }
    }

    /// Tells whoever watches of a call whose attempts have ended.
    fn tell(&self, completion: &Completion, is_abandoned: bool) {
        if let Some(observer) = &self.shared.observer {
            observer.call_ended(&CallReport {
                completion,
                was_started: self.shared.progress[completion.index].was_started(),
                is_abandoned,
            });
        }
    }

    /// The error of a call that did not end by itself.
    fn unfinished(&self, index: usize, reason: Reason, message: &str) -> CallError {
        let tool = self.slots[index].tool.as_ref();
        let idempotent = tool.is_some_and(|tool| tool.idempotent());
        CallError::new(reason, self.effect(index), idempotent, message)
    }

    fn effect(&self, index: usize) -> Effect {
        match self.shared.progress[index].possible_runs() {
            0 => Effect::NotStarted,
            _ => Effect::Maybe,
        }
    }

    /// Drops the futures of calls that were ended from outside, or of all, which resets
    /// their streams on the wire. One that panics when it is dropped keeps no other from
    /// it; the panic is returned.
    fn drop_calls(&mut self, all: bool) -> thread::Result<()> {
        let mut result = Ok(());
        for member in self.members.iter_mut() {
            if let Member::Call(index, call @ Some(_)) = member
                && (all || self.slots[*index].state == State::Ended)
            {
                self.running -= 1;
                let dropped = catch_unwind(AssertUnwindSafe(|| *call = None));
                result = result.and(dropped);
            }
        }
        result
    }

    /// One timer serves all calls: it is set to the earliest deadline of those that have
    /// not ended.
    fn set_timer(&mut self) {
        while let Some(&index) = self.expiry.last() {
            if self.slots[index].state == State::Ended {
                self.expiry.pop();
            } else {
                let at = self.slots[index].deadline.at;
                self.members.push(Member::Timer(Box::pin(sleep_until(at))));
                return;
            }
        }
    }
}

/// The caller is gone, or a tool has panicked: what has not ended is cancelled. Tools are
/// asked nothing here: a second panic would end the process.
impl Drop for FanOut {
    fn drop(&mut self) {
        let _ = self.drop_calls(true);
        let Some(observer) = self.shared.observer.clone() else {
            return;
        };
        let ended = self.ended.len();
        for index in 0..self.slots.len() {
            if self.slots[index].state != State::Ended {
                let (reason, effect) = (Reason::Cancelled, self.effect(index));
                let error = CallError::new(reason, effect, false, "the caller is gone");
                self.push_completion(index, Err(error));
            }
        }
        for (position, completion) in std::mem::take(&mut self.ended).iter().enumerate() {
            self.tell(completion, position >= ended);
        }
        observer.batch_ended();
    }
}

impl std::fmt::Debug for PlannedCall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PlannedCall")
            .field("error", &self.tool.as_ref().err())
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Surroundings")
            .field("buffered", &self.buffered)
            .field("observer", &self.observer)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for FanOut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FanOut")
            .field("calls", &self.slots.len())
            .field("running", &self.running)
            .finish_non_exhaustive()
    }
}
