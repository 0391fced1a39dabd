//! What an upstream has at one address: open connections, dials under way, and its
//! health.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    address::Address,
    connect_backoff::ConnectBackoff,
    connection::{Connection, Leaving},
    eject::{Health, Rules},
    pool::{self, Load},
};

/// How many sweeps there are in `connection_idle_timeout`.
pub(super) const SWEEPS: u32 = 4;
/// A connection that ends this soon without having carried a call counts as a failed dial.
const NEW: Duration = Duration::from_secs(1);

pub(super) struct AddressPool {
    pub(super) address: Arc<Address>,
    connections: Vec<Kept>,
    /// Connections that take no new calls but still carry some.
    leaving: Vec<Leaving>,
    /// Dials under way, and how many of them are not slow yet.
    pub(super) dialing: usize,
    pub(super) fresh: usize,
    pub(super) connect_backoff: ConnectBackoff,
    pub(super) health: Health,
    /// Why the last dial failed; `None` once one succeeds.
    pub(super) last_error: Option<Arc<str>>,
    /// How many streams the peer allowed on the last connection.
    limit: usize,
}

/// A connection, and for how many sweeps it has been idle.
struct Kept {
    connection: Connection,
    begun: usize,
    quiet: u32,
    since: Instant,
}

impl AddressPool {
    pub(super) fn new(address: Arc<Address>) -> Self {
        Self {
            address,
            connections: Vec::new(),
            leaving: Vec::new(),
            dialing: 0,
            fresh: 0,
            connect_backoff: ConnectBackoff::default(),
            health: Health::default(),
            last_error: None,
            limit: usize::MAX,
        }
    }

    fn loads(&self) -> impl Iterator<Item = Load> {
        self.connections.iter().map(|kept| kept.connection.load())
    }

    /// Calls in flight.
    pub(super) fn calls(&self) -> usize {
        let leaving = self.leaving.iter().map(Leaving::calls);
        self.loads().map(|load| load.calls).chain(leaving).sum()
    }

    /// Open connections.
    pub(super) fn connections(&self) -> usize {
        self.loads().filter(|load| load.is_open).count()
    }

    pub(super) fn has_connections(&self) -> bool {
        !self.connections.is_empty()
    }

    /// Whether a call should wait for a dial: there is one, and none is slow.
    pub(super) fn is_promising(&self) -> bool {
        self.fresh > 0 && self.fresh == self.dialing
    }

    /// Whether a peer was pinged and has not answered yet.
    pub(super) fn is_suspect(&self) -> bool {
        self.loads().any(|load| load.is_suspect && load.is_open)
    }

    /// A connection with less than `bound` calls; one with an unanswered ping only if
    /// `suspects`.
    pub(super) fn with_room(&self, bound: usize, suspects: bool) -> Option<&Connection> {
        let index = pool::with_room(self.loads(), bound, suspects)?;
        Some(&self.connections[index].connection)
    }

    /// A connection that may take a call although all have `bound`.
    pub(super) fn beyond_bound(
        &self,
        bound: usize,
        others_coming: bool,
        suspects: bool,
    ) -> Option<&Connection> {
        let index = pool::beyond_bound(self.loads(), bound, others_coming, suspects)?;
        Some(&self.connections[index].connection)
    }

    /// The connection on which a call waits least for a stream.
    pub(super) fn shortest_queue(&self) -> Option<(usize, &Connection)> {
        let connection = &self.connections[pool::shortest_queue(self.loads())?].connection;
        Some((connection.load().calls, connection))
    }

    /// Whether to dial for one more call while `waiting` calls wait and `coming`
    /// connections are being made elsewhere: there is no connection here, or more demand
    /// than those will take; the limit is not reached; and the backoff allows it.
    pub(super) fn wants_connection(
        &self,
        (waiting, coming): (usize, usize),
        (bound, max_connections): (usize, usize),
        now: Instant,
    ) -> bool {
        let limits = self.loads().filter(|load| load.is_open);
        let limit = limits.map(|load| load.limit).max();
        let per_connection = bound.min(limit.unwrap_or(self.limit));
        let excess = waiting + pool::excess(self.loads(), per_connection);
        let connections = self.connections.len() + self.dialing;
        (connections == 0
            || (connections < max_connections
                && pool::needs_another(excess, coming, per_connection)))
            && self.connect_backoff.allows(now)
    }

    /// Takes in the result of a dial. `was_fresh`: it was not slow.
    pub(super) fn dialed(
        &mut self,
        result: Result<Connection, Arc<str>>,
        was_fresh: bool,
        now: Instant,
        rules: &Rules,
        may_eject: bool,
    ) {
        self.dialing -= 1;
        self.fresh -= usize::from(was_fresh);
        match result {
            Ok(connection) => {
                self.connect_backoff.succeeded(now);
                self.limit = connection.load().limit;
                if self.limit == 0 {
                    // It takes no calls, and neither would the next one.
                    self.connect_backoff.failed(now, fastrand::f64());
                }
                self.connections.push(Kept {
                    begun: connection.begun(),
                    connection,
                    quiet: 0,
                    since: now,
                });
                self.health.connected(now);
                self.last_error = None;
            }
            Err(reason) => {
                self.connect_backoff.failed(now, fastrand::f64());
                self.last_error = Some(reason);
                self.failed(now, rules, may_eject);
            }
        }
    }

    /// Takes note of a failed dial or call.
    pub(super) fn failed(&mut self, now: Instant, rules: &Rules, may_eject: bool) {
        if self.health.failed(now, rules, may_eject) {
            tracing::warn!(address = %self.address, "ejected: it keeps failing");
        }
        self.address.suspect(true);
    }

    /// Takes note of an answered call.
    pub(super) fn succeeded(&mut self) {
        if self.health.is_ejected() {
            tracing::info!(address = %self.address, "no longer ejected");
        }
        self.health.succeeded();
        self.address.suspect(false);
    }

    /// Takes note of a peer that stopped answering, for that reason.
    pub(super) fn fell_silent(
        &mut self,
        reason: Arc<str>,
        now: Instant,
        rules: &Rules,
        may_eject: bool,
    ) {
        if self.health.fell_silent(now, rules, may_eject) {
            tracing::warn!(address = %self.address, %reason, "ejected");
        }
        self.address.suspect(true);
        self.last_error = Some(reason);
        self.connect_backoff.failed(now, fastrand::f64());
        // It may not answer on its other connections either.
        for kept in &self.connections {
            kept.connection.suspect();
        }
    }

    /// Removes a connection that takes no more calls; those on it continue. Returns whether
    /// it counts as a failed dial: it is new and never carried a call.
    pub(super) fn retire(&mut self, connection: &Connection, now: Instant) -> bool {
        let is_it = |kept: &Kept| kept.connection.is(connection);
        let Some(index) = self.connections.iter().position(is_it) else {
            return false;
        };
        let kept = self.connections.remove(index);
        self.leaving.extend(kept.connection.leaving());
        let is_failure = now < kept.since + NEW && connection.begun() <= 1;
        if is_failure {
            self.closed_when_new(now);
        }
        is_failure
    }

    /// Removes connections that have closed. Returns whether any counts as a failed dial.
    pub(super) fn prune(&mut self, now: Instant) -> bool {
        let mut is_failure = false;
        self.leaving.retain(|leaving| leaving.calls() > 0);
        self.connections.retain(|kept| {
            let is_open = kept.connection.load().is_open;
            if kept.connection.is_worn() {
                self.connect_backoff.worn(now);
            }
            if !is_open {
                self.leaving.extend(kept.connection.leaving());
            }
            is_failure |= !is_open && now < kept.since + NEW && kept.connection.begun() == 0;
            is_open
        });
        if is_failure {
            self.closed_when_new(now);
        }
        is_failure
    }

    fn closed_when_new(&mut self, now: Instant) {
        self.connect_backoff.failed(now, fastrand::f64());
        self.last_error = Some("it closes new connections".into());
    }

    /// Removes connections that have closed or have been idle for [`SWEEPS`] sweeps.
    pub(super) fn sweep(&mut self, now: Instant) {
        self.prune(now);
        for kept in &mut self.connections {
            let begun = kept.connection.begun();
            let idle = kept.connection.load().calls == 0 && kept.begun == begun;
            kept.quiet = if idle { kept.quiet + 1 } else { 0 };
            kept.begun = begun;
        }
        self.connections.retain(|kept| kept.quiet < SWEEPS);
    }
}

/// The time between two sweeps if idle connections are closed after `idle`.
pub(super) fn sweep_interval(idle: Duration) -> Duration {
    (idle / SWEEPS).max(Duration::from_millis(1))
}

#[cfg(test)]
mod tests;
