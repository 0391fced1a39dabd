//! What a request takes up in this process until its answer was handed on: the
//! right to have its calls in flight, and bytes.
//!
//! It goes with the outcomes: with the answer of a unary RPC as a whole, with each
//! message of a stream in part. The edge gives it back when the transport has sent
//! the last byte of what it belongs to, or has dropped it.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::{admission::Permit, buffered::Held};

/// What a call takes up by itself: its state, and an outcome that is no larger.
/// Larger observations are held in addition, while they are there.
pub const CALL_BYTES: usize = 2048;

/// What a request takes up besides: its stream, its task, its headers.
pub const REQUEST_BYTES: usize = 8192;

/// What some calls of a request take up.
#[derive(Debug)]
pub struct Reservation {
    permit: Permit,
    held: Held,
}

impl Reservation {
    /// That of the calls of `permit`, which hold `held`.
    pub fn new(permit: Permit, held: Held) -> Self {
        Self { permit, held }
    }

    /// Splits off the part of one call.
    pub fn split_one(&mut self) -> Self {
        Self {
            permit: self.permit.split_one(),
            held: self.held.split(CALL_BYTES),
        }
    }

    /// Gives back the bytes that it holds beyond `bytes`.
    pub fn shrink_to(&mut self, bytes: usize) {
        self.held.shrink(self.held.bytes().saturating_sub(bytes));
    }

    /// Adds `other`.
    pub fn join(&mut self, other: Self) {
        self.permit.join(other.permit);
        self.held.join(other.held);
    }

    /// The bytes that it holds.
    pub fn bytes(&self) -> usize {
        self.held.bytes()
    }
}

/// Arguments of this size are sent as they came in; smaller ones are copied, and count as
/// part of their call.
pub(crate) const UNCOPIED_BYTES: usize = 4096;

/// A request that is complete, until the outcome of its calls is known: what it holds,
/// and a share of what tells its connection that something runs. Clones share it.
#[derive(Clone, Debug)]
pub struct InProgress {
    held: Arc<Held>,
    _running: Arc<()>,
}

/// A slice of a request.
struct Slice {
    bytes: Bytes,
    _request: Arc<Held>,
}

impl AsRef<[u8]> for Slice {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl InProgress {
    /// That holds `held` and `running`.
    pub fn new(held: Held, running: Arc<()>) -> Self {
        Self {
            held: Arc::new(held),
            _running: running,
        }
    }

    /// The same bytes, a slice of the request, which is held until all their clones are
    /// gone: h2 may have one of a call that has ended, until its stream is reset.
    pub(crate) fn keep(&self, bytes: Bytes) -> Bytes {
        Bytes::from_owner(Slice {
            bytes,
            _request: Arc::clone(&self.held),
        })
    }
}

/// The reservation of what was put into an answer and is still to be handed on. The edge
/// sends one along with each request; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Undelivered(Arc<Mutex<Option<Reservation>>>);

impl Undelivered {
    /// Adds `reservation`.
    pub fn add(&self, reservation: Reservation) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *all {
            Some(all) => all.join(reservation),
            none => *none = Some(reservation),
        }
    }

    /// What was added since the last call.
    pub fn take(&self) -> Option<Reservation> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
