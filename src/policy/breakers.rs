//! Whose failure counts where. A tool service's breaker is about its connections: it
//! can't be dialed, or loses what it was sent, be it that it answers no pings. A
//! tool's own is about what the tool does: nothing in its time, an end without an
//! answer, or an answer that says that it is unwell. So a tool that is slow is left
//! alone and its siblings are not; and a service that is gone is left alone as a
//! whole.

use std::{sync::Arc, time::Duration};

use super::{
    Failure, Stage,
    breaker::{Admitted, Breaker, BreakerState, End, Owner},
    budget::Budget,
};
use crate::{
    config,
    core::{
        error::{Effect, Reason},
        status::Code,
    },
};

/// What the tools of one service share.
#[derive(Debug)]
pub struct ServicePolicy {
    breaker: Breaker,
    pub(super) budget: Budget,
}

/// What is between the calls of one tool and its service.
#[derive(Debug)]
pub struct Breakers {
    breaker: Breaker,
    pub(super) service: Arc<ServicePolicy>,
}

/// The right to send one attempt.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pass {
    tool: Admitted,
    service: Admitted,
}

/// A circuit breaker is open: nothing is sent.
#[derive(Debug)]
pub(super) struct CircuitOpen {
    pub(super) owner: Owner,
    retry_after: Duration,
    /// How it failed last.
    last: Arc<str>,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AttemptEnd {
    /// With an answer.
    Answered,
    /// With an answer that says that the tool is unwell.
    Unwell,
    /// The tool, or what is in front of it, ended it without an answer.
    Ended,
    /// The tool was given its time.
    TimedOut,
    /// It can't be sent; the connect_epoch so far.
    Unsent(u32),
    /// Its connection was lost.
    Lost,
    /// So that it tells nothing.
    Unknown,
}

impl ServicePolicy {
    /// Of the service of that name.
    pub fn new(name: &str, settings: &config::Service) -> Self {
        Self {
            breaker: Breaker::new(Owner::Service(Arc::from(name)), &settings.breaker),
            budget: Budget::new(&settings.retry_budget),
        }
    }

    /// The circuit breaker.
    pub fn breaker(&self) -> &Breaker {
        &self.breaker
    }
}

impl Breakers {
    /// Of the tool of that name, which `service` runs.
    pub fn new(name: &str, settings: &config::Tool, service: Arc<ServicePolicy>) -> Self {
        Self {
            breaker: Breaker::new(Owner::Tool(Arc::from(name)), &settings.breaker),
            service,
        }
    }

    /// The tool's own circuit breaker.
    pub fn breaker(&self) -> &Breaker {
        &self.breaker
    }

    /// What becomes of the tool's calls: the worse of what its own breaker does with
    /// them and what its service's does.
    pub fn state(&self) -> BreakerState {
        self.breaker.state().max(self.service.breaker.state())
    }

    /// If no attempt may be sent now: why.
    pub(super) fn is_shut(&self) -> Option<CircuitOpen> {
        [&self.service.breaker, &self.breaker]
            .into_iter()
            .find_map(|breaker| Some(circuit_open(breaker, breaker.is_shut()?)))
    }

    /// The right to send an attempt.
    ///
    /// # Errors
    /// If one of the breakers is open.
    pub(super) fn admit(&self) -> Result<Pass, CircuitOpen> {
        // A trial of the one is not used up where the other bars it.
        if let Some(open) = self.is_shut() {
            return Err(open);
        }
        let bars = |breaker| move |wait| circuit_open(breaker, wait);
        let tool = self.breaker.admit().map_err(bars(&self.breaker))?;
        match self.service.breaker.admit() {
            Ok(service) => Ok(Pass { tool, service }),
            Err(wait) => {
                self.breaker.withdraw(tool);
                Err(circuit_open(&self.service.breaker, wait))
            }
        }
    }

    /// Notes that an attempt was sent, on a connection that works.
    pub(super) fn reached(&self) {
        self.service.breaker.reached();
    }

    /// Notes how an attempt ended, and `how` in words if it failed. Returns whether that
    /// is news: attempts that are lost together are so only once. What a tool answers
    /// always is (gRFC A6).
    pub(super) fn settle(&self, pass: Pass, end: AttemptEnd, how: impl Fn() -> String) -> bool {
        let (tool, service) = match end {
            AttemptEnd::Answered => (End::Answered, End::Answered),
            // What is behind them, a restart perhaps, meets all that are under way.
            AttemptEnd::Unwell => (End::Lost, End::Answered),
            AttemptEnd::Ended => (End::Lost, End::Unknown),
            AttemptEnd::TimedOut => (End::TimedOut, End::Unknown),
            AttemptEnd::Unsent(connect_epoch) => (End::Unknown, End::Unsent(connect_epoch)),
            AttemptEnd::Lost => (End::Unknown, End::Lost),
            AttemptEnd::Unknown => (End::Unknown, End::Unknown),
        };
        let of_tool = self.breaker.settle(pass.tool, tool, &how);
        let of_service = self.service.breaker.settle(pass.service, service, &how);
        of_service && (of_tool || end == AttemptEnd::Unwell)
    }
}

fn circuit_open(breaker: &Breaker, retry_after: Duration) -> CircuitOpen {
    CircuitOpen {
        owner: breaker.owner().clone(),
        retry_after,
        last: breaker.last_failure(),
    }
}

impl From<CircuitOpen> for Failure {
    fn from(open: CircuitOpen) -> Self {
        let CircuitOpen {
            owner,
            retry_after,
            last,
        } = open;
        let what = (Reason::CircuitOpen, Effect::NotStarted);
        let message = format!("{owner} keeps failing and is left alone for a while: {last}");
        Self {
            retry_after: Some(retry_after),
            ..Self::new(Stage::NotAdmitted, what, Code::Unavailable, message)
        }
    }
}

#[cfg(test)]
mod tests;
