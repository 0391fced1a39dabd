//! How a call survives a failing tool. In the order in which a call meets them: the
//! circuit breakers of the tool and of its service, the tool's bulkhead, then retries or
//! hedges, with the breakers again around each attempt.
//!
//! Each of these is a small file of its own; here they are put together. How an attempt is
//! made, and what its failure means, is its protocol's business
//! ([`tool`](crate::tool)). A call that just works costs two uncontended locks and no
//! allocation.

mod attempt;
mod backoff;
mod breaker;
mod breakers;
mod budget;
mod bulkhead;
mod failure;
mod hedge;
mod hedged;
mod race;
mod retry;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::{Instant, sleep};

pub(crate) use self::failure::{Failure, Pushback, Resend, Stage};
use self::{
    attempt::FailedAttempt,
    bulkhead::{Bulkhead, Entry, Permit, Refused},
    hedge::Hedging,
    retry::{History, RetryPolicy, Verdict},
};
pub use self::{
    breaker::{Breaker, BreakerState},
    breakers::{Breakers, ServicePolicy},
};
use crate::{config, core::fanout::Invocation};

/// The policies of one tool.
#[derive(Debug)]
pub(crate) struct Policy {
    breakers: Arc<Breakers>,
    bulkhead: Arc<Bulkhead>,
    retries: RetryPolicy,
    hedging: Option<Hedging>,
    patience: Duration,
}

impl Policy {
    pub(crate) fn new(breakers: Arc<Breakers>, tool: &config::Tool) -> Self {
        Self {
            breakers,
            bulkhead: Arc::new(Bulkhead::new(tool.max_concurrency, tool.max_queue)),
            retries: RetryPolicy::new(tool),
            hedging: tool.hedge.map(Hedging::new),
            patience: attempt::patience(tool),
        }
    }

    /// The tool's bulkhead.
    pub(crate) fn bulkhead(&self) -> &Arc<Bulkhead> {
        &self.bulkhead
    }

    /// Takes note of an attempt that was sent on a working connection.
    pub(crate) fn reached(&self) {
        self.breakers.reached();
    }

    /// Runs a call: as many `attempt`s as it needs and is allowed.
    pub(crate) async fn run<A, F>(
        &self,
        invocation: &Invocation,
        attempt: A,
    ) -> Result<Bytes, Failure>
    where
        A: Fn() -> F,
        F: Future<Output = Result<Bytes, Failure>>,
    {
        // Before it queues behind calls that would all fail.
        if let Some(open) = self.breakers.is_open() {
            return Err(open.into());
        }
        let _permit = self.place(invocation).await?;
        match &self.hedging {
            None => self.retried(invocation, &attempt).await,
            // Boxed, to keep the future of other calls small.
            Some(hedging) => Box::pin(self.hedged(invocation, &attempt, hedging)).await,
        }
    }

    async fn place(&self, invocation: &Invocation) -> Result<Permit<'_>, Failure> {
        let now = Instant::now();
        let deadline = invocation.deadline().at;
        match self.bulkhead.enter(invocation.batch_id(), now, deadline) {
            Ok(Entry::Permitted(place)) => {
                invocation.started(Duration::ZERO);
                Ok(place)
            }
            Ok(Entry::Queued(waiting)) => {
                invocation.waits();
                let place = waiting.turn().await;
                invocation.started(now.elapsed());
                Ok(place)
            }
            Err(Refused::Full { wait }) => Err(Failure::overloaded(
                "too many calls wait for it already",
                wait,
            )),
            Err(Refused::TooLate { wait }) => Err(Failure::overloaded(
                "its turn would come after its deadline",
                Some(wait),
            )),
        }
    }

    /// One attempt after another.
    async fn retried<A, F>(&self, invocation: &Invocation, attempt: &A) -> Result<Bytes, Failure>
    where
        A: Fn() -> F,
        F: Future<Output = Result<Bytes, Failure>>,
    {
        let mut history = History::default();
        loop {
            let failed = match self.delivered(invocation, attempt, &mut history).await {
                Ok(observation) => return Ok(observation),
                Err(failed) => failed,
            };
            let verdict = self.verdict(&failed);
            let failure = failed.failure;
            if matches!(verdict, Verdict::Final | Verdict::ToldNot)
                || history.retries() + 1 >= self.retries.max_attempts
                || !self.breakers.service.budget.allows_more()
            {
                return Err(history.conclude(failure));
            }
            let delay = self.retries.delay(verdict, &mut history, fastrand::f64());
            if !is_in_time(invocation, delay) {
                return Err(history.conclude(failure));
            }
            history.keep(failure);
            pause(delay).await;
        }
    }

    /// An attempt, repeated as long as it certainly did not run.
    async fn delivered<A, F>(
        &self,
        invocation: &Invocation,
        attempt: &A,
        history: &mut History,
    ) -> Result<Bytes, FailedAttempt>
    where
        A: Fn() -> F,
        F: Future<Output = Result<Bytes, Failure>>,
    {
        loop {
            let failed = match self.guarded(invocation, attempt).await {
                Ok(observation) => return Ok(observation),
                Err(failed) => failed,
            };
            let (times, random) = ((failed.start, Instant::now()), fastrand::f64());
            let delay = self
                .retries
                .transparent(&failed.failure, history, times, random);
            let Some(delay) = delay.filter(|&delay| is_in_time(invocation, delay)) else {
                return Err(failed);
            };
            history.keep(failed.failure);
            pause(delay).await;
        }
    }

    /// Whether to send a call again. A failure takes from the budget.
    fn verdict(&self, failed: &FailedAttempt) -> Verdict {
        let verdict = self.retries.verdict(&failed.failure);
        if verdict != Verdict::Final && failed.is_independent {
            self.breakers.service.budget.take();
        }
        verdict
    }
}

/// Whether there is time left after that delay.
fn is_in_time(invocation: &Invocation, delay: Duration) -> bool {
    invocation.deadline().remaining(Instant::now()) > delay
}

/// Boxed: most calls never wait, and their futures should not be larger for it.
async fn pause(delay: Duration) {
    if !delay.is_zero() {
        Box::pin(sleep(delay)).await;
    }
}

#[cfg(test)]
mod tests;
