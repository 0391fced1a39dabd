//! The permits and the memory that a request holds until its response is sent.
//!
//! They follow the outcomes: all of them the response of a unary RPC, a part of them each
//! message of a stream. The edge releases them when the transport has sent the last byte
//! of the response or message, or has dropped it.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::{admission::Permit, buffered::Held};

/// The memory of a call: its state, and a small outcome. Larger observations are held in
/// addition.
pub const CALL_BYTES: usize = 2048;

/// The memory of a request without its calls: its stream, its task, its headers.
pub const REQUEST_BYTES: usize = 8192;

/// What some calls of a request hold.
#[derive(Debug)]
pub struct Reservation {
    permit: Permit,
    held: Held,
}

impl Reservation {
    /// The reservation of the calls of `permit`, whose memory is `held`.
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

    /// Releases the memory over `bytes`.
    pub fn shrink_to(&mut self, bytes: usize) {
        self.held.shrink(self.held.bytes().saturating_sub(bytes));
    }

    /// Adds `other`.
    pub fn join(&mut self, other: Self) {
        self.permit.join(other.permit);
        self.held.join(other.held);
    }

    /// The memory in bytes.
    pub fn bytes(&self) -> usize {
        self.held.bytes()
    }
}

/// Arguments of at least this size are slices of the request; smaller ones are copied,
/// and count as part of their call.
pub(crate) const UNCOPIED_BYTES: usize = 4096;

/// A complete request until the outcome of its calls is known: its memory, and its
/// connection's marker that something runs. Clones share it.
#[derive(Clone, Debug)]
pub struct RunningRequest {
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

impl RunningRequest {
    /// A request with the memory `held` on a connection with the marker `running`.
    pub fn new(held: Held, running: Arc<()>) -> Self {
        Self {
            held: Arc::new(held),
            _running: running,
        }
    }

    /// Keeps the request's memory held until all clones of `bytes`, a slice of it, are
    /// dropped: h2 may have one of an ended call until its stream is reset.
    pub(crate) fn keep(&self, bytes: Bytes) -> Bytes {
        Bytes::from_owner(Slice {
            bytes,
            _request: Arc::clone(&self.held),
        })
    }
}

/// The reservation of results that are in the response but not sent yet. The edge passes
/// one with each request; clones share it.
#[derive(Clone, Debug, Default)]
pub struct UnsentReservation(Arc<Mutex<Option<Reservation>>>);

impl UnsentReservation {
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
