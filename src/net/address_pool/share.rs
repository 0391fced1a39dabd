//! What one worker has at an address: the connections that it drives, and its dials.

use tokio::time::Instant;

use crate::net::connection::Connection;

/// How many sweeps there are in `connection_idle_timeout`.
pub(in crate::net) const SWEEPS: u32 = 4;

#[derive(Default)]
pub(super) struct Share {
    pub(super) connections: Vec<Kept>,
    /// Dials under way, and how many of them are not slow yet.
    pub(super) dialing: usize,
    pub(super) fresh: usize,
    /// By when they have ended, unless the worker is stuck.
    pub(super) ending_by: Option<Instant>,
}

/// A connection, and for how many sweeps it has been idle.
pub(super) struct Kept {
    pub(super) connection: Connection,
    begun: usize,
    quiet: u32,
    pub(super) since: Instant,
}

impl Kept {
    pub(super) fn new(connection: Connection, now: Instant) -> Self {
        Self {
            begun: connection.begun(),
            connection,
            quiet: 0,
            since: now,
        }
    }
}

impl Share {
    /// Its connections, those being made included.
    pub(super) fn places(&self) -> usize {
        self.connections.len() + self.dialing
    }

    /// The same, as another worker sees it: it may be stuck.
    pub(super) fn places_at(&self, now: Instant) -> usize {
        self.connections.len() + self.dials_at(now)
    }

    /// Dials, without those that should have ended.
    pub(super) fn dials_at(&self, now: Instant) -> usize {
        let are_on_time = self.ending_by.is_some_and(|by| now < by);
        if are_on_time { self.dialing } else { 0 }
    }

    /// Takes note of a dial that ends by then.
    pub(super) fn begin_dial(&mut self, ends_by: Instant) {
        self.dialing += 1;
        self.fresh += 1;
        self.ending_by = self.ending_by.max(Some(ends_by));
    }

    /// Takes note of the end of a dial. `was_fresh`: it was not slow.
    pub(super) fn end_dial(&mut self, was_fresh: bool) {
        self.dialing -= 1;
        self.fresh -= usize::from(was_fresh);
    }

    /// Removes a connection.
    pub(super) fn remove(&mut self, connection: &Connection) -> Option<Kept> {
        let is_it = |kept: &Kept| kept.connection.is(connection);
        let index = self.connections.iter().position(is_it)?;
        Some(self.connections.remove(index))
    }

    /// Removes connections that have been idle for [`SWEEPS`] sweeps.
    pub(super) fn sweep(&mut self) {
        for kept in &mut self.connections {
            let begun = kept.connection.begun();
            let idle = kept.connection.load().calls == 0 && kept.begun == begun;
            kept.quiet = if idle { kept.quiet + 1 } else { 0 };
            kept.begun = begun;
        }
        self.connections.retain(|kept| kept.quiet < SWEEPS);
    }
}
