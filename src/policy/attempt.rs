//! One attempt: the circuit breakers let it through and learn how it ended, and an answer
//! refills the retry budget.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    Failure, Policy, Stage,
    breakers::{AttemptEnd, Pass},
};
use crate::{config, core::fanout::Invocation};

/// How long an attempt must have waited before a timeout counts against the tool (half of
/// the tool's timeout, if that is less): a caller's deadline may leave it hardly any time.
const MAX_PATIENCE: Duration = Duration::from_millis(500);

/// A failed attempt, and what it adds to those before it.
pub(super) struct FailedAttempt {
    pub(super) failure: Failure,
    /// Whether it is a failure of its own, and not one with others that were lost with
    /// the same connection.
    pub(super) is_independent: bool,
    /// When the attempt began.
    pub(super) start: Instant,
}

/// How long an attempt must have waited before a timeout counts against the tool.
pub(super) fn patience(tool: &config::Tool) -> Duration {
    MAX_PATIENCE.min(tool.timeout / 2)
}

impl Policy {
    /// Makes an attempt if the breakers allow one.
    pub(super) async fn guarded<A, F>(
        &self,
        invocation: &Invocation,
        attempt: &A,
    ) -> Result<Bytes, FailedAttempt>
    where
        A: Fn() -> F,
        F: Future<Output = Result<Bytes, Failure>>,
    {
        let pass = self.breakers.admit().map_err(|open| FailedAttempt {
            failure: open.into(),
            is_independent: false,
            start: Instant::now(),
        })?;
        let mut guard = AttemptGuard {
            policy: self,
            invocation,
            pass: Some(pass),
            start: Instant::now(),
            is_first: invocation.next_attempt() == 1,
        };
        let result = attempt().await;
        match result {
            Ok(observation) => {
                guard.end(AttemptEnd::Answered, String::new);
                self.breakers.service.budget.answered();
                Ok(observation)
            }
            Err(failure) => {
                let end = match failure.stage {
                    Stage::Answered if self.retries.says_it_is_unwell(&failure) => {
                        AttemptEnd::Unwell
                    }
                    Stage::Answered => AttemptEnd::Answered,
                    Stage::Unsent(connect_epoch) => AttemptEnd::Unsent(connect_epoch),
                    Stage::Lost => AttemptEnd::Lost,
                    Stage::Reset => AttemptEnd::Ended,
                    Stage::NotAdmitted => AttemptEnd::Unknown,
                    Stage::Refused => {
                        invocation.refused();
                        AttemptEnd::Unknown
                    }
                };
                let how = || failure.public_message().to_owned();
                let is_independent = guard.end(end, how);
                Err(FailedAttempt {
                    failure,
                    is_independent,
                    start: guard.start,
                })
            }
        }
    }
}

/// An attempt under way. Dropped before [`end`](Self::end), it was cancelled or ran out of
/// time; the breakers are told which.
struct AttemptGuard<'a> {
    policy: &'a Policy,
    invocation: &'a Invocation,
    pass: Option<Pass>,
    start: Instant,
    is_first: bool,
}

impl AttemptGuard<'_> {
    /// Tells the breakers. Returns whether the failure is independent of others; `how` says
    /// it in words.
    fn end(&mut self, end: AttemptEnd, how: impl Fn() -> String) -> bool {
        let answered = matches!(end, AttemptEnd::Answered | AttemptEnd::Unwell);
        if let (true, true, Some(hedging)) = (answered, self.is_first, &self.policy.hedging) {
            hedging.answered(self.start.elapsed());
        }
        let pass = self.pass.take();
        pass.is_none_or(|pass| self.policy.breakers.settle(pass, end, how))
    }

    fn out_of_time(&self) -> AttemptEnd {
        if self.start.elapsed() >= self.policy.patience {
            AttemptEnd::TimedOut
        } else {
            AttemptEnd::Unknown
        }
    }
}

impl Drop for AttemptGuard<'_> {
    fn drop(&mut self) {
        if self.pass.is_none() {
            return;
        }
        if let (true, Some(hedging)) = (self.is_first, &self.policy.hedging) {
            hedging.given_up(self.start.elapsed());
        }
        let remaining = self.invocation.deadline().remaining(Instant::now());
        let end = if remaining.is_zero() {
            self.out_of_time()
        } else {
            AttemptEnd::Unknown
        };
        let elapsed = self.start.elapsed();
        self.end(end, || {
            format!("no answer within {} ms", elapsed.as_millis())
        });
    }
}
