//! How often a bound was met where nobody gets an answer that could say so: a
//! connection, not a request. Whoever meets one logs it as well. Bounds at which a
//! request or a call is turned away are counted with those.

use std::sync::atomic::{AtomicU64, Ordering};

/// Such a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Overflow {
    /// A new connection of a caller was closed.
    Connections,
    /// A connection could not be accepted for want of a file descriptor.
    FileDescriptors,
    /// A connection to the operators' page gave way to a new one.
    AdminConnections,
    /// What is left of a refused request was not read: its stream is reset.
    UnreadBodies,
    /// Some addresses of a name are left out.
    ResolvedAddresses,
}

/// All of them, with their names: of the setting, if there is one.
const BOUNDS: [(Overflow, &str); 5] = [
    (Overflow::Connections, "server.max_connections"),
    (Overflow::FileDescriptors, "file_descriptors"),
    (Overflow::AdminConnections, "admin_connections"),
    (Overflow::UnreadBodies, "unread_bodies"),
    (Overflow::ResolvedAddresses, "resolved_addresses"),
];

static COUNTS: [AtomicU64; BOUNDS.len()] = [const { AtomicU64::new(0) }; BOUNDS.len()];

impl Overflow {
    /// Counts one more.
    pub(crate) fn count(self) {
        COUNTS[self as usize].fetch_add(1, Ordering::Relaxed);
    }
}

/// How often each was met in the life of this process.
pub(crate) fn counts() -> [(&'static str, u64); BOUNDS.len()] {
    BOUNDS.map(|(bound, name)| (name, COUNTS[bound as usize].load(Ordering::Relaxed)))
}
