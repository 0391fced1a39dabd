//! Which failure counts for which breaker. A service's breaker is about its connections: it
//! can't be dialed, or loses calls, for example because it answers no pings. A tool's own
//! breaker is about what the tool does: it times out, ends without an answer, or answers
//! with a status that says it is unwell. So a slow tool does not block its siblings, and
//! a service that is gone is not called at all.

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

/// The breakers that a call of one tool has to pass.
#[derive(Debug)]
pub struct Breakers {
    breaker: Breaker,
    pub(super) service: Arc<ServicePolicy>,
}

/// Permission of both breakers for one attempt.
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
    /// With a status that says that the tool is unwell.
    Unwell,
    /// Without an answer: the tool, or a proxy in front of it, ended it.
    Ended,
    /// The tool had its time.
    TimedOut,
    /// It could not be sent; the number of failed dials by then.
    Unsent(u32),
    /// Its connection was lost.
    Lost,
    /// In a way that says nothing.
    Unknown,
}

impl ServicePolicy {
    /// For the service `name`.
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
    /// For the tool `name`, which `service` runs.
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

    /// The worse of the states of the tool's own breaker and of its service's.
    pub fn state(&self) -> BreakerState {
        self.breaker.state().max(self.service.breaker.state())
    }

    /// Why no attempt may be sent now, if none may.
    pub(super) fn is_open(&self) -> Option<CircuitOpen> {
        [&self.service.breaker, &self.breaker]
            .into_iter()
            .find_map(|breaker| Some(circuit_open(breaker, breaker.is_open()?)))
    }

    /// Permission for an attempt.
    ///
    /// # Errors
    /// If one of the breakers is open.
    pub(super) fn admit(&self) -> Result<Pass, CircuitOpen> {
        // A probe of the one is not used up where the other is open.
        if let Some(open) = self.is_open() {
            return Err(open);
        }
        let open = |breaker| move |wait| circuit_open(breaker, wait);
        let tool = self.breaker.admit().map_err(open(&self.breaker))?;
        match self.service.breaker.admit() {
            Ok(service) => Ok(Pass { tool, service }),
            Err(wait) => {
                self.breaker.withdraw(tool);
                Err(circuit_open(&self.service.breaker, wait))
            }
        }
    }

    /// Takes note of an attempt that was sent on a working connection.
    pub(super) fn reached(&self) {
        self.service.breaker.reached();
    }

    /// Takes note of how an attempt ended, with `how` in words if it failed. Returns whether
    /// it is independent of others: of attempts that are lost together only the first is.
    /// What a tool answers always is (gRFC A6).
    pub(super) fn settle(&self, pass: Pass, end: AttemptEnd, how: impl Fn() -> String) -> bool {
        let (tool, service) = match end {
            AttemptEnd::Answered => (End::Answered, End::Answered),
            // Whatever caused it, a restart perhaps, affects all attempts under way.
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
