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

use crate::core::buffered::{Buffered, Held};

/// What a stream takes that waits for its request, in h2, hyper and here, beside its
/// headers and what has come of it: twice of what was measured (`deploy/sizing.md`), as
/// allocators do not give all back.
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
struct Reservation {
    number: u64,
    evicted: oneshot::Receiver<()>,
    queue: Arc<Queue>,
}

impl Drop for Reservation {
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
            place: Reservation {
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
    place: Reservation,
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
mod tests;
