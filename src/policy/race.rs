//! Which attempts at a hedged call are made, and when it ends: gRFC A6's hedging as
//! a state machine, pure.
//!
//! A [`Race`] waits for something, always: for attempts that run, or for the time at
//! which the tool wants the next. What leaves neither ends the call with its last
//! fault, and leaves no race behind that could wait on.
//!
//! A6 says when the next attempt is made: after the hedging delay, at once after a
//! failure that may pass, or when the tool says (*pushback*); and each of them starts
//! the delay anew. Where several say so at a time, the tool's word counts: what it
//! asked for is neither shortened by another attempt's failure nor by its own smaller
//! word, and once it wants no more, or none before the deadline, there are no more.

use std::{num::NonZeroU32, time::Duration};

use tokio::time::Instant;

/// A call under way whose last fault is to be an `F`.
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

/// There is no state in which that is nothing.
#[derive(Debug)]
enum Awaited<F> {
    /// The end of one of so many attempts, and what is next meanwhile. Of those that
    /// have ended, the last fault.
    Attempts(NonZeroU32, Next, Option<F>),
    /// The time that the tool wants the next attempt at. If there is none then, the
    /// call ends with this.
    Pushback(Instant, F),
}

/// When the next attempt is made, while others run.
#[derive(Clone, Copy, Debug)]
enum Next {
    /// When the others have taken so long.
    Hedge(Instant),
    /// When the tool says.
    Pushback(Instant),
    /// When one of the others fails.
    OnFailure,
    /// Never.
    Never,
}

/// How an attempt ended that was not answered well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// With an answer that ends the call.
    Final,
    /// With a failure that may pass.
    Passing,
    /// The same, and the tool wants the next after so long.
    Pushback(Duration),
    /// The same, and the tool wants no more.
    ToldNot,
    /// With nothing that the tool said: others may fare better.
    Unanswered,
    /// It was not let go, which tells less than any other fault.
    NotAdmitted,
}

/// What is so when something happens.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub(super) at: Instant,
    /// Of the call.
    pub(super) deadline: Instant,
    /// How long an attempt may take before there is another, if that is known.
    pub(super) hedge_delay: Option<Duration>,
    pub(super) budget_allows_more: bool,
}

/// How it goes on.
#[derive(Debug)]
pub(super) enum Turn<F> {
    /// As it is.
    Wait(Race<F>),
    /// With one more attempt.
    Send(Race<F>, Cause),
    /// Not.
    End(F),
}

/// Why there is one more attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// Those before it take long.
    Slowness,
    /// One before it failed.
    Failure,
}

impl<F> Race<F> {
    /// A call whose first attempt was just made.
    pub(super) fn new(max_attempts: u32, now: &Now) -> Self {
        Self {
            attempts: Attempts {
                sent: 1,
                max: max_attempts,
            },
            awaited: Awaited::Attempts(NonZeroU32::MIN, hedge(now), None),
        }
    }

    /// When it wants to be woken if no attempt ends before.
    pub(super) fn wakes_at(&self) -> Option<Instant> {
        match self.awaited {
            Awaited::Attempts(_, Next::Hedge(at) | Next::Pushback(at), _)
            | Awaited::Pushback(at, _) => Some(at),
            Awaited::Attempts(_, Next::OnFailure | Next::Never, _) => None,
        }
    }

    /// Takes note that an attempt ended so.
    pub(super) fn failed(self, fault: F, ending: Ending, now: &Now) -> Turn<F> {
        let Self { attempts, awaited } = self;
        let (running, next, earlier) = match awaited {
            Awaited::Attempts(running, next, last) => (running.get() - 1, next, last),
            // None runs that could end.
            Awaited::Pushback(at, last) => (0, Next::Pushback(at), Some(last)),
        };
        let last = match earlier {
            Some(earlier) if ending == Ending::NotAdmitted => earlier,
            _ => fault,
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

    /// Takes note that the time has come at which it wanted to be woken.
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

    /// Makes one, while so many run.
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

/// When an attempt made now wants a hedge.
fn hedge(now: &Now) -> Next {
    let at = now.hedge_delay.and_then(|delay| now.at.checked_add(delay));
    at.map_or(Next::OnFailure, Next::Hedge)
}

#[cfg(test)]
mod tests;
