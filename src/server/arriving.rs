//! The memory for requests that are not complete: out of the budget of the process,
//! of which they get a share only, and each connection a share of that. So whoever
//! sends what never becomes complete can't keep out requests that are, nor, with one
//! connection, those of others.

use http::HeaderMap;

use crate::buffered::{Buffered, Held};

/// What a stream takes that waits for its request, in h2, hyper and here, beside its
/// headers and what has come of it.
const STREAM_BYTES: usize = 4 << 10;
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
        Some(Waiting {
            process: self.process.try_hold(bytes)?,
            incomplete: self.incomplete.try_hold(bytes)?,
            connection: self.connection.try_hold(bytes)?,
        })
    }
}

/// What a stream holds that waits for its request.
#[derive(Debug)]
pub(super) struct Waiting {
    process: Held,
    incomplete: Held,
    connection: Held,
}

impl Waiting {
    /// Holds so many bytes more. If they do not fit, the request is to be given up.
    #[must_use]
    pub(super) fn try_grow(&mut self, bytes: usize) -> bool {
        self.process.try_grow(bytes)
            && self.incomplete.try_grow(bytes)
            && self.connection.try_grow(bytes)
    }

    /// What the complete request of so many bytes holds.
    pub(super) fn complete(self, bytes: usize) -> Option<Held> {
        let mut held = self.process;
        if bytes <= held.bytes() {
            held.shrink(held.bytes() - bytes);
            return Some(held);
        }
        held.try_grow(bytes - held.bytes()).then_some(held)
    }
}

#[cfg(test)]
mod tests {
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
        let another = arriving.on_another_connection();
        assert!(wait(&another, MIB).is_none());
        assert_eq!(process.held(), 128 * MIB, "nothing is held by refusals");
        assert!(another.try_hold_complete(128 * MIB).is_some());

        connections.pop();
        assert!(wait(&another, MIB).is_some());
        drop(connections);
        assert_eq!(process.held(), 0);
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
}
