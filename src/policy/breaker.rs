//! Leaves alone what keeps failing, a tool or a tool service, and finds out when it
//! is back. What counts for which of the two, `breakers.rs` says.
//!
//! The question is whether it is ill as a whole, not how many calls it failed: a
//! share of failures in a window of time would need the most of a second's calls
//! before it speaks, and says little where calls are few. So failures in a row are
//! counted, with two exceptions that make this safe where hundreds of calls are in
//! flight. A call that fails although another one was answered since it was sent is
//! bad luck of its own, or one replica's. And the calls that are lost together, as
//! with a connection, or that come between two dials, are one failure, not hundreds.
//!
//! The breaker is closed while all is well, and then costs a call a few atomic
//! loads. When it opens, calls fail at once; now and then one is let through on
//! trial, and the first answer closes it; if a service could not be reached, that it
//! can be again is enough: an answer may take long. `Machine` is that, pure.

mod owner;

use std::{
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

pub(crate) use self::owner::Owner;
use crate::config;

/// How much shorter than nominal an open breaker's wait may be, as a share of it:
/// replicas of Fanfare must not try all at once.
const JITTER: f64 = 0.2;

/// The circuit breaker of one tool, or of one tool service.
#[derive(Debug)]
pub struct Breaker {
    owner: Owner,
    /// A [`BreakerState`]: closed is the normal case, and needs no lock.
    state: AtomicU8,
    /// How many answers there were, modulo 2^32. Only whether it changed matters.
    answers: AtomicU32,
    /// The same for losses that were counted.
    losses: AtomicU32,
    opened: AtomicU64,
    // std's Mutex: held for a few instructions, never across an await.
    machine: Mutex<Machine>,
}

/// What a breaker does with calls; the last is the worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BreakerState {
    /// They are let go.
    Closed,
    /// One at least is on trial; others fail at once.
    HalfOpen,
    /// They fail at once.
    Open,
}

/// The right to send one attempt, and what was known when it was given.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Admitted {
    answers: u32,
    losses: u32,
    /// If on trial: since which opening.
    trial: Option<u32>,
}

/// How an attempt ended, as far as the breaker's owner is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It answered.
    Answered,
    /// It can't be reached, after so many connect_epoch.
    Unsent(u32),
    /// It lost the attempt, and for the same reason others that were under way:
    /// together they are one failure.
    Lost,
    /// It took too long.
    TimedOut,
    /// Nothing that says anything about it.
    Unknown,
}

impl Breaker {
    /// Closed.
    pub(crate) fn new(owner: Owner, settings: &config::Breaker) -> Self {
        Self {
            owner,
            state: AtomicU8::new(BreakerState::Closed as u8),
            answers: AtomicU32::new(0),
            losses: AtomicU32::new(0),
            opened: AtomicU64::new(0),
            machine: Mutex::new(Machine::new(settings)),
        }
    }

    /// Whose it is.
    pub(crate) fn owner(&self) -> &Owner {
        &self.owner
    }

    /// What it does with calls.
    pub fn state(&self) -> BreakerState {
        const OPEN: u8 = BreakerState::Open as u8;
        const HALF_OPEN: u8 = BreakerState::HalfOpen as u8;
        match self.state.load(Ordering::Relaxed) {
            OPEN => BreakerState::Open,
            HALF_OPEN => BreakerState::HalfOpen,
            _ => BreakerState::Closed,
        }
    }

    /// How often it has opened.
    pub fn times_opened(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }

    /// How the last attempt failed that counted.
    pub(crate) fn last_failure(&self) -> Arc<str> {
        Arc::clone(&self.machine().last_failure)
    }

    /// If no attempt may be sent now: for how long.
    pub(crate) fn is_shut(&self) -> Option<Duration> {
        if self.state() == BreakerState::Closed {
            return None;
        }
        self.machine().is_shut(Instant::now())
    }

    /// The right to send an attempt.
    ///
    /// # Errors
    /// With the time until one may be sent, if the breaker is open.
    pub(crate) fn admit(&self) -> Result<Admitted, Duration> {
        let trial = if self.state() == BreakerState::Closed {
            None
        } else {
            let mut machine = self.machine();
            let trial = machine.admit(Instant::now(), fastrand::f64())?;
            self.show(&machine);
            trial
        };
        Ok(Admitted {
            answers: self.answers.load(Ordering::Relaxed),
            losses: self.losses.load(Ordering::Relaxed),
            trial,
        })
    }

    /// Notes that an attempt was sent, on a connection that works.
    pub(crate) fn reached(&self) {
        if self.state() != BreakerState::Closed {
            self.close_if(Machine::reached);
        }
    }

    /// Takes back a trial that was not made after all: the next call may make it.
    pub(crate) fn withdraw(&self, ticket: Admitted) {
        if let Some(trial) = ticket.trial {
            let mut machine = self.machine();
            machine.withdraw(trial, Instant::now());
            self.show(&machine);
        }
    }

    /// Notes how an attempt ended, and `how` in words if it failed. Returns whether that
    /// is news: attempts that are lost together are so only once.
    pub(crate) fn settle(&self, ticket: Admitted, end: End, how: impl FnOnce() -> String) -> bool {
        let answers = self.answers.load(Ordering::Relaxed);
        if end == End::Answered {
            // Two at a time may count as one.
            self.answers
                .store(answers.wrapping_add(1), Ordering::Relaxed);
            if self.state() != BreakerState::Closed {
                self.close_if(Machine::answered);
            }
            return true;
        }
        if end == End::Unknown && ticket.trial.is_none() {
            return true;
        }
        self.failed(ticket, end, answers, how)
    }

    fn close_if(&self, good_news: fn(&mut Machine) -> bool) {
        let mut machine = self.machine();
        let closed = good_news(&mut machine);
        self.show(&machine);
        drop(machine);
        if closed {
            self.owner.is_back();
        }
    }

    fn failed(
        &self,
        ticket: Admitted,
        end: End,
        answers: u32,
        how: impl FnOnce() -> String,
    ) -> bool {
        let mut machine = self.machine();
        let losses = self.losses.load(Ordering::Relaxed);
        let is_independent = match end {
            End::Lost => ticket.losses == losses,
            End::Unsent(connect_epoch) => {
                mem::replace(&mut machine.connect_epoch, connect_epoch) != connect_epoch
            }
            End::Answered | End::TimedOut | End::Unknown => true,
        };
        if end == End::Lost && is_independent {
            self.losses.store(losses.wrapping_add(1), Ordering::Relaxed);
        }
        let counts = end != End::Unknown && is_independent && ticket.answers == answers;
        if counts {
            machine.unreachable = matches!(end, End::Unsent(_));
            machine.last_failure = how().into();
        }
        let now = Instant::now();
        let opened = machine.failed(ticket.trial, counts, answers, now, fastrand::f64());
        self.show(&machine);
        let last = Arc::clone(&machine.last_failure);
        drop(machine);
        if let Some(open_time) = opened {
            self.opened.fetch_add(1, Ordering::Relaxed);
            self.owner.is_left_alone(open_time, &last);
        }
        is_independent
    }

    fn show(&self, machine: &Machine) {
        self.state.store(machine.state() as u8, Ordering::Relaxed);
    }

    fn machine(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The state of a breaker, with time and randomness from outside.
#[derive(Debug)]
struct Machine {
    settings: config::Breaker,
    /// Failures in a row, as of so many answers.
    failures: u32,
    answers: u32,
    /// Whether the last failure was that the service could not be reached.
    unreachable: bool,
    last_failure: Arc<str>,
    /// As of so many connect_epoch.
    connect_epoch: u32,
    open: Option<Open>,
    /// Counts the openings: what was on trial in an earlier one says nothing now.
    opening: u32,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    /// When an attempt may be made on trial.
    until: Instant,
    /// How long it stays open after a failed one, before jitter.
    time: Duration,
    on_trial: u32,
}

impl Machine {
    fn new(settings: &config::Breaker) -> Self {
        Self {
            settings: settings.clone(),
            failures: 0,
            answers: 0,
            unreachable: false,
            last_failure: Arc::default(),
            connect_epoch: 0,
            open: None,
            opening: 0,
        }
    }

    fn state(&self) -> BreakerState {
        match self.open {
            None => BreakerState::Closed,
            Some(Open { on_trial: 0, .. }) => BreakerState::Open,
            Some(_) => BreakerState::HalfOpen,
        }
    }

    fn is_shut(&self, now: Instant) -> Option<Duration> {
        let open = self.open?;
        let wait = open.until.saturating_duration_since(now);
        if !wait.is_zero() {
            Some(wait)
        } else if open.on_trial >= self.settings.probes {
            Some(open.time)
        } else {
            None
        }
    }

    /// The opening that the attempt is a trial of, if any.
    fn admit(&mut self, now: Instant, random: f64) -> Result<Option<u32>, Duration> {
        if let Some(wait) = self.is_shut(now) {
            return Err(wait);
        }
        let Some(open) = &mut self.open else {
            return Ok(None);
        };
        open.on_trial += 1;
        // If the trial hangs, the next one does not wait for its end.
        open.until = now + jittered(open.time, random);
        Ok(Some(self.opening))
    }

    fn withdraw(&mut self, trial: u32, now: Instant) {
        if let Some(open) = &mut self.open
            && trial == self.opening
        {
            open.on_trial -= 1;
            open.until = now;
        }
    }

    /// Whether that closed it.
    fn answered(&mut self) -> bool {
        self.failures = 0;
        self.open.take().is_some()
    }

    /// Whether that closed it.
    fn reached(&mut self) -> bool {
        self.unreachable && self.answered()
    }

    /// Notes the end of an attempt without an answer, which `counts` or not. If
    /// that opened the breaker: for how long.
    fn failed(
        &mut self,
        trial: Option<u32>,
        counts: bool,
        answers: u32,
        now: Instant,
        random: f64,
    ) -> Option<Duration> {
        let Some(open) = &mut self.open else {
            return if counts {
                self.count(answers, now, random)
            } else {
                None
            };
        };
        if trial == Some(self.opening) {
            open.on_trial -= 1;
            if counts {
                open.time = (open.time * 2).min(self.settings.max_open_time);
                open.until = now + jittered(open.time, random);
            }
        }
        None
    }

    fn count(&mut self, answers: u32, now: Instant, random: f64) -> Option<Duration> {
        if self.answers != answers {
            self.answers = answers;
            self.failures = 0;
        }
        self.failures += 1;
        if self.failures < self.settings.failures {
            return None;
        }
        self.failures = 0;
        self.opening = self.opening.wrapping_add(1);
        let time = self.settings.open_time;
        let wait = jittered(time, random);
        self.open = Some(Open {
            until: now + wait,
            time,
            on_trial: 0,
        });
        Some(wait)
    }
}

fn jittered(time: Duration, random: f64) -> Duration {
    time.mul_f64(1.0 - JITTER * random)
}

#[cfg(test)]
mod tests;
