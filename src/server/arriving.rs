//! The memory for requests that are not complete: out of the budget of the process,
//! of which they get a share only, and each connection a share of that. So whoever
//! sends what never becomes complete can't keep out requests that are.
//!
//! Nor those that become complete soon: when nothing is left, those give way that have
//! waited longest. An honest request waits for milliseconds.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use futures_util::FutureExt as _;
use http::HeaderMap;
use tokio::sync::oneshot;

use crate::buffered::{Buffered, Held};

/// What a stream takes that waits for its request, in h2, hyper and here, beside its
/// headers and what has come of it: measured, in a build that is not optimized.
const STREAM_BYTES: usize = 12 << 10;
/// What a field of its headers takes beside its name and value.
const FIELD_BYTES: usize = 128;
/// A share of the budget that each connection has at least, for requests of that size.
const LEAST_REQUESTS: usize = 2;

/// The budgets that count for the requests of one connection.
#[derive(Clone, Debug)]
pub(super) struct Arriving {
    /// All that the process holds.
    process: Buffered,
    /// All that is not complete.
    incomplete: Buffered,
    /// Of that, what came on this connection.
    connection: Buffered,
    queue: Arc<Queue>,
}

/// The streams that wait, oldest first.
#[derive(Debug, Default)]
struct Queue(Mutex<Places>);

#[derive(Debug, Default)]
struct Places {
    next: u64,
    waiting: BTreeMap<u64, InQueue>,
}

/// What a stream holds that waits. It comes back when the stream is to give way: what
/// that has in memory follows as soon as its task runs.
#[derive(Debug)]
struct InQueue {
    process: Held,
    incomplete: Held,
    /// Tells by being dropped.
    _stays: oneshot::Sender<()>,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Places> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Places {
    /// Has the first give way until `incomplete` has room for so many bytes; but not
    /// `but` itself, nor all for what will never fit.
    fn make_room(&mut self, bytes: usize, but: u64, incomplete: &Buffered) {
        while bytes <= incomplete.max()
            && bytes > incomplete.max() - incomplete.held().min(incomplete.max())
            && let Some(first) = self
                .waiting
                .first_entry()
                .filter(|first| *first.key() != but)
        {
            first.remove();
        }
    }
}

/// A place in the queue.
#[derive(Debug)]
struct Place {
    number: u64,
    evicted: oneshot::Receiver<()>,
    queue: Arc<Queue>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.queue.lock().waiting.remove(&self.number);
    }
}

impl Arriving {
    /// The budgets of a process that takes requests of up to `max_request_bytes`.
    pub(super) fn new(process: Buffered, max_request_bytes: usize) -> Self {
        let incomplete = Buffered::new(process.max() / 2);
        let share = incomplete.max() / 8;
        let least = LEAST_REQUESTS * (max_request_bytes + STREAM_BYTES);
        Self {
            connection: Buffered::new(share.max(least).min(incomplete.max())),
            incomplete,
            process,
            queue: Arc::default(),
        }
    }

    /// The same for another connection.
    pub(super) fn on_another_connection(&self) -> Self {
        Self {
            connection: Buffered::new(self.connection.max()),
            ..self.clone()
        }
    }

    /// Holds a complete request.
    pub(super) fn try_hold_complete(&self, bytes: usize) -> Option<Held> {
        self.process.try_hold(bytes)
    }

    /// Holds a stream that begins to wait, with `bytes` of its request and these
    /// headers.
    pub(super) fn try_wait(&self, bytes: usize, headers: &HeaderMap) -> Option<Waiting> {
        let fields = headers.iter();
        let headers: usize = fields
            .map(|(name, value)| name.as_str().len() + value.len() + FIELD_BYTES)
            .sum();
        let bytes = STREAM_BYTES + headers + bytes;
        let process = self.process.try_hold(bytes)?;
        let connection = self.connection.try_hold(bytes)?;
        let (stays, evicted) = oneshot::channel();
        let mut places = self.queue.lock();
        let number = places.next;
        places.make_room(bytes, number, &self.incomplete);
        let held = InQueue {
            process,
            incomplete: self.incomplete.try_hold(bytes)?,
            _stays: stays,
        };
        places.next += 1;
        places.waiting.insert(number, held);
        drop(places);
        Some(Waiting {
            connection,
            budget: self.incomplete.clone(),
            place: Place {
                number,
                evicted,
                queue: Arc::clone(&self.queue),
            },
        })
    }
}

/// The right of a stream to wait for its request.
#[derive(Debug)]
pub(super) struct Waiting {
    connection: Held,
    budget: Buffered,
    place: Place,
}

impl Waiting {
    /// Holds so many bytes more. If they do not fit, the request is to be given up.
    #[must_use]
    pub(super) fn try_grow(&mut self, bytes: usize) -> bool {
        if bytes == 0 {
            return true;
        }
        let number = self.place.number;
        let mut places = self.place.queue.lock();
        places.make_room(bytes, number, &self.budget);
        places.waiting.get_mut(&number).is_some_and(|held| {
            held.process.try_grow(bytes)
                && held.incomplete.try_grow(bytes)
                && self.connection.try_grow(bytes)
        })
    }

    /// Comes true when it has to give way.
    pub(super) fn poll_evicted(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.place.evicted.poll_unpin(context).map(drop)
    }

    /// What the complete request of so many bytes holds.
    pub(super) fn complete(self, bytes: usize) -> Option<Held> {
        let mut held = {
            let mut places = self.place.queue.lock();
            places.waiting.remove(&self.place.number)?.process
        };
        if bytes <= held.bytes() {
            held.shrink(held.bytes() - bytes);
            return Some(held);
        }
        held.try_grow(bytes - held.bytes()).then_some(held)
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, time::Duration};

    use tokio::{
        task::{JoinSet, yield_now},
        time::timeout,
    };

    use super::*;

    const MIB: usize = 1 << 20;

    fn wait(arriving: &Arriving, bytes: usize) -> Option<Waiting> {
        arriving.try_wait(bytes - STREAM_BYTES, &HeaderMap::new())
    }

    #[test]
    fn what_waits_gets_half_and_a_connection_a_sixteenth() {
        let process = Buffered::new(256 * MIB);
        let arriving = Arriving::new(process.clone(), 4 * MIB);
        let mut connections = Vec::new();
        for _ in 0..8 {
            let connection = arriving.on_another_connection();
            let held = wait(&connection, 16 * MIB).expect("a share");
            assert!(wait(&connection, MIB).is_none());
            connections.push((connection, held));
        }
        assert_eq!(process.held(), 128 * MIB, "nothing is held by refusals");
        let another = arriving.on_another_connection();
        assert!(another.try_hold_complete(128 * MIB).is_some());
        drop(connections);
        assert_eq!(process.held(), 0);
    }

    #[test]
    fn who_waits_longest_gives_way() {
        let process = Buffered::new(256 * MIB);
        let arriving = Arriving::new(process.clone(), MIB);
        let evicted = |waiting: &mut Waiting| {
            let signal = waiting.place.evicted.try_recv();
            signal == Err(oneshot::error::TryRecvError::Closed)
        };
        let on_another = |bytes| {
            let connection = arriving.on_another_connection();
            wait(&connection, bytes).expect("room")
        };
        let mut all: Vec<_> = (0..128).map(|_| on_another(MIB)).collect();
        assert!(!all.iter_mut().any(evicted));
        // All is held: from here on each takes the place of the first.
        for index in 1..=8 {
            all.push(on_another(MIB));
            let gone: Vec<_> = all.iter_mut().map(evicted).collect();
            assert!(gone[..index].iter().all(|gone| *gone), "{gone:?}");
            assert!(gone[index..].iter().all(|gone| !*gone), "{gone:?}");
        }
        // So does who grows, by as many as that takes.
        assert!(all.last_mut().unwrap().try_grow(3 * MIB));
        assert_eq!(
            all.iter_mut()
                .filter_map(|one| evicted(one).then_some(()))
                .count(),
            11
        );
        assert_eq!(process.held(), 128 * MIB);
        // Who has given way gets nothing any more.
        let first = &mut all[0];
        assert!(!first.try_grow(1));
        assert!(all.remove(0).complete(1).is_none());
        drop(all);
        assert!(arriving.queue.lock().waiting.is_empty());
        assert_eq!((process.held(), arriving.incomplete.held()), (0, 0));
    }

    #[test]
    fn a_complete_request_holds_its_bytes_alone() {
        let arriving = Arriving::new(Buffered::new(32 * MIB), MIB);
        let mut waiting = wait(&arriving, MIB).expect("room");
        assert!(waiting.try_grow(100));
        let held = waiting.complete(1000).expect("room");
        assert_eq!((held.bytes(), arriving.process.held()), (1000, 1000));
        assert_eq!(arriving.incomplete.held(), 0);
        assert_eq!(arriving.connection.held(), 0);
        // Inflated, it may be larger than what came.
        let waiting = wait(&arriving, MIB).expect("room");
        assert_eq!(waiting.complete(2 * MIB).expect("room").bytes(), 2 * MIB);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn whoever_gives_way_hears_of_it() {
        const STREAMS: usize = 1000;
        let process = Buffered::new(32 * MIB);
        let arriving = Arriving::new(process.clone(), MIB);
        let mut streams = JoinSet::new();
        for number in 0..STREAMS {
            let connection = arriving.on_another_connection();
            streams.spawn(async move {
                let mut waiting = wait(&connection, MIB).expect("room");
                yield_now().await;
                // Others come meanwhile, and may be faster.
                let _ = waiting.try_grow(number % 3);
                poll_fn(|context| waiting.poll_evicted(context)).await;
            });
        }
        // There is room for sixteen, and no more than as many came last.
        for _ in 16..STREAMS {
            let ended = timeout(Duration::from_secs(30), streams.join_next()).await;
            ended.expect("the next to give way").expect("one").unwrap();
        }
        streams.shutdown().await;
        assert!(arriving.queue.lock().waiting.is_empty());
        assert_eq!((process.held(), arriving.incomplete.held()), (0, 0));
    }
}
