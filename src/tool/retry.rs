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
use tonic::Code;

use super::{
    backoff::Backoff,
    failure::{Fault, Pushback, Scope},
};
use crate::config;

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
    telling: Option<Fault>,
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
    pub(super) fn keep(&mut self, fault: Fault) {
        if fault.scope() != Scope::Barred {
            self.telling = Some(fault);
        }
    }

    /// The failure to report of a call whose last one is `fault`.
    pub(super) fn conclude(self, fault: Fault) -> Fault {
        match self.telling {
            Some(telling) if fault.scope() == Scope::Barred => telling,
            _ => fault,
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
        fault: &Fault,
        history: &mut History,
        (start, now): (Instant, Instant),
        random: f64,
    ) -> Option<Duration> {
        let was_under_way = mem::replace(&mut history.is_under_way, true);
        let (since, tries) = match fault.scope() {
            Scope::Refused => {
                history.unsent = None;
                let is_first = !mem::replace(&mut history.was_refused, true);
                return is_first.then_some(Duration::ZERO);
            }
            // A call that begins does not wait for the breaker.
            Scope::Barred if !was_under_way => return None,
            Scope::Barred | Scope::Unsent(_) => history.unsent.unwrap_or((start, 0)),
            Scope::Lost | Scope::Reset | Scope::TimedOut | Scope::Answered => {
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

    /// Whether a call that failed so may be sent again although it may have run.
    pub(super) fn verdict(&self, fault: &Fault) -> Verdict {
        if !self.idempotent {
            return Verdict::Final;
        }
        match fault {
            Fault::Tool {
                status, pushback, ..
            } => match pushback {
                Some(Pushback::Never) => Verdict::ToldNot,
                _ if !self.codes.contains(&status.code.into()) => Verdict::Final,
                Some(Pushback::After(delay)) => Verdict::After(*delay),
                None => Verdict::Retryable,
            },
            fault => match fault.scope() {
                Scope::Refused | Scope::Lost | Scope::Reset => Verdict::Retryable,
                Scope::Unsent(_) | Scope::Barred | Scope::TimedOut | Scope::Answered => {
                    Verdict::Final
                }
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
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{config::Tool, error::ToolStatus};

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    fn policy(idempotent: bool) -> RetryPolicy {
        RetryPolicy::new(&Tool {
            idempotent,
            ..Tool::new("weather".to_owned())
        })
    }

    fn no_connection() -> Fault {
        let (service, reason) = ("weather".to_owned(), "refused".to_owned());
        Fault::NoConnection {
            service,
            reason,
            setbacks: 1,
        }
    }

    fn barred() -> Fault {
        Fault::CircuitOpen {
            service: "weather".into(),
            retry_after: ms(500),
        }
    }

    fn refused() -> Fault {
        Fault::NotGrpc {
            status: http::StatusCode::BAD_GATEWAY,
        }
    }

    fn status(code: Code, pushback: Option<&'static str>) -> Fault {
        let status = ToolStatus {
            code: code.into(),
            details: Bytes::new(),
        };
        Fault::Tool {
            status,
            message: String::new(),
            pushback: pushback.map(|value| Pushback::parse(&http::HeaderValue::from_static(value))),
        }
    }

    #[test]
    fn what_can_not_be_sent_is_tried_for_a_while_in_growing_steps() {
        let (policy, mut history) = (policy(false), History::default());
        let start = Instant::now();
        let mut now = start;
        let mut waits = Vec::new();
        while let Some(wait) = policy.transparent(&no_connection(), &mut history, (now, now), 0.5) {
            waits.push(wait);
            now += wait;
        }
        assert_eq!(waits, [50, 100, 200, 200, 200, 200].map(ms));
        assert!(now - start <= ms(1000));
    }

    #[test]
    fn a_dial_that_took_the_whole_time_is_the_only_one() {
        let (policy, mut history) = (policy(true), History::default());
        let start = Instant::now();
        let times = (start, start + ms(1000));
        assert_eq!(
            policy.transparent(&no_connection(), &mut history, times, 0.5),
            None
        );
    }

    #[test]
    fn a_call_waits_for_the_breaker_only_when_it_is_under_way() {
        let start = Instant::now();
        let policy = policy(true);
        let wait = |history: &mut History, fault: Fault, after| {
            policy.transparent(&fault, history, (start, start + after), 0.5)
        };
        let mut history = History::default();
        assert_eq!(wait(&mut history, barred(), ms(0)), None);

        let mut history = History::default();
        assert_eq!(wait(&mut history, no_connection(), ms(0)), Some(ms(50)));
        assert_eq!(wait(&mut history, barred(), ms(0)), Some(ms(100)));
        assert_eq!(wait(&mut history, barred(), ms(801)), None);

        // What was lost has worked before.
        let mut history = History::after_loss();
        assert_eq!(wait(&mut history, barred(), ms(2950)), Some(ms(50)));
        let mut history = History::after_loss();
        assert_eq!(wait(&mut history, barred(), ms(2951)), None);
    }

    #[test]
    fn only_an_idempotent_tool_is_asked_again() {
        let unavailable = || status(Code::Unavailable, None);
        for fault in [
            unavailable(),
            refused(),
            status(Code::Unavailable, Some("500")),
        ] {
            assert_eq!(policy(false).verdict(&fault), Verdict::Final, "{fault:?}");
        }
        let verdict = |fault| policy(true).verdict(&fault);
        assert_eq!(verdict(unavailable()), Verdict::Retryable);
        assert_eq!(verdict(refused()), Verdict::Retryable);
        assert_eq!(verdict(status(Code::Aborted, None)), Verdict::Final);
        assert_eq!(verdict(Fault::TooLarge { bytes: 1 }), Verdict::Final);
        assert_eq!(verdict(no_connection()), Verdict::Final);
        assert_eq!(verdict(barred()), Verdict::Final);
    }

    #[test]
    fn the_tool_says_when_it_wants_to_be_asked_again() {
        let verdict = |value| policy(true).verdict(&status(Code::Unavailable, Some(value)));
        assert_eq!(verdict("500"), Verdict::After(ms(500)));
        assert_eq!(verdict("0"), Verdict::After(ms(0)));
        for never in ["-1", "", "soon", "1.5", "4294967296"] {
            assert_eq!(verdict(never), Verdict::ToldNot, "{never}");
        }
        let other = status(Code::NotFound, Some("500"));
        assert_eq!(policy(true).verdict(&other), Verdict::Final);

        let (policy, mut history) = (policy(true), History::default());
        let mut delay = |verdict| policy.delay(verdict, &mut history, 0.5);
        assert_eq!(delay(Verdict::Retryable), ms(50));
        assert_eq!(delay(Verdict::Retryable), ms(100));
        assert_eq!(delay(Verdict::After(ms(7))), ms(7));
        // As from the beginning.
        assert_eq!(delay(Verdict::Retryable), ms(50));
        assert_eq!(history.retries(), 4);
    }

    #[test]
    fn that_the_breaker_is_open_is_told_only_if_nothing_else_is_known() {
        let conclude = |history: History| history.conclude(barred()).scope();
        assert_eq!(conclude(History::default()), Scope::Barred);
        let mut history = History::default();
        history.keep(no_connection());
        history.keep(barred());
        assert_eq!(conclude(history), Scope::Unsent(1));
    }
}
