//! One attempt, and what it tells of its service: the circuit breaker lets it
//! through and learns how it ended, and an answer fills the budget.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::Instant;

use super::Policy;
use crate::{
    config,
    fanout::Invocation,
    tool::{
        breaker::{Breaker, End, Ticket},
        budget::Budget,
        failure::{Fault, Scope},
    },
};

/// The most that a tool must have been given before its silence speaks against its
/// service, unless half of its timeout is less: what a caller allows may be no
/// time at all.
const MAX_PATIENCE: Duration = Duration::from_millis(500);

/// What the tools of one service share.
#[derive(Debug)]
pub struct Guard {
    pub(super) breaker: Breaker,
    pub(super) budget: Budget,
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

/// A failed attempt.
pub(super) struct Failure {
    pub(super) fault: Fault,
    /// Whether it tells of another failure than the attempts that were lost with
    /// it.
    pub(super) is_news: bool,
    /// When the attempt began.
    pub(super) start: Instant,
}

/// What a tool must have been given before its silence speaks against its service.
pub(super) fn patience(tool: &config::Tool) -> Duration {
    MAX_PATIENCE.min(tool.timeout / 2)
}

impl Policy {
    /// An attempt, if the breaker allows one.
    pub(super) async fn guarded<A, F>(
        &self,
        invocation: &Invocation,
        attempt: &A,
    ) -> Result<Bytes, Failure>
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

    pub(super) fn circuit_open(&self, retry_after: Duration) -> Fault {
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
