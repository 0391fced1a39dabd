//! How a call survives a tool that fails, in the order in which a call meets it:
//! the circuit breaker of the tool's service, a place in the tool's bulkhead, then
//! retries or hedges, and around each attempt the breaker again.
//!
//! Each of these is a small file of its own; here they are put together. What an
//! attempt is, and whose fault it was, others know. A call that just works costs
//! two locks that nobody else holds and no allocation.

mod guarded;

use std::{pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::time::{Instant, Sleep, sleep};

use self::guarded::Failure;
pub use self::guarded::Guard;
use super::{
    bulkhead::{Bulkhead, Entry, Place, Refused},
    failure::{Fault, Scope},
    hedge::Hedging,
    retry::{History, RetryPolicy, Verdict},
};
use crate::{config, fanout::Invocation, telemetry::batch::turn_has_come};

/// What is done for the calls of one tool.
#[derive(Debug)]
pub(super) struct Policy {
    guard: Arc<Guard>,
    bulkhead: Bulkhead,
    retries: RetryPolicy,
    hedging: Option<Hedging>,
    patience: Duration,
}

impl Policy {
    pub(super) fn new(guard: Arc<Guard>, tool: &config::Tool) -> Self {
        Self {
            guard,
            bulkhead: Bulkhead::new(tool.max_concurrency, tool.max_queue),
            retries: RetryPolicy::new(tool),
            hedging: tool.hedge.map(Hedging::new),
            patience: guarded::patience(tool),
        }
    }

    /// Notes that an attempt was sent, on a connection that works.
    pub(super) fn reached(&self) {
        self.guard.breaker.reached();
    }

    /// Runs a call by as many `attempt`s as it needs and may have.
    pub(super) async fn run<A, F>(
        &self,
        invocation: &Invocation,
        attempt: A,
    ) -> Result<Bytes, Fault>
    where
        A: Fn() -> F,
        F: Future<Output = Result<Bytes, Fault>>,
    {
        // Before it waits for others that the service fails.
        if let Some(retry_after) = self.guard.breaker.is_shut() {
            return Err(self.circuit_open(retry_after));
        }
        let _place = self.place(invocation).await?;
        turn_has_come(invocation);
        match &self.hedging {
            None => self.retried(invocation, &attempt).await,
            // Apart, to keep the others small.
            Some(hedging) => Box::pin(self.hedged(invocation, &attempt, hedging)).await,
        }
    }

    async fn place(&self, invocation: &Invocation) -> Result<Place<'_>, Fault> {
        let now = Instant::now();
        let deadline = invocation.deadline().at;
        match self.bulkhead.enter(invocation.batch_id(), now, deadline) {
            Ok(Entry::Placed(place)) => Ok(place),
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
                || !self.allows_more(history.retries() + 1)
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

    /// An attempt, and when it takes long, another; the first answer wins, and
    /// dropping the others resets them.
    async fn hedged<A, F>(
        &self,
        invocation: &Invocation,
        attempt: &A,
        hedging: &Hedging,
    ) -> Result<Bytes, Fault>
    where
        A: Fn() -> F,
        F: Future<Output = Result<Bytes, Fault>>,
    {
        let lane = |mut history: History| async move {
            let result = self.delivered(invocation, attempt, &mut history).await;
            result.map_err(|failure| Failure {
                fault: history.conclude(failure.fault),
                ..failure
            })
        };
        let mut running = FuturesUnordered::new();
        running.push(lane(History::default()));
        let mut sent = 1;
        let mut timer = hedging.delay().map(|delay| Box::pin(sleep(delay)));
        loop {
            let failure = tokio::select! {
                Some(result) = running.next() => match result {
                    Ok(observation) => return Ok(observation),
                    Err(failure) => Some(failure),
                },
                () = expired(&mut timer) => None,
            };
            let Some(failure) = failure else {
                timer = None;
                if self.allows_more(sent) {
                    self.guard.budget.take();
                    sent += 1;
                    running.push(lane(History::default()));
                    timer = hedging.delay().map(|delay| Box::pin(sleep(delay)));
                }
                continue;
            };
            let verdict = self.verdict(&failure);
            let may_go_on = self.allows_more(sent);
            match verdict {
                Verdict::Retryable if may_go_on => {
                    sent += 1;
                    running.push(lane(History::after_loss()));
                    continue;
                }
                Verdict::After(delay) if may_go_on && is_in_time(invocation, delay) => {
                    timer = Some(Box::pin(sleep(delay)));
                    continue;
                }
                Verdict::ToldNot => timer = None,
                _ => {}
            }
            let is_fatal = failure.fault.scope() == Scope::Answered && verdict == Verdict::Final;
            if is_fatal || running.is_empty() {
                return Err(failure.fault);
            }
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
        if verdict != Verdict::Final && failure.is_news {
            self.guard.budget.take();
        }
        verdict
    }

    /// Whether there may be one more attempt than these.
    fn allows_more(&self, attempts: u32) -> bool {
        attempts < self.retries.max_attempts && self.guard.budget.allows_more()
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

async fn expired(timer: &mut Option<Pin<Box<Sleep>>>) {
    match timer {
        Some(timer) => timer.await,
        None => std::future::pending().await,
    }
}
