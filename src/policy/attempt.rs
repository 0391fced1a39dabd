//! One attempt, and what it tells of its tool and its service: the circuit breakers
//! let it through and learn how it ended, and an answer fills the budget.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    Policy,
    breakers::{AttemptEnd, Pass},
};
use crate::{
    config,
    core::fanout::Invocation,
    tool::fanfare::failure::{FailureStage, Fault},
};

/// The most that a tool must have been given before its silence speaks against it,
/// unless half of its timeout is less: what a caller allows may be no time at all.
const MAX_PATIENCE: Duration = Duration::from_millis(500);

/// A failed attempt.
pub(super) struct Failure {
    pub(super) fault: Fault,
    /// Whether it tells of another failure than the attempts that were lost with
    /// it.
    pub(super) is_independent: bool,
    /// When the attempt began.
    pub(super) start: Instant,
}

/// What a tool must have been given before its silence speaks against it.
pub(super) fn patience(tool: &config::Tool) -> Duration {
    MAX_PATIENCE.min(tool.timeout / 2)
}

impl Policy {
    /// An attempt, if the breakers allow one.
    pub(super) async fn guarded<A, F>(
        &self,
        invocation: &Invocation,
        attempt: &A,
    ) -> Result<Bytes, Failure>
    where
        A: Fn() -> F,
        F: Future<Output = Result<Bytes, Fault>>,
    {
        let pass = self.guard.admit().map_err(|fault| Failure {
            fault,
            is_independent: false,
            start: Instant::now(),
        })?;
        let mut watch = AttemptGuard {
            policy: self,
            invocation,
            pass: Some(pass),
            start: Instant::now(),
            is_first: invocation.next_attempt() == 1,
        };
        let result = attempt().await;
        match result {
            Ok(observation) => {
                watch.end(AttemptEnd::Answered, String::new);
                self.guard.service.budget.answered();
                Ok(observation)
            }
            Err(fault) => {
                let end = match fault.scope() {
                    FailureStage::Answered if self.retries.says_it_is_unwell(&fault) => {
                        AttemptEnd::Unwell
                    }
                    FailureStage::Answered => AttemptEnd::Answered,
                    FailureStage::Unsent(connect_epoch) => AttemptEnd::Unsent(connect_epoch),
                    FailureStage::Lost => AttemptEnd::Lost,
                    FailureStage::Reset => AttemptEnd::Ended,
                    FailureStage::NotAdmitted => AttemptEnd::Unknown,
                    FailureStage::Refused => {
                        invocation.refused();
                        AttemptEnd::Unknown
                    }
                };
                let is_independent = watch.end(end, || fault.message_for_others());
                Err(Failure {
                    fault,
                    is_independent,
                    start: watch.start,
                })
            }
        }
    }
}

/// An attempt that is under way. If it is dropped, it was cancelled or ran out of
/// time, and the breakers learn which.
struct AttemptGuard<'a> {
    policy: &'a Policy,
    invocation: &'a Invocation,
    pass: Option<Pass>,
    start: Instant,
    is_first: bool,
}

impl AttemptGuard<'_> {
    /// Whether that is news; `how` it failed, in words.
    fn end(&mut self, end: AttemptEnd, how: impl Fn() -> String) -> bool {
        let answered = matches!(end, AttemptEnd::Answered | AttemptEnd::Unwell);
        if let (true, true, Some(hedging)) = (answered, self.is_first, &self.policy.hedging) {
            hedging.answered(self.start.elapsed());
        }
        let pass = self.pass.take();
        pass.is_none_or(|pass| self.policy.guard.settle(pass, end, how))
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
