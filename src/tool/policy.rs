//! How a call survives a tool that fails, in the order in which a call meets it:
//! the circuit breaker of the tool's service, a place in the tool's bulkhead, then
//! retries or hedges, and around each attempt the breaker again.
//!
//! Each of these is a small file of its own; here they are put together. What an
//! attempt is, and whose fault it was, others know. A call that just works costs
//! two locks that nobody else holds and no allocation.

use std::{pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::time::{Instant, Sleep, sleep};

use super::{
    breaker::{Breaker, End, Ticket},
    budget::Budget,
    bulkhead::{Bulkhead, Entry, Place, Refused},
    failure::{Fault, Scope},
    hedge::Hedging,
    retry::{History, RetryPolicy, Verdict},
};
use crate::{config, fanout::Invocation, telemetry::batch::turn_has_come};

/// The most that a tool must have been given before its silence speaks against its
/// service, unless half of its timeout is less: what a caller allows may be no
/// time at all.
const MAX_PATIENCE: Duration = Duration::from_millis(500);

/// What the tools of one service share.
#[derive(Debug)]
pub struct Guard {
    breaker: Breaker,
    budget: Budget,
}

impl Guard {
    /// Of the service of that name.
    pub fn new(name: &str, service: &config::Service) -> Self {
        Self {
            breaker: Breaker::new(name, &service.breaker),
            budget: Budget::new(&service.retry_budget),
        }
    }

    /// The circuit breaker.
    pub fn breaker(&self) -> &Breaker {
        &self.breaker
    }
}

/// What is done for the calls of one tool.
#[derive(Debug)]
pub(super) struct Policy {
    guard: Arc<Guard>,
    bulkhead: Bulkhead,
    retries: RetryPolicy,
    hedging: Option<Hedging>,
    patience: Duration,
}

/// A failed attempt.
struct Failure {
    fault: Fault,
    /// Whether it tells of another failure than the attempts that were lost with
    /// it.
    is_news: bool,
    /// When the attempt began.
    start: Instant,
}

impl Policy {
    pub(super) fn new(guard: Arc<Guard>, tool: &config::Tool) -> Self {
        Self {
            guard,
            bulkhead: Bulkhead::new(tool.max_concurrency, tool.max_queue),
            retries: RetryPolicy::new(tool),
            hedging: tool.hedge.map(Hedging::new),
            patience: MAX_PATIENCE.min(tool.timeout / 2),
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

    /// An attempt, if the breaker allows one.
    async fn guarded<A, F>(&self, invocation: &Invocation, attempt: &A) -> Result<Bytes, Failure>
    where
        A: Fn() -> F,
        F: Future<Output = Result<Bytes, Fault>>,
    {
        let ticket = self.guard.breaker.admit().map_err(|wait| Failure {
            fault: self.circuit_open(wait),
            is_news: false,
            start: Instant::now(),
        })?;
        let mut watch = Watch {
            policy: self,
            invocation,
            ticket: Some(ticket),
            start: Instant::now(),
            is_first: invocation.next_attempt() == 1,
        };
        let result = attempt().await;
        match result {
            Ok(observation) => {
                watch.end(End::Answered);
                self.guard.budget.answered();
                Ok(observation)
            }
            Err(fault) => {
                let end = match fault.scope() {
                    Scope::Answered => End::Answered,
                    Scope::Unsent(setbacks) => End::Unsent(setbacks),
                    Scope::Lost => End::Lost,
                    Scope::TimedOut => watch.out_of_time(),
                    Scope::Barred | Scope::Reset => End::Unknown,
                    Scope::Refused => {
                        invocation.refused();
                        End::Unknown
                    }
                };
                let is_news = watch.end(end);
                Err(Failure {
                    fault,
                    is_news,
                    start: watch.start,
                })
            }
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

    fn circuit_open(&self, retry_after: Duration) -> Fault {
        Fault::CircuitOpen {
            service: Arc::clone(self.guard.breaker.service()),
            retry_after,
        }
    }
}

/// An attempt that is under way. If it is dropped, it was cancelled or ran out of
/// time, and the breaker learns which.
struct Watch<'a> {
    policy: &'a Policy,
    invocation: &'a Invocation,
    ticket: Option<Ticket>,
    start: Instant,
    is_first: bool,
}

impl Watch<'_> {
    /// Whether that is news.
    fn end(&mut self, end: End) -> bool {
        if let (End::Answered, true, Some(hedging)) = (end, self.is_first, &self.policy.hedging) {
            hedging.answered(self.start.elapsed());
        }
        let ticket = self.ticket.take();
        ticket.is_none_or(|ticket| self.policy.guard.breaker.settle(ticket, end))
    }

    fn out_of_time(&self) -> End {
        if self.start.elapsed() >= self.policy.patience {
            End::TimedOut
        } else {
            End::Unknown
        }
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if self.ticket.is_none() {
            return;
        }
        if let (true, Some(hedging)) = (self.is_first, &self.policy.hedging) {
            hedging.given_up(self.start.elapsed());
        }
        let remaining = self.invocation.deadline().remaining(Instant::now());
        let end = if remaining.is_zero() {
            self.out_of_time()
        } else {
            End::Unknown
        };
        self.end(end);
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
