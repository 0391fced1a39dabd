//! How many calls are with a tool at a time, and who waits for a turn.
//!
//! The queue is fair to requests, not to calls: each request's first waiting call
//! comes before any other's second, so one of 800 calls does not hold up one of 2.
//! A call has its turn when it gets in line: one later than the call before it of
//! the same request, or the one being served. That makes joining, leaving and
//! serving a look-up in a sorted map. A call that would wait past its deadline is
//! told so at once.
//!
//! A stream that is still to be reset when nobody waits for its call any more is with
//! the tool until then ([`Lingering`]).

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::oneshot, time::Instant};

/// How much one call's time with the tool weighs in the average.
const WEIGHT: f64 = 1.0 / 16.0;

/// The places with one tool.
#[derive(Debug)]
pub(crate) struct Bulkhead {
    max_concurrency: usize,
    max_queue: usize,
    // std's Mutex: held for a few instructions, never across an await.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    running: usize,
    queue: Queue<oneshot::Sender<()>>,
    /// What a call's time with the tool is on average, in seconds, if known.
    service_time: Option<f64>,
}

/// A place with the tool. Given back when dropped.
#[derive(Debug)]
pub(crate) struct Permit<'a> {
    bulkhead: &'a Bulkhead,
    since: Instant,
}

/// The place of a stream that outlasts its call. Given back when dropped.
#[derive(Debug)]
pub(crate) struct Lingering {
    bulkhead: Arc<Bulkhead>,
    since: Instant,
}

/// A call in line. Leaves it when dropped.
#[derive(Debug)]
pub(crate) struct Waiting<'a> {
    bulkhead: &'a Bulkhead,
    turn: Turn,
    called: oneshot::Receiver<()>,
    /// Whether a place was taken over, or there is none to give back.
    done: bool,
}

/// Why there is no place in line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// So many wait already.
    Full {
        /// When the last of them will have had its turn, if that is known.
        wait: Option<Duration>,
    },
    /// The turn would come after the deadline.
    TooLate {
        /// After so long.
        wait: Duration,
    },
}

/// How a call gets in.
#[derive(Debug)]
pub(crate) enum Entry<'a> {
    /// At once.
    Permitted(Permit<'a>),
    /// In its turn.
    Queued(Waiting<'a>),
}

impl Bulkhead {
    pub(crate) fn new(max_concurrency: usize, max_queue: usize) -> Self {
        Self {
            max_concurrency,
            max_queue,
            state: Mutex::default(),
        }
    }

    /// A place for a call of `batch`, or a place in line, from which its turn is
    /// expected before `deadline`.
    pub(crate) fn enter(
        &self,
        batch: usize,
        now: Instant,
        deadline: Instant,
    ) -> Result<Entry<'_>, Refused> {
        let mut state = self.state();
        if state.running < self.max_concurrency {
            state.running += 1;
            return Ok(Entry::Permitted(self.place(now)));
        }
        let wait = |ahead: usize| {
            let rounds = (ahead + 1) as f64 / self.max_concurrency as f64;
            state
                .service_time
                .and_then(|time| Duration::try_from_secs_f64(rounds * time).ok())
        };
        if state.queue.len() >= self.max_queue {
            let wait = wait(state.queue.len());
            return Err(Refused::Full { wait });
        }
        if let Some(wait) = wait(state.queue.ahead_of_next(batch))
            && now + wait >= deadline
        {
            return Err(Refused::TooLate { wait });
        }
        let (call, called) = oneshot::channel();
        Ok(Entry::Queued(Waiting {
            bulkhead: self,
            turn: state.queue.push(batch, call),
            called,
            done: false,
        }))
    }

    /// A place for a stream whose call is about to give its own back, beyond the bound
    /// if need be: it is there.
    pub(crate) fn linger(self: &Arc<Self>, now: Instant) -> Lingering {
        self.state().running += 1;
        Lingering {
            bulkhead: Arc::clone(self),
            since: now,
        }
    }

    fn place(&self, since: Instant) -> Permit<'_> {
        Permit {
            bulkhead: self,
            since,
        }
    }

    /// Gives a place to whose turn it is, unless there are too many with the tool.
    fn pass_on(&self, state: &mut State) {
        while state.running <= self.max_concurrency
            && let Some(call) = state.queue.pop()
        {
            // Those who have gone have left the queue, or are about to.
            if call.send(()).is_ok() {
                return;
            }
        }
        state.running -= 1;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'a> Waiting<'a> {
    /// Waits for the turn.
    pub(crate) async fn turn(mut self) -> Permit<'a> {
        // The sender is in the queue, or was used.
        let _ = (&mut self.called).await;
        self.done = true;
        self.bulkhead.place(Instant::now())
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        let mut state = self.bulkhead.state();
        if state.queue.remove(self.turn).is_none() {
            // Its turn has come meanwhile.
            self.bulkhead.pass_on(&mut state);
        }
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let took = self.since.elapsed().as_secs_f64();
        let mut state = self.bulkhead.state();
        let average = state.service_time.unwrap_or(took);
        state.service_time = Some(average + (took - average) * WEIGHT);
        self.bulkhead.pass_on(&mut state);
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        let more = self.since.elapsed().as_secs_f64();
        let mut state = self.bulkhead.state();
        // The call itself has been counted.
        let average = state.service_time.unwrap_or_default();
        state.service_time = Some(average + more * WEIGHT);
        self.bulkhead.pass_on(&mut state);
    }
}

/// Who waits, in the order in which they are served. Pure.
#[derive(Debug)]
struct Queue<T> {
    waiting: BTreeMap<Turn, T>,
    batches: HashMap<usize, InLine>,
    /// The round that is being served.
    round: u64,
    joined: u64,
}

/// Where in the queue: the round, who came first, whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Turn {
    round: u64,
    joined: u64,
    batch: usize,
}

/// The waiting calls of one batch.
#[derive(Debug)]
struct InLine {
    last_round: u64,
    count: usize,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self {
            waiting: BTreeMap::new(),
            batches: HashMap::new(),
            round: 0,
            joined: 0,
        }
    }
}

impl<T> Queue<T> {
    fn len(&self) -> usize {
        self.waiting.len()
    }

    fn next_round(&self, batch: usize) -> u64 {
        let last = self.batches.get(&batch).map_or(0, |batch| batch.last_round);
        last.max(self.round) + 1
    }

    /// About how many would be served before another call of `batch`: in each
    /// round until then, one of each other batch, and those of its own.
    fn ahead_of_next(&self, batch: usize) -> usize {
        let rounds = usize::try_from(self.next_round(batch) - self.round).unwrap_or(usize::MAX);
        rounds.saturating_mul(self.batches.len()).min(self.len())
    }

    fn push(&mut self, batch: usize, item: T) -> Turn {
        let round = self.next_round(batch);
        let turn = Turn {
            round,
            joined: self.joined,
            batch,
        };
        self.joined += 1;
        let in_line = self.batches.entry(batch).or_insert(InLine {
            last_round: round,
            count: 0,
        });
        in_line.last_round = round;
        in_line.count += 1;
        self.waiting.insert(turn, item);
        turn
    }

    fn pop(&mut self) -> Option<T> {
        let (turn, item) = self.waiting.pop_first()?;
        self.round = turn.round;
        self.leave(turn.batch);
        Some(item)
    }

    /// Takes out a call that has not been served.
    fn remove(&mut self, turn: Turn) -> Option<T> {
        let item = self.waiting.remove(&turn)?;
        self.leave(turn.batch);
        Some(item)
    }

    fn leave(&mut self, batch: usize) {
        if let Some(in_line) = self.batches.get_mut(&batch) {
            in_line.count -= 1;
            if in_line.count == 0 {
                self.batches.remove(&batch);
            }
        }
    }
}

#[cfg(test)]
mod tests;
