//! The memory of requests that are still being received. They get a share of the
//! process's budget, and each connection a share of that, so that requests that never
//! become complete can't keep out those that do. When the share is used up, the oldest
//! incomplete requests are evicted: an honest one is complete within milliseconds.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use futures_util::FutureExt as _;
use http::HeaderMap;
use tokio::sync::oneshot;

use crate::core::buffered::{Buffered, Held};

/// The memory of a stream whose request is incomplete, in h2, hyper and here, without
/// its headers and its data: twice the measured value (`deploy/sizing.md`), since
/// allocators return less than is freed.
const STREAM_BYTES: usize = 12 << 10;
/// The memory of a header field, without its name and value.
const FIELD_BYTES: usize = 128;
/// A connection's share has room for at least this many requests of maximum size.
const MIN_REQUESTS: usize = 2;

/// The budgets that the requests of one connection count against.
#[derive(Clone, Debug)]
pub(super) struct ReceiveBudget {
    process: Buffered,
    /// All incomplete requests of the process.
    incomplete: Buffered,
    /// The incomplete requests of this connection.
    connection: Buffered,
    queue: Arc<Queue>,
}

/// The incomplete requests of all connections, by age.
#[derive(Debug, Default)]
struct Queue(Mutex<Entries>);

#[derive(Debug, Default)]
struct Entries {
    next: u64,
    by_number: BTreeMap<u64, Entry>,
}

/// What an incomplete request holds. Eviction drops it at once; the memory itself is
/// freed as soon as the stream's task runs.
#[derive(Debug)]
struct Entry {
    process: Held,
    incomplete: Held,
    /// Signals the eviction when dropped.
    _evict: oneshot::Sender<()>,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    /// Evicts the oldest entries until `incomplete` has room for `bytes`; but never
    /// `except` or newer ones, and none if `bytes` can never fit.
    fn make_room(&mut self, bytes: usize, except: u64, incomplete: &Buffered) {
        while bytes <= incomplete.max()
            && bytes > incomplete.max() - incomplete.held().min(incomplete.max())
            && let Some(oldest) = self
                .by_number
                .first_entry()
                .filter(|oldest| *oldest.key() != except)
        {
            oldest.remove();
        }
    }
}

/// The queue's entry of a request, removed on drop.
#[derive(Debug)]
struct QueueGuard {
    number: u64,
    evicted: oneshot::Receiver<()>,
    queue: Arc<Queue>,
}

impl Drop for QueueGuard {
    fn drop(&mut self) {
        self.queue.lock().by_number.remove(&self.number);
    }
}

impl ReceiveBudget {
    /// Half of `process`, for requests of up to `max_request_bytes`.
    pub(super) fn new(process: Buffered, max_request_bytes: usize) -> Self {
        let incomplete = Buffered::new(process.max() / 2);
        let share = incomplete.max() / 8;
        let min = MIN_REQUESTS * (max_request_bytes + STREAM_BYTES);
        Self {
            connection: Buffered::new(share.max(min).min(incomplete.max())),
            incomplete,
            process,
            queue: Arc::default(),
        }
    }

    /// The budgets of a new connection.
    pub(super) fn for_connection(&self) -> Self {
        Self {
            connection: Buffered::new(self.connection.max()),
            ..self.clone()
        }
    }

    /// Holds a request that arrived complete.
    pub(super) fn try_hold_complete(&self, bytes: usize) -> Option<Held> {
        self.process.try_hold(bytes)
    }

    /// Holds an incomplete request: its stream, its headers, and the `bytes` of its body
    /// that have arrived.
    pub(super) fn try_hold_incomplete(
        &self,
        bytes: usize,
        headers: &HeaderMap,
    ) -> Option<IncompleteHold> {
        let fields = headers.iter();
        let headers: usize = fields
            .map(|(name, value)| name.as_str().len() + value.len() + FIELD_BYTES)
            .sum();
        let bytes = STREAM_BYTES + headers + bytes;
        let process = self.process.try_hold(bytes)?;
        let connection = self.connection.try_hold(bytes)?;
        let (evict, evicted) = oneshot::channel();
        let mut entries = self.queue.lock();
        let number = entries.next;
        entries.make_room(bytes, number, &self.incomplete);
        let entry = Entry {
            process,
            incomplete: self.incomplete.try_hold(bytes)?,
            _evict: evict,
        };
        entries.next += 1;
        entries.by_number.insert(number, entry);
        drop(entries);
        Some(IncompleteHold {
            connection,
            budget: self.incomplete.clone(),
            entry: QueueGuard {
                number,
                evicted,
                queue: Arc::clone(&self.queue),
            },
        })
    }
}

/// The memory held for an incomplete request, unless it is evicted.
#[derive(Debug)]
pub(super) struct IncompleteHold {
    connection: Held,
    budget: Buffered,
    entry: QueueGuard,
}

impl IncompleteHold {
    /// Holds `bytes` more. If they do not fit, the request has to be refused.
    #[must_use]
    pub(super) fn try_grow(&mut self, bytes: usize) -> bool {
        if bytes == 0 {
            return true;
        }
        let number = self.entry.number;
        let mut entries = self.entry.queue.lock();
        entries.make_room(bytes, number, &self.budget);
        entries.by_number.get_mut(&number).is_some_and(|entry| {
            entry.process.try_grow(bytes)
                && entry.incomplete.try_grow(bytes)
                && self.connection.try_grow(bytes)
        })
    }

    /// Ready once the request is evicted.
    pub(super) fn poll_evicted(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.entry.evicted.poll_unpin(context).map(drop)
    }

    /// Turns into the hold of the complete request, which has `bytes`.
    pub(super) fn complete(self, bytes: usize) -> Option<Held> {
        let mut held = {
            let mut entries = self.entry.queue.lock();
            entries.by_number.remove(&self.entry.number)?.process
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
