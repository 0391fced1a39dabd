//! A hedged call: several attempts may run at once. `race.rs` decides when another one is
//! made and when the call ends; this file carries that out.

use std::pin::pin;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::time::{Instant, sleep_until};

use super::{
    Failure, Policy, Stage,
    attempt::FailedAttempt,
    hedge::Hedging,
    race::{Cause, Ending, Now, Race, Turn},
    retry::{History, Verdict},
};
use crate::core::fanout::Invocation;

impl Policy {
    /// Makes an attempt, and others while it takes long. The first answer wins; dropping
    /// the others resets them.
    pub(super) async fn hedged<A, F>(
        &self,
        invocation: &Invocation,
        attempt: &A,
        hedging: &Hedging,
    ) -> Result<Bytes, Failure>
    where
        A: Fn() -> F,
        F: Future<Output = Result<Bytes, Failure>>,
    {
        let lane = |mut history: History, is_paid: bool| async move {
            let result = self.delivered(invocation, attempt, &mut history).await;
            result.map_err(|failed| {
                let failure = history.conclude(failed.failure);
                (FailedAttempt { failure, ..failed }, is_paid)
            })
        };
        let now = || Now {
            at: Instant::now(),
            deadline: invocation.deadline().at,
            hedge_delay: hedging.delay(),
            budget_allows_more: self.breakers.service.budget.allows_more(),
        };
        let mut race = Race::new(self.retries.max_attempts, &now());
        let mut running = FuturesUnordered::new();
        running.push(lane(History::default(), false));
        let mut timer = pin!(sleep_until(Instant::now()));
        loop {
            let wakes_at = race.wakes_at();
            if let Some(at) = wakes_at
                && at != timer.deadline()
            {
                timer.as_mut().reset(at);
            }
            let turn = tokio::select! {
                biased;
                Some(result) = running.next() => match result {
                    Ok(observation) => return Ok(observation),
                    Err((failed, is_paid)) => {
                        let ending = self.ending(&failed, is_paid);
                        race.failed(failed.failure, ending, &now())
                    }
                },
                () = &mut timer, if wakes_at.is_some() => race.woken(&now()),
            };
            race = match turn {
                Turn::Wait(race) => race,
                Turn::Send(race, cause) => {
                    running.push(match cause {
                        // It costs a token, as a failure would. By gRFC A6 it costs
                        // nothing, since an attempt that hangs or loses does not fail:
                        // a tool that is always slow would get every call twice.
                        Cause::Slowness => {
                            self.breakers.service.budget.take();
                            lane(History::default(), true)
                        }
                        Cause::Failure => lane(History::after_loss(), false),
                    });
                    race
                }
                Turn::End(failure) => return Err(failure),
            };
        }
    }

    /// What the end of an attempt means for the others. Takes from the budget unless that
    /// `is_paid`.
    fn ending(&self, failed: &FailedAttempt, is_paid: bool) -> Ending {
        let verdict = if is_paid {
            self.retries.verdict(&failed.failure)
        } else {
            self.verdict(failed)
        };
        match (verdict, failed.failure.stage) {
            (Verdict::Retryable, _) => Ending::Passing,
            (Verdict::After(delay), _) => Ending::Pushback(delay),
            (Verdict::ToldNot, _) => Ending::ToldNot,
            (Verdict::Final, Stage::Answered) => Ending::Final,
            (Verdict::Final, Stage::NotAdmitted) => Ending::NotAdmitted,
            (Verdict::Final, _) => Ending::Unanswered,
        }
    }
}
