//! What an upstream has at one address: its health, and for each worker the connections
//! and dials of its own (`address_pool/share.rs`).
//!
//! A connection is driven by the worker that dialed it, and the calls of that worker take
//! it first: sending, driving and answering then stay on one thread. Another worker
//! borrows it rather than wait.

mod share;

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

pub(super) use self::share::SWEEPS;
use self::share::{Kept, Share};
use super::{
    address::Address,
    connect_backoff::ConnectBackoff,
    connection::Connection,
    eject::{Health, Rules},
    pool,
};
use crate::core::worker;

/// A connection that ends this soon without having carried a call counts as a failed dial.
const NEW: Duration = Duration::from_secs(1);

pub(super) struct AddressPool {
    pub(super) address: Arc<Address>,
    /// By worker. Those beyond the last one have nothing here.
    shares: Vec<Share>,
    pub(super) connect_backoff: ConnectBackoff,
    pub(super) health: Health,
    /// Why the last dial failed; `None` once one succeeds.
    pub(super) last_error: Option<Arc<str>>,
    /// How many streams the peer allowed on the last connection.
    limit: usize,
}

/// Whose connections, seen from a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    Own,
    Others,
}

impl AddressPool {
    pub(super) fn new(address: Arc<Address>) -> Self {
        Self {
            address,
            shares: Vec::new(),
            connect_backoff: ConnectBackoff::default(),
            health: Health::default(),
            last_error: None,
            limit: usize::MAX,
        }
    }

    fn share(&mut self, worker: usize) -> &mut Share {
        if self.shares.len() <= worker {
            self.shares.resize_with(worker + 1, Share::default);
        }
        &mut self.shares[worker]
    }

    fn all(&self) -> impl Iterator<Item = &Connection> {
        let kept = self.shares.iter().flat_map(|share| &share.connections);
        kept.map(|kept| &kept.connection)
    }

    pub(super) fn of(
        &self,
        worker: usize,
        whose: Whose,
    ) -> impl Iterator<Item = &Connection> + Clone {
        let (before, rest) = self.shares.split_at(worker.min(self.shares.len()));
        let (own, after) = rest.split_at(rest.len().min(1));
        let (some, more) = match whose {
            Whose::Own => (own, [].as_slice()),
            Whose::Others => (before, after),
        };
        let kept = some.iter().chain(more).flat_map(|share| &share.connections);
        kept.map(|kept| &kept.connection)
    }

    /// Open connections.
    pub(super) fn connections(&self) -> usize {
        self.all().filter(|it| it.load().is_open).count()
    }

    pub(super) fn has_connections(&self) -> bool {
        self.kept() > 0
    }

    /// Connections, those included of which it is not known yet that they have closed.
    pub(super) fn kept(&self) -> usize {
        self.shares.iter().map(|it| it.connections.len()).sum()
    }

    /// Whether the worker has an open connection of its own.
    pub(super) fn is_connected(&self, worker: usize) -> bool {
        self.of(worker, Whose::Own).any(|it| it.load().is_open)
    }

    /// Dials of all workers.
    pub(super) fn all_dials(&self) -> usize {
        self.shares.iter().map(|share| share.dialing).sum()
    }

    /// Whether any worker dials it, unless it is stuck.
    pub(super) fn is_dialed(&self, now: Instant) -> bool {
        self.shares.iter().any(|share| share.dials_at(now) > 0)
    }

    /// Dials of the worker.
    pub(super) fn dials(&self, worker: usize) -> usize {
        self.shares.get(worker).map_or(0, |share| share.dialing)
    }

    /// Those of them that are not slow yet.
    pub(super) fn fresh_dials(&self, worker: usize) -> usize {
        self.shares.get(worker).map_or(0, |share| share.fresh)
    }

    /// Whether a call should wait for a dial of its worker: there is one, and none is slow.
    /// Those of others may be stuck with them.
    pub(super) fn is_promising(&self, worker: usize) -> bool {
        let fresh = self.fresh_dials(worker);
        fresh > 0 && fresh == self.dials(worker)
    }

    /// Whether a peer was pinged and has not answered yet.
    pub(super) fn has_suspects(&self) -> bool {
        self.all().any(is_suspect)
    }

    /// The same, as the worker sees it. A worker that is stuck hears of no answer: its
    /// connections say nothing to one that has its own.
    pub(super) fn is_suspect(&self, worker: usize) -> bool {
        let mut own = self.of(worker, Whose::Own).peekable();
        match own.peek() {
            Some(_) => own.any(is_suspect),
            None => self.of(worker, Whose::Others).any(is_suspect),
        }
    }

    /// A connection with less than `bound` calls; one with an unanswered ping only if
    /// `suspects`.
    pub(super) fn with_room(
        &self,
        (worker, whose): (usize, Whose),
        bound: usize,
        suspects: bool,
    ) -> Option<&Connection> {
        let mut those = self.of(worker, whose);
        let loads = those.clone().map(Connection::load);
        those.nth(pool::with_room(loads, bound, suspects)?)
    }

    /// A connection that may take a call although all have `bound`.
    pub(super) fn beyond_bound(
        &self,
        (worker, whose): (usize, Whose),
        bound: usize,
        others_coming: bool,
        suspects: bool,
    ) -> Option<&Connection> {
        let mut those = self.of(worker, whose);
        let loads = those.clone().map(Connection::load);
        those.nth(pool::beyond_bound(loads, bound, others_coming, suspects)?)
    }

    /// The connection on which a call waits least for a stream.
    pub(super) fn shortest_queue(&self) -> Option<(usize, &Connection)> {
        let index = pool::shortest_queue(self.all().map(Connection::load))?;
        let connection = self.all().nth(index)?;
        Some((connection.load().calls, connection))
    }

    /// Whether the worker that runs this may have one more connection. Each worker's first
    /// one is reserved for it, as long as `max_connections` suffice for that.
    pub(super) fn may_grow(&self, worker: usize, max_connections: usize, now: Instant) -> bool {
        let own = self.shares.get(worker).map_or(0, Share::places);
        let others = self.shares.iter().enumerate().filter(|(i, _)| *i != worker);
        let others = others.map(|(_, share)| share.places_at(now));
        let (having, taken) = others.fold((0, 0), |(having, taken), places| {
            (having + usize::from(places > 0), taken + places)
        });
        let reserved = worker::count().saturating_sub(1 + having);
        pool::may_grow(own, taken, reserved, max_connections)
    }

    /// Whether to dial for one more call while `waiting` calls of the worker wait and it
    /// makes `coming` connections: it has none here, or more demand than those will take;
    /// the limit is not reached; and the backoff allows it.
    pub(super) fn wants_connection(
        &self,
        worker: usize,
        (waiting, coming): (usize, usize),
        (bound, max_connections): (usize, usize),
        now: Instant,
    ) -> bool {
        let loads = || self.of(worker, Whose::Own).map(Connection::load);
        let limits = loads().filter(|load| load.is_open);
        let limit = limits.map(|load| load.limit).max();
        let per_connection = bound.min(limit.unwrap_or(self.limit));
        let excess = waiting + pool::excess(loads(), per_connection);
        let has_none = self.shares.get(worker).is_none_or(|it| it.places() == 0);
        (has_none || pool::needs_another(excess, coming, per_connection))
            && self.connect_backoff.allows(now)
            && self.may_grow(worker, max_connections, now)
    }

    /// Takes note of a dial of the worker, which ends by then.
    pub(super) fn begin_dial(&mut self, worker: usize, ends_by: Instant) {
        self.share(worker).begin_dial(ends_by);
    }

    /// Takes note that a dial of the worker is slow.
    pub(super) fn dial_is_slow(&mut self, worker: usize) {
        self.share(worker).fresh -= 1;
    }

    /// Takes note of the end of a dial of the worker. `was_fresh`: it was not slow.
    pub(super) fn end_dial(&mut self, worker: usize, was_fresh: bool) {
        self.share(worker).end_dial(was_fresh);
    }

    /// Takes in the result of a dial of the worker.
    pub(super) fn dialed(
        &mut self,
        worker: usize,
        result: Result<Connection, Arc<str>>,
        now: Instant,
        rules: &Rules,
        may_eject: bool,
    ) {
        match result {
            Ok(connection) => {
                self.connect_backoff.succeeded(now);
                self.limit = connection.load().limit;
                if self.limit == 0 {
                    // It takes no calls, and neither would the next one.
                    self.connect_backoff.failed(now, fastrand::f64());
                }
                let kept = Kept::new(connection, now);
                self.share(worker).connections.push(kept);
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
        self.all().for_each(Connection::suspect);
    }

    /// Removes a connection that takes no more calls; those on it continue. Returns whether
    /// it counts as a failed dial: it is new and never carried a call.
    pub(super) fn retire(&mut self, connection: &Connection, now: Instant) -> bool {
        let mut shares = self.shares.iter_mut();
        let Some(kept) = shares.find_map(|share| share.remove(connection)) else {
            return false;
        };
        let is_failure = now < kept.since + NEW && connection.begun() <= 1;
        if is_failure {
            self.closed_when_new(now);
        }
        is_failure
    }

    /// Removes connections that have closed. Returns whether any counts as a failed dial.
    pub(super) fn prune(&mut self, now: Instant) -> bool {
        let mut is_failure = false;
        for share in &mut self.shares {
            share.connections.retain(|kept| {
                let is_open = kept.connection.load().is_open;
                if kept.connection.is_worn() {
                    self.connect_backoff.worn(now);
                }
                is_failure |= !is_open && now < kept.since + NEW && kept.connection.begun() == 0;
                is_open
            });
        }
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
        self.shares.iter_mut().for_each(Share::sweep);
    }
}

fn is_suspect(connection: &Connection) -> bool {
    let load = connection.load();
    load.is_suspect && load.is_open
}

/// The time between two sweeps if idle connections are closed after `idle`.
pub(super) fn sweep_interval(idle: Duration) -> Duration {
    (idle / SWEEPS).max(Duration::from_millis(1))
}

#[cfg(test)]
mod tests;
