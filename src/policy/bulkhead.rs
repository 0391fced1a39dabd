//! A bulkhead: how many calls a tool gets at a time, and the queue for the others.
//!
//! The queue is fair to requests, not to calls: each request's first waiting call comes
//! before any other's second, so a request of 800 calls does not hold up one of 2. A call
//! gets its round when it joins: the one after that of the previous call of its request,
//! or the current one. So joining, leaving and serving are look-ups in a sorted map. A call
//! that would wait past its deadline is refused at once.
//!
//! A cancelled call keeps its permit until its stream is reset ([`Lingering`]).

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::oneshot, time::Instant};

/// The weight of one call in the moving average of the service time.
const WEIGHT: f64 = 1.0 / 16.0;

/// The permits of one tool.
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
    /// The average time of a call with the tool, in seconds, if known.
    service_time: Option<f64>,
}

/// Permission to call the tool. Returned when dropped.
#[derive(Debug)]
pub(crate) struct Permit<'a> {
    bulkhead: &'a Bulkhead,
    since: Instant,
}

/// The permit of a stream that outlasts its call. Returned when dropped.
#[derive(Debug)]
pub(crate) struct Lingering {
    bulkhead: Arc<Bulkhead>,
    since: Instant,
}

/// A call in the queue. Leaves it when dropped.
#[derive(Debug)]
pub(crate) struct Waiting<'a> {
    bulkhead: &'a Bulkhead,
    turn: Turn,
    called: oneshot::Receiver<()>,
    /// Whether the permit was taken over, so that there is none to return.
    done: bool,
}

/// Why a call can't join the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The queue is full.
    Full {
        /// When it is expected to be empty, if that is known.
        wait: Option<Duration>,
    },
    /// The call's turn would come after its deadline.
    TooLate {
        /// How long it would wait.
        wait: Duration,
    },
}

/// How a call gets in.
#[derive(Debug)]
pub(crate) enum Entry<'a> {
    /// At once.
    Permitted(Permit<'a>),
    /// When its turn comes.
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

    /// A permit for a call of `batch`, or a place in the queue if its turn is expected
    /// before `deadline`.
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

    /// A permit for a stream whose call is about to return its own. May exceed the bound,
    /// because the stream exists.
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

    /// Passes a permit to the call whose turn it is, unless the tool has enough calls.
    fn pass_on(&self, state: &mut State) {
        while state.running <= self.max_concurrency
            && let Some(call) = state.queue.pop()
        {
            // A call that is gone has left the queue, or is about to.
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
            // Its turn came just now.
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
        // The call itself is counted already.
        let average = state.service_time.unwrap_or_default();
        state.service_time = Some(average + more * WEIGHT);
        self.bulkhead.pass_on(&mut state);
    }
}

/// The waiting calls, in the order in which they are served. Pure.
#[derive(Debug)]
struct Queue<T> {
    waiting: BTreeMap<Turn, T>,
    batches: HashMap<usize, InLine>,
    /// The round that is being served.
    round: u64,
    joined: u64,
}

/// A position in the queue: the round, the order of arrival, and the batch.
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

    /// About how many calls would be served before another call of `batch`: its own, and
    /// in each round until then one of every other batch.
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

    /// Removes a call that has not been served.
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
