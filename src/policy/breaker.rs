//! A circuit breaker: stops calling a tool, or a tool service, that keeps failing, and
//! finds out when it is back. `breakers.rs` decides what counts for which of the two.
//!
//! It asks whether the tool as a whole is down, not which share of its calls failed: a
//! failure rate over a window needs many calls before it means anything, and tools often
//! get few. So it counts consecutive failures, with two exceptions that make this safe
//! with hundreds of calls in flight. A call that fails although another was answered since
//! it was sent is bad luck, or one replica's failure: it does not count. And calls that are
//! lost together, with one connection or between two dials, count as one failure.
//!
//! While closed, the breaker costs a call a few atomic loads. While open, calls fail at
//! once, except for occasional probes. The first answer closes it; if the service could
//! not be reached, a connection is enough, since an answer may take long. `Machine` is the
//! pure state machine.

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

/// The jitter of the open time, as a share of it: replicas of Fanfare must not all probe
/// at once.
const JITTER: f64 = 0.2;

/// The circuit breaker of one tool or of one tool service.
#[derive(Debug)]
pub struct Breaker {
    owner: Owner,
    /// A [`BreakerState`], so that closed, the normal case, takes no lock.
    state: AtomicU8,
    /// Counts answers, modulo 2^32. Only whether it has changed matters.
    answers: AtomicU32,
    /// The same for losses.
    losses: AtomicU32,
    opened: AtomicU64,
    // std's Mutex: held for a few instructions, never across an await.
    machine: Mutex<Machine>,
}

/// What a breaker does with calls, from best to worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BreakerState {
    /// They go through.
    Closed,
    /// At least one probe is under way; other calls fail at once.
    HalfOpen,
    /// They fail at once.
    Open,
}

/// Permission for one attempt, and what was known when it was given.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Admitted {
    answers: u32,
    losses: u32,
    /// For a probe: the opening that it belongs to.
    probe: Option<u32>,
}

/// How an attempt ended, as far as this breaker is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It answered.
    Answered,
    /// It could not be reached; the number of failed dials by then.
    Unsent(u32),
    /// The attempt was lost, perhaps with others that were under way: together they are one
    /// failure.
    Lost,
    /// It took too long.
    TimedOut,
    /// In a way that says nothing.
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

    /// The last failure that counted, in words.
    pub(crate) fn last_failure(&self) -> Arc<str> {
        Arc::clone(&self.machine().last_failure)
    }

    /// For how long no attempt may be sent, if none may now.
    pub(crate) fn is_open(&self) -> Option<Duration> {
        if self.state() == BreakerState::Closed {
            return None;
        }
        self.machine().is_open(Instant::now())
    }

    /// Permission for an attempt.
    ///
    /// # Errors
    /// If the breaker is open: with the time until the next probe.
    pub(crate) fn admit(&self) -> Result<Admitted, Duration> {
        let probe = if self.state() == BreakerState::Closed {
            None
        } else {
            let mut machine = self.machine();
            let probe = machine.admit(Instant::now(), fastrand::f64())?;
            self.show(&machine);
            probe
        };
        Ok(Admitted {
            answers: self.answers.load(Ordering::Relaxed),
            losses: self.losses.load(Ordering::Relaxed),
            probe,
        })
    }

    /// Takes note of an attempt that was sent on a working connection.
    pub(crate) fn reached(&self) {
        if self.state() != BreakerState::Closed {
            self.close_if(Machine::reached);
        }
    }

    /// Takes back a probe that was not made: the next call may be it.
    pub(crate) fn withdraw(&self, admitted: Admitted) {
        if let Some(probe) = admitted.probe {
            let mut machine = self.machine();
            machine.withdraw(probe, Instant::now());
            self.show(&machine);
        }
    }

    /// Takes note of how an attempt ended, with `how` in words if it failed. Returns whether
    /// it is independent of others: of attempts that are lost together only the first is.
    pub(crate) fn settle(
        &self,
        admitted: Admitted,
        end: End,
        how: impl FnOnce() -> String,
    ) -> bool {
        let answers = self.answers.load(Ordering::Relaxed);
        if end == End::Answered {
            // Two at the same time may count as one.
            self.answers
                .store(answers.wrapping_add(1), Ordering::Relaxed);
            if self.state() != BreakerState::Closed {
                self.close_if(Machine::answered);
            }
            return true;
        }
        if end == End::Unknown && admitted.probe.is_none() {
            return true;
        }
        self.failed(admitted, end, answers, how)
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
        admitted: Admitted,
        end: End,
        answers: u32,
        how: impl FnOnce() -> String,
    ) -> bool {
        let mut machine = self.machine();
        let losses = self.losses.load(Ordering::Relaxed);
        let is_independent = match end {
            End::Lost => admitted.losses == losses,
            End::Unsent(connect_epoch) => {
                mem::replace(&mut machine.connect_epoch, connect_epoch) != connect_epoch
            }
            End::Answered | End::TimedOut | End::Unknown => true,
        };
        if end == End::Lost && is_independent {
            self.losses.store(losses.wrapping_add(1), Ordering::Relaxed);
        }
        let counts = end != End::Unknown && is_independent && admitted.answers == answers;
        if counts {
            machine.unreachable = matches!(end, End::Unsent(_));
            machine.last_failure = how().into();
        }
        let now = Instant::now();
        let opened = machine.failed(admitted.probe, counts, answers, now, fastrand::f64());
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

/// The state of a breaker. Time and randomness are passed in.
#[derive(Debug)]
struct Machine {
    settings: config::Breaker,
    /// Consecutive failures, and the count of answers at the last one.
    failures: u32,
    answers: u32,
    /// Whether the last failure was that the service could not be reached.
    unreachable: bool,
    last_failure: Arc<str>,
    /// The number of failed dials that has been counted.
    connect_epoch: u32,
    open: Option<Open>,
    /// Counts openings: a probe of an earlier one says nothing now.
    opening: u32,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    /// When the next probe may be sent.
    until: Instant,
    /// How long it stays open after a failed probe, before jitter.
    time: Duration,
    probing: u32,
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
            Some(Open { probing: 0, .. }) => BreakerState::Open,
            Some(_) => BreakerState::HalfOpen,
        }
    }

    fn is_open(&self, now: Instant) -> Option<Duration> {
        let open = self.open?;
        let wait = open.until.saturating_duration_since(now);
        if !wait.is_zero() {
            Some(wait)
        } else if open.probing >= self.settings.probes {
            Some(open.time)
        } else {
            None
        }
    }

    /// The opening that the attempt is a probe of, if any.
    fn admit(&mut self, now: Instant, random: f64) -> Result<Option<u32>, Duration> {
        if let Some(wait) = self.is_open(now) {
            return Err(wait);
        }
        let Some(open) = &mut self.open else {
            return Ok(None);
        };
        open.probing += 1;
        // If the probe hangs, the next one does not wait for it.
        open.until = now + jittered(open.time, random);
        Ok(Some(self.opening))
    }

    fn withdraw(&mut self, probe: u32, now: Instant) {
        if let Some(open) = &mut self.open
            && probe == self.opening
        {
            open.probing -= 1;
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

    /// Takes note of an attempt that ended without an answer, whether it `counts` or not.
    /// Returns for how long that opens the breaker, if it does.
    fn failed(
        &mut self,
        probe: Option<u32>,
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
        if probe == Some(self.opening) {
            open.probing -= 1;
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
            probing: 0,
        });
        Some(wait)
    }
}

fn jittered(time: Duration, random: f64) -> Duration {
    time.mul_f64(1.0 - JITTER * random)
}

#[cfg(test)]
mod tests;
