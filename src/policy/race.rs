//! gRFC A6's hedging as a pure state machine: which attempts at a call are made, and when
//! the call ends.
//!
//! A [`Race`] always waits for something: for running attempts, or for the time at which
//! the tool wants the next one. An event that leaves neither ends the call with its last
//! failure and consumes the race, so none can wait for nothing.
//!
//! The next attempt is made after the hedging delay, at once after a failure that may
//! pass, or when the tool says (*pushback*); each attempt restarts the delay. If several
//! apply, the tool decides: its delay is not shortened by the failure of another attempt,
//! nor by a shorter pushback, and once it wants no more attempts, or none before the
//! deadline, there are none.

use std::{num::NonZeroU32, time::Duration};

use tokio::time::Instant;

/// A call under way; its failures are of type `F`.
#[derive(Debug)]
pub(super) struct Race<F> {
    attempts: Attempts,
    awaited: Awaited<F>,
}

#[derive(Clone, Copy, Debug)]
struct Attempts {
    sent: u32,
    max: u32,
}

/// What the race waits for. There is no variant for nothing.
#[derive(Debug)]
enum Awaited<F> {
    /// One of that many running attempts, and when the next one is made; the last failure
    /// of those that have ended.
    Attempts(NonZeroU32, Next, Option<F>),
    /// The time at which the tool wants the next attempt. If none is allowed then, the call
    /// ends with this failure.
    Pushback(Instant, F),
}

/// When the next attempt is made, while others run.
#[derive(Clone, Copy, Debug)]
enum Next {
    /// At this time, if the others still run.
    Hedge(Instant),
    /// At the time that the tool asked for.
    Pushback(Instant),
    /// When one of the others fails.
    OnFailure,
    /// Never.
    Never,
}

/// How a failed attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// With an answer that ends the call.
    Final,
    /// With a failure that may pass.
    Passing,
    /// The same, and the tool wants the next one after this time.
    Pushback(Duration),
    /// The same, and the tool wants no other.
    ToldNot,
    /// Without an answer of the tool: others may fare better.
    Unanswered,
    /// It was not admitted, which says less than any other failure.
    NotAdmitted,
}

/// The circumstances of an event.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub(super) at: Instant,
    /// The deadline of the call.
    pub(super) deadline: Instant,
    /// The hedging delay, if it is known.
    pub(super) hedge_delay: Option<Duration>,
    pub(super) budget_allows_more: bool,
}

/// What happens next.
#[derive(Debug)]
pub(super) enum Turn<F> {
    /// The race goes on.
    Wait(Race<F>),
    /// One more attempt is made.
    Send(Race<F>, Cause),
    /// The call ends.
    End(F),
}

/// Why there is one more attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// The attempts before it are slow.
    Slowness,
    /// An attempt before it failed.
    Failure,
}

impl<F> Race<F> {
    /// A call whose first attempt has just begun.
    pub(super) fn new(max_attempts: u32, now: &Now) -> Self {
        Self {
            attempts: Attempts {
                sent: 1,
                max: max_attempts,
            },
            awaited: Awaited::Attempts(NonZeroU32::MIN, hedge(now), None),
        }
    }

    /// When to call [`woken`](Self::woken) unless an attempt ends before.
    pub(super) fn wakes_at(&self) -> Option<Instant> {
        match self.awaited {
            Awaited::Attempts(_, Next::Hedge(at) | Next::Pushback(at), _)
            | Awaited::Pushback(at, _) => Some(at),
            Awaited::Attempts(_, Next::OnFailure | Next::Never, _) => None,
        }
    }

    /// Takes note of a failed attempt.
    pub(super) fn failed(self, failure: F, ending: Ending, now: &Now) -> Turn<F> {
        let Self { attempts, awaited } = self;
        let (running, next, earlier) = match awaited {
            Awaited::Attempts(running, next, last) => (running.get() - 1, next, last),
            // No attempt runs that could fail.
            Awaited::Pushback(at, last) => (0, Next::Pushback(at), Some(last)),
        };
        let last = match earlier {
            Some(earlier) if ending == Ending::NotAdmitted => earlier,
            _ => failure,
        };
        let next = match (ending, next) {
            (Ending::Final, _) => return Turn::End(last),
            (Ending::Passing, Next::Hedge(_) | Next::OnFailure) if attempts.allow_more(now) => {
                return attempts.one_more(running, Some(last), Cause::Failure, now);
            }
            (Ending::ToldNot, _) | (Ending::Pushback(_), Next::Never) => Next::Never,
            (Ending::Pushback(delay), next) => match now.at.checked_add(delay) {
                Some(at) if at < now.deadline => Next::Pushback(match next {
                    Next::Pushback(earlier) => earlier.max(at),
                    _ => at,
                }),
                _ => Next::Never,
            },
            (Ending::Passing | Ending::Unanswered | Ending::NotAdmitted, next) => next,
        };
        let awaited = match (NonZeroU32::new(running), next) {
            (Some(running), next) => Awaited::Attempts(running, next, Some(last)),
            (None, Next::Pushback(at)) if attempts.allow_more(now) => Awaited::Pushback(at, last),
            (None, _) => return Turn::End(last),
        };
        Turn::Wait(Self { attempts, awaited })
    }

    /// Takes note that the time of [`wakes_at`](Self::wakes_at) has come.
    pub(super) fn woken(self, now: &Now) -> Turn<F> {
        if self.wakes_at().is_none_or(|at| now.at < at) {
            return Turn::Wait(self);
        }
        let Self { attempts, awaited } = self;
        let allowed = attempts.allow_more(now);
        match awaited {
            Awaited::Attempts(running, next, last) if allowed => {
                let cause = match next {
                    Next::Pushback(_) => Cause::Failure,
                    Next::Hedge(_) | Next::OnFailure | Next::Never => Cause::Slowness,
                };
                attempts.one_more(running.get(), last, cause, now)
            }
            Awaited::Attempts(running, _, last) => {
                let awaited = Awaited::Attempts(running, Next::OnFailure, last);
                Turn::Wait(Self { attempts, awaited })
            }
            Awaited::Pushback(_, last) if allowed => {
                attempts.one_more(0, Some(last), Cause::Failure, now)
            }
            Awaited::Pushback(_, last) => Turn::End(last),
        }
    }
}

impl Attempts {
    fn allow_more(self, now: &Now) -> bool {
        self.sent < self.max && now.budget_allows_more
    }

    /// Makes one more while `running` others run.
    fn one_more<F>(self, running: u32, last: Option<F>, cause: Cause, now: &Now) -> Turn<F> {
        let running = NonZeroU32::MIN.saturating_add(running);
        let race = Race {
            attempts: Self {
                sent: self.sent + 1,
                ..self
            },
            awaited: Awaited::Attempts(running, hedge(now), last),
        };
        Turn::Send(race, cause)
    }
}

/// When an attempt that is made now is hedged.
fn hedge(now: &Now) -> Next {
    let at = now.hedge_delay.and_then(|delay| now.at.checked_add(delay));
    at.map_or(Next::OnFailure, Next::Hedge)
}

#[cfg(test)]
mod tests;
