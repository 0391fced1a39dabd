//! How a call survives a tool that fails, in the order in which a call meets it:
//! the circuit breakers of the tool and of its service, a place in the tool's
//! bulkhead, then retries or hedges, and around each attempt the breakers again.
//!
//! Each of these is a small file of its own; here they are put together. What an
//! attempt is, and whose fault it was, others know. A call that just works costs
//! two locks that nobody else holds and no allocation.

mod attempt;
mod backoff;
pub(crate) mod breaker;
mod breakers;
mod budget;
pub(crate) mod bulkhead;
mod hedge;
mod hedged;
mod race;
mod retry;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::{Instant, sleep};

use self::{
    attempt::Failure,
    bulkhead::{Bulkhead, Entry, Permit, Refused},
    hedge::Hedging,
    retry::{History, RetryPolicy, Verdict},
};
pub use self::{
    breaker::{Breaker, BreakerState},
    breakers::{Breakers, ServicePolicy},
};
use crate::{
    config, core::fanout::Invocation, telemetry::batch::started, tool::fanfare::failure::Fault,
};

/// What is done for the calls of one tool.
#[derive(Debug)]
pub(crate) struct Policy {
    guard: Arc<Breakers>,
    bulkhead: Arc<Bulkhead>,
    retries: RetryPolicy,
    hedging: Option<Hedging>,
    patience: Duration,
}

impl Policy {
    pub(crate) fn new(guard: Arc<Breakers>, tool: &config::Tool) -> Self {
        Self {
            guard,
            bulkhead: Arc::new(Bulkhead::new(tool.max_concurrency, tool.max_queue)),
            retries: RetryPolicy::new(tool),
            hedging: tool.hedge.map(Hedging::new),
            patience: attempt::patience(tool),
        }
    }

    /// The places with the tool.
    pub(crate) fn bulkhead(&self) -> &Arc<Bulkhead> {
        &self.bulkhead
    }

    /// Notes that an attempt was sent, on a connection that works.
    pub(crate) fn reached(&self) {
        self.guard.reached();
    }

    /// Runs a call by as many `attempt`s as it needs and may have.
    pub(crate) async fn run<A, F>(
        &self,
        invocation: &Invocation,
        attempt: A,
    ) -> Result<Bytes, Fault>
    where
        A: Fn() -> F,
        F: Future<Output = Result<Bytes, Fault>>,
    {
        // Before it waits for others that are failed.
        if let Some(fault) = self.guard.is_shut() {
            return Err(fault);
        }
        let _permit = self.place(invocation).await?;
        started(invocation);
        match &self.hedging {
            None => self.retried(invocation, &attempt).await,
            // Apart, to keep the others small.
            Some(hedging) => Box::pin(self.hedged(invocation, &attempt, hedging)).await,
        }
    }

    async fn place(&self, invocation: &Invocation) -> Result<Permit<'_>, Fault> {
        let now = Instant::now();
        let deadline = invocation.deadline().at;
        match self.bulkhead.enter(invocation.batch_id(), now, deadline) {
            Ok(Entry::Permitted(place)) => Ok(place),
            Ok(Entry::Queued(waiting)) => {
                invocation.waits();
                let place = waiting.turn().await;
                invocation.has_waited(now.elapsed());
                Ok(place)
            }
            Err(Refused::Full { wait }) => Err(Fault::Overloaded {
                reason: "too many calls wait for it already",
                retry_after: wait,
            }),
            Err(Refused::TooLate { wait }) => Err(Fault::Overloaded {
                reason: "its turn would come after its deadline",
                retry_after: Some(wait),
            }),
        }
    }

    /// One attempt after the other.
    async fn retried<A, F>(&self, invocation: &Invocation, attempt: &A) -> Result<Bytes, Fault>
    where
        A: Fn() -> F,
        F: Future<Output = Result<Bytes, Fault>>,
    {
        let mut history = History::default();
        loop {
            let failure = match self.delivered(invocation, attempt, &mut history).await {
                Ok(observation) => return Ok(observation),
                Err(failure) => failure,
            };
            let verdict = self.verdict(&failure);
            let fault = failure.fault;
            if matches!(verdict, Verdict::Final | Verdict::ToldNot)
                || history.retries() + 1 >= self.retries.max_attempts
                || !self.guard.service.budget.allows_more()
            {
                return Err(history.conclude(fault));
            }
            let delay = self.retries.delay(verdict, &mut history, fastrand::f64());
            if !is_in_time(invocation, delay) {
                return Err(history.conclude(fault));
            }
            history.keep(fault);
            pause(delay).await;
        }
    }

    /// An attempt, made again as long as it certainly did not run.
    async fn delivered<A, F>(
        &self,
        invocation: &Invocation,
        attempt: &A,
        history: &mut History,
    ) -> Result<Bytes, Failure>
    where
        A: Fn() -> F,
        F: Future<Output = Result<Bytes, Fault>>,
    {
        loop {
            let failure = match self.guarded(invocation, attempt).await {
                Ok(observation) => return Ok(observation),
                Err(failure) => failure,
            };
            let (times, random) = ((failure.start, Instant::now()), fastrand::f64());
            let delay = self
                .retries
                .transparent(&failure.fault, history, times, random);
            let Some(delay) = delay.filter(|&delay| is_in_time(invocation, delay)) else {
                return Err(failure);
            };
            history.keep(failure.fault);
            pause(delay).await;
        }
    }

    /// Whether to send a call again, at the expense of the budget.
    fn verdict(&self, failure: &Failure) -> Verdict {
        let verdict = self.retries.verdict(&failure.fault);
        if verdict != Verdict::Final && failure.is_independent {
            self.guard.service.budget.take();
        }
        verdict
    }
}

/// Whether there is time left after waiting so long.
fn is_in_time(invocation: &Invocation, delay: Duration) -> bool {
    invocation.deadline().remaining(Instant::now()) > delay
}

/// In a box: most calls never wait, and should not be larger for it.
async fn pause(delay: Duration) {
    if !delay.is_zero() {
        Box::pin(sleep(delay)).await;
    }
}

#[cfg(test)]
mod tests;
