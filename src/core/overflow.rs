//! Counts how often a bound was reached where no answer can say so, since it is about a
//! connection and not about a request. Whoever reaches one also logs it. Requests and calls
//! that are turned away at a bound are counted elsewhere, with the other rejections.

use std::sync::atomic::{AtomicU64, Ordering};

/// Such a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Overflow {
    /// A new connection of a caller was closed.
    Connections,
    /// A connection could not be accepted for want of a file descriptor.
    FileDescriptors,
    /// A connection to the operators' page was closed in favour of a new one.
    AdminConnections,
    /// The rest of a refused request was not read: its stream was reset.
    UnreadBodies,
    /// A host name had more addresses than are used.
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

/// How often each was reached since the process started.
pub(crate) fn counts() -> [(&'static str, u64); BOUNDS.len()] {
    BOUNDS.map(|(bound, name)| (name, COUNTS[bound as usize].load(Ordering::Relaxed)))
}
