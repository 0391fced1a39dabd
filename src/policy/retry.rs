//! Whether a call that failed is sent again, and when. Pure: the time and
//! randomness come from outside.
//!
//! What certainly did not run is sent again for any tool (a *transparent* retry):
//! at once and once, if the service refused it unseen; for some seconds, in
//! growing steps, if it can't even be sent. What may have run is sent again only
//! for an idempotent tool, within `max_attempts`, the retry budget and what the
//! tool itself says (`grpc-retry-pushback-ms`). See gRFC A6.

use std::{mem, time::Duration};

use tokio::time::Instant;

use super::{Failure, Pushback, Resend, Stage, backoff::Backoff};
use crate::{config, core::status::Code};

/// What is not sent burdens no service, which is dialed, or tried by the breaker, at
/// their own pace. So this only bounds how late a call notices that it is back.
const MAX_UNSENT_PAUSE: Duration = Duration::from_millis(200);
/// How much longer a call that was sent and lost waits for a connection.
const LOST_FACTOR: u32 = 3;

/// When a tool's calls are sent again.
#[derive(Debug)]
pub(super) struct RetryPolicy {
    idempotent: bool,
    pub(super) max_attempts: u32,
    codes: Vec<Code>,
    backoff: Backoff,
    connect_patience: Duration,
}

/// What became of a call so far.
#[derive(Debug, Default)]
pub(super) struct History {
    /// Whether it was tried before, and whether it was lost then.
    is_under_way: bool,
    was_lost: bool,
    was_refused: bool,
    /// Since when it can't be sent, and how often that was tried.
    unsent: Option<(Instant, u32)>,
    /// How often it was sent again by policy, and how often of these since the
    /// tool last said when.
    retries: u32,
    in_a_row: u32,
    /// The last failure that tells more than that the breaker is open.
    telling: Option<Failure>,
}

impl History {
    /// Of a call that was sent and lost before.
    pub(super) fn after_loss() -> Self {
        Self {
            is_under_way: true,
            was_lost: true,
            ..Self::default()
        }
    }

    /// How often the call was sent again by policy.
    pub(super) fn retries(&self) -> u32 {
        self.retries
    }

    /// Keeps a failure after which the call goes on.
    pub(super) fn keep(&mut self, failure: Failure) {
        if failure.stage != Stage::NotAdmitted {
            self.telling = Some(failure);
        }
    }

    /// The failure to report of a call whose last one is `failure`.
    pub(super) fn conclude(self, failure: Failure) -> Failure {
        match self.telling {
            Some(telling) if failure.stage == Stage::NotAdmitted => telling,
            _ => failure,
        }
    }
}

/// Whether a failed call may be sent again by policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// No.
    Final,
    /// Not, because the tool says so.
    ToldNot,
    /// After the backoff.
    Retryable,
    /// After as long as the tool says.
    After(Duration),
}

impl RetryPolicy {
    pub(super) fn new(tool: &config::Tool) -> Self {
        let retry = &tool.retry;
        Self {
            idempotent: tool.idempotent,
            max_attempts: retry.max_attempts,
            codes: retry.codes.clone(),
            backoff: Backoff {
                initial: retry.initial_backoff,
                max: retry.max_backoff,
            },
            connect_patience: retry.connect_patience,
        }
    }

    /// How long to wait before sending again what has not run, in an attempt that
    /// began at `start`; `None` if it may have, or if that was tried long enough.
    pub(super) fn transparent(
        &self,
        failure: &Failure,
        history: &mut History,
        (start, now): (Instant, Instant),
        random: f64,
    ) -> Option<Duration> {
        let was_under_way = mem::replace(&mut history.is_under_way, true);
        let (since, tries) = match failure.stage {
            Stage::Refused => {
                history.unsent = None;
                let is_first = !mem::replace(&mut history.was_refused, true);
                return is_first.then_some(Duration::ZERO);
            }
            // A call that begins does not wait for the breaker.
            Stage::NotAdmitted if !was_under_way => return None,
            Stage::NotAdmitted | Stage::Unsent(_) => history.unsent.unwrap_or((start, 0)),
            Stage::Lost | Stage::Reset | Stage::Answered => {
                history.was_lost = true;
                history.unsent = None;
                return None;
            }
        };
        history.unsent = Some((since, tries.saturating_add(1)));
        let backoff = Backoff {
            max: self.backoff.max.min(MAX_UNSENT_PAUSE),
            ..self.backoff
        };
        let delay = backoff.delay(tries, random);
        let factor = if history.was_lost { LOST_FACTOR } else { 1 };
        let until = since + self.connect_patience * factor;
        (now + delay <= until).then_some(delay)
    }

    /// Whether the tool answered with one of the statuses that say so, and would
    /// answer anybody so just now.
    pub(super) fn says_it_is_unwell(&self, failure: &Failure) -> bool {
        matches!(failure.resend, Resend::ByStatus(_)) && self.codes.contains(&failure.code)
    }

    /// Whether a call that failed so may be sent again although it may have run.
    pub(super) fn verdict(&self, failure: &Failure) -> Verdict {
        if !self.idempotent {
            return Verdict::Final;
        }
        match failure.resend {
            Resend::ByStatus(Some(Pushback::Never)) => Verdict::ToldNot,
            Resend::ByStatus(_) if !self.says_it_is_unwell(failure) => Verdict::Final,
            Resend::ByStatus(Some(Pushback::After(delay))) => Verdict::After(delay),
            Resend::ByStatus(None) => Verdict::Retryable,
            Resend::Never => Verdict::Final,
            Resend::ByStage => match failure.stage {
                Stage::Refused | Stage::Lost | Stage::Reset => Verdict::Retryable,
                Stage::Unsent(_) | Stage::NotAdmitted | Stage::Answered => Verdict::Final,
            },
        }
    }

    /// How long to wait before the next retry by policy.
    pub(super) fn delay(&self, verdict: Verdict, history: &mut History, random: f64) -> Duration {
        history.retries += 1;
        if let Verdict::After(delay) = verdict {
            history.in_a_row = 0;
            return delay;
        }
        let delay = self.backoff.delay(history.in_a_row, random);
        history.in_a_row += 1;
        delay
    }
}

#[cfg(test)]
mod tests;
