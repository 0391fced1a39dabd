//! What an upstream knows of its addresses, all behind one lock: which of them gets the
//! next call, or why none can.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use tokio::{runtime::Handle, time::Instant};

use super::names::Names;
use crate::net::{
    address::Address,
    address_pool::{AddressPool, Whose},
    balance,
    connection::{Call, Connection},
    eject::Rules,
};

pub(super) struct State {
    pub(super) pools: Vec<AddressPool>,
    /// Whether any pool is ejected, failing or suspect. While none is, a call skips the
    /// checks.
    pub(super) cautious: bool,
    /// How many dials and look-ups have failed, modulo 2^32.
    pub(super) connect_epoch: u32,
    pub(super) names: Names,
    /// Whether the maintenance task is running.
    pub(super) kept: bool,
    /// Those that have called it.
    pub(super) workers: BTreeMap<usize, Worker>,
    /// How often one of them was asked to dial without a call.
    pub(super) retries: usize,
}

/// What it knows of a worker.
pub(super) struct Worker {
    /// Calls of the worker that wait for a connection.
    pub(super) waiting: usize,
    /// Where it dials, and drives what it has dialed.
    pub(super) runtime: Handle,
}

impl State {
    /// The address for the next call of a worker; it may have no connection yet.
    pub(super) fn draw(&self, worker: usize, avoid: Option<SocketAddr>) -> Option<usize> {
        if self.pools.len() == 1 {
            return Some(0);
        }
        let members = self.drawable(worker, avoid);
        let loads = members.map(|(index, pool)| (index, pool.address.calls()));
        balance::less_loaded_of_two(loads, fastrand::u64(..))
    }

    /// Those that may be drawn.
    pub(super) fn drawable(
        &self,
        worker: usize,
        avoid: Option<SocketAddr>,
    ) -> impl Iterator<Item = (usize, &AddressPool)> + Clone {
        let now = self.cautious.then(Instant::now);
        let worth_it = move |pool: &AddressPool| {
            let well = now.is_none_or(|now| {
                pool.health.admits(now)
                    && (pool.has_connections() || pool.connect_backoff.allows(now))
                    && !pool.is_suspect(worker)
            });
            // An address that is being dialed has no load yet: it would always win.
            let ready = pool.has_connections() || pool.dials(worker) == 0;
            well && ready && avoid != Some(pool.address.socket())
        };
        let pools = self.pools.iter().enumerate();
        pools.filter(move |(_, pool)| worth_it(pool))
    }

    /// A connection for a call of a worker: one with room, its own or else that of another
    /// worker, or else one that may take a call beyond its bound.
    pub(super) fn find(
        &self,
        worker: usize,
        admitted: impl Fn(&AddressPool) -> bool,
        bound: usize,
        suspects: bool,
    ) -> Option<(usize, Connection)> {
        let pools = || self.pools.iter().enumerate().filter(|(_, p)| admitted(p));
        let with_room = |whose| {
            let one =
                |pool: &AddressPool| pool.with_room((worker, whose), bound, suspects).cloned();
            pools().find_map(|(index, pool)| Some((index, one(pool)?)))
        };
        let coming = self.pools.iter().any(|pool| pool.is_promising(worker));
        let beyond_bound = |whose| {
            let whose = (worker, whose);
            let one =
                |pool: &AddressPool| pool.beyond_bound(whose, bound, coming, suspects).cloned();
            pools()
                .filter_map(|(index, pool)| Some((index, one(pool)?)))
                .min_by_key(|(_, connection)| connection.load().calls)
        };
        with_room(Whose::Own)
            .or_else(|| with_room(Whose::Others))
            .or_else(|| beyond_bound(Whose::Own))
            .or_else(|| beyond_bound(Whose::Others))
    }

    /// What another worker has with room at an address where the worker makes none itself.
    pub(super) fn lent(&self, worker: usize, index: usize, bound: usize) -> Option<Connection> {
        let pool = &self.pools[index];
        if pool.dials(worker) > 0 {
            return None;
        }
        pool.with_room((worker, Whose::Others), bound, false)
            .cloned()
    }

    pub(super) fn begin(&mut self, index: usize, connection: &Connection) -> Call {
        if self.cautious {
            let health = &mut self.pools[index].health;
            if health.is_ejected() {
                health.called(Instant::now());
            }
            // A suspect may have answered by now.
            self.refresh_cautious();
        }
        connection.begin()
    }

    pub(super) fn pool(&mut self, address: &Arc<Address>) -> Option<&mut AddressPool> {
        let mut pools = self.pools.iter_mut();
        pools.find(|pool| Arc::ptr_eq(&pool.address, address))
    }

    /// Removes connections that have closed. Returns whether there were any.
    pub(super) fn prune(&mut self, now: Instant) -> bool {
        let kept = self.kept();
        for pool in &mut self.pools {
            let has_failed = pool.prune(now);
            self.connect_epoch = self.connect_epoch.wrapping_add(has_failed.into());
        }
        self.kept() != kept
    }

    fn kept(&self) -> usize {
        self.pools.iter().map(AddressPool::kept).sum()
    }

    pub(super) fn may_eject(&self, rules: &Rules) -> bool {
        let ejected = self.pools.iter().filter(|pool| pool.health.is_ejected());
        rules.allow_one_more(ejected.count(), self.pools.len())
    }

    /// Brings `cautious` up to date.
    pub(super) fn refresh_cautious(&mut self) {
        let suspect = |pool: &AddressPool| {
            pool.health.is_ejected() || pool.last_error.is_some() || pool.has_suspects()
        };
        self.cautious = self.pools.iter().any(suspect);
    }

    /// Has one pool for each of the last known addresses. Addresses that stay keep their
    /// connections; on those that go, calls in flight continue.
    pub(super) fn use_addresses(&mut self) {
        let mut old = std::mem::take(&mut self.pools);
        for address in self.names.addresses() {
            let known = old
                .iter()
                .position(|pool| Arc::ptr_eq(&pool.address, address));
            let pool = known.map(|index| old.swap_remove(index));
            let pool = pool.unwrap_or_else(|| AddressPool::new(Arc::clone(address)));
            self.pools.push(pool);
        }
        self.names.set_stale(self.pools.is_empty());
    }

    pub(super) fn is_something_worth_waiting_for(&self, worker: usize) -> bool {
        let is_promising = |pool: &AddressPool| pool.is_promising(worker);
        self.names.is_awaited() || self.pools.iter().any(is_promising)
    }

    /// Whether there is an open connection, even if it has no room.
    pub(super) fn has_open_connections(&self) -> bool {
        self.pools.iter().any(|pool| pool.connections() > 0)
    }

    /// Whether the worker has one of its own.
    pub(super) fn is_connected(&self, worker: usize) -> bool {
        self.pools.iter().any(|pool| pool.is_connected(worker))
    }

    /// Whether the worker is about to have one, or the addresses to be known.
    pub(super) fn is_something_coming(&self, worker: usize) -> bool {
        self.names.is_awaited() || self.pools.iter().any(|pool| pool.dials(worker) > 0)
    }

    /// Whether any worker dials.
    pub(super) fn is_being_dialed(&self) -> bool {
        self.pools.iter().any(|pool| pool.all_dials() > 0)
    }

    /// How many calls of the worker wait for a connection.
    pub(super) fn waiting(&self, worker: usize) -> usize {
        self.workers.get(&worker).map_or(0, |it| it.waiting)
    }

    /// Takes note of the worker that runs this.
    pub(super) fn called_by(&mut self, worker: usize) -> &mut Worker {
        self.workers.entry(worker).or_insert_with(|| Worker {
            waiting: 0,
            runtime: Handle::current(),
        })
    }

    /// Why there is no connection.
    pub(super) fn last_error(&self) -> String {
        let errors = self.pools.iter().filter_map(|pool| {
            let last_error = pool.last_error.as_ref()?;
            Some(format!("{}: {last_error}", pool.address))
        });
        let mut errors = errors.peekable();
        match errors.next() {
            None => self.names.last_error(),
            Some(first) if errors.peek().is_none() => first,
            Some(first) => format!("{first} (and {} more addresses)", errors.count()),
        }
    }
}
