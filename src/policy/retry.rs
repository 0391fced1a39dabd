//! Whether and when a failed call is sent again. Pure: time and randomness are passed in.
//!
//! A call that certainly did not run is sent again for any tool (a *transparent* retry,
//! gRFC A6): once and at once if the service refused it unseen; with backoff, for up to
//! `connect_patience`, if it could not be sent. A call that may have run is sent again only
//! for an idempotent tool, within `max_attempts`, the retry budget and what the tool itself
//! asks for (`grpc-retry-pushback-ms`).

use std::{mem, time::Duration};

use tokio::time::Instant;

use super::{Failure, Pushback, Resend, Stage, backoff::Backoff};
use crate::{config, core::status::Code};

/// The longest pause before a call that could not be sent tries again. It puts no load on
/// the service, which is dialed and probed at another pace: it only bounds how late the
/// call notices that the service is back.
const MAX_UNSENT_PAUSE: Duration = Duration::from_millis(200);
/// By what factor a call that was sent and lost waits longer for a connection.
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

/// The attempts at a call so far.
#[derive(Debug, Default)]
pub(super) struct History {
    /// Whether there was an attempt, and whether one was lost.
    is_under_way: bool,
    was_lost: bool,
    was_refused: bool,
    /// Since when it could not be sent, and how often that was tried.
    unsent: Option<(Instant, u32)>,
    /// How often it was sent again by policy, and how often since the last pushback.
    retries: u32,
    in_a_row: u32,
    /// The last failure other than an open breaker.
    telling: Option<Failure>,
}

impl History {
    /// For a call that was sent and lost before.
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

    /// Records a failure after which the call goes on.
    pub(super) fn keep(&mut self, failure: Failure) {
        if failure.stage != Stage::NotAdmitted {
            self.telling = Some(failure);
        }
    }

    /// The failure to report for a call whose last one is `failure`.
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
    /// No, because the tool said so.
    ToldNot,
    /// After the backoff.
    Retryable,
    /// After the time that the tool asked for.
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

    /// The delay before a transparent retry of an attempt that began at `start`; `None` if it
    /// may have run, or was tried for long enough.
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
            // A new call does not wait for the breaker.
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

    /// Whether the tool answered with one of the retryable statuses: it would now answer any
    /// call so.
    pub(super) fn says_it_is_unwell(&self, failure: &Failure) -> bool {
        matches!(failure.resend, Resend::ByStatus(_)) && self.codes.contains(&failure.code)
    }

    /// Whether a call that failed like this may be sent again although it may have run.
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

    /// The delay before the next retry by policy.
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
