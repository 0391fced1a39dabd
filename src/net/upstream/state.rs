//! What an upstream knows of its addresses, all behind one lock: which of them gets the
//! next call, or why none can.

use std::{net::SocketAddr, sync::Arc};

use tokio::time::Instant;

use super::{Pick, names::Names};
use crate::net::{
    address::Address, address_pool::AddressPool, balance, connection::Connection, eject::Rules,
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
}

impl State {
    /// The address for the next call; it may have no connection yet.
    pub(super) fn draw(&self, avoid: Option<SocketAddr>) -> Option<usize> {
        if self.pools.len() == 1 {
            return Some(0);
        }
        let now = self.cautious.then(Instant::now);
        let worth_it = |pool: &AddressPool| {
            let well = now.is_none_or(|now| {
                pool.health.admits(now)
                    && (pool.has_connections() || pool.connect_backoff.allows(now))
                    && !pool.is_suspect()
            });
            // An address that is being dialed has no load yet: it would always win.
            let ready = pool.has_connections() || pool.dialing == 0;
            well && ready && avoid != Some(pool.address.socket())
        };
        let pools = self.pools.iter().enumerate();
        let members = pools.filter(|(_, pool)| worth_it(pool));
        let loads = members.map(|(index, pool)| (index, pool.calls()));
        balance::less_loaded_of_two(loads, fastrand::u64(..))
    }

    /// A connection with room, or else one that may take a call beyond its bound.
    pub(super) fn find(
        &self,
        admitted: impl Fn(&AddressPool) -> bool,
        bound: usize,
        others_coming: bool,
        suspects: bool,
    ) -> Option<(usize, Connection)> {
        let pools = || self.pools.iter().enumerate().filter(|(_, p)| admitted(p));
        let with_room = pools().find_map(|(i, pool)| Some((i, pool.with_room(bound, suspects)?)));
        let found = with_room.or_else(|| {
            pools()
                .filter_map(|(i, pool)| {
                    Some((i, pool.beyond_bound(bound, others_coming, suspects)?))
                })
                .min_by_key(|(_, connection)| connection.load().calls)
        });
        found.map(|(index, connection)| (index, connection.clone()))
    }

    pub(super) fn take(&mut self, index: usize, connection: Connection) -> Pick<'static> {
        if self.cautious {
            let health = &mut self.pools[index].health;
            if health.is_ejected() {
                health.called(Instant::now());
            }
            // A suspect may have answered by now.
            self.refresh_cautious();
        }
        let call = connection.begin();
        Pick::Take(connection, call)
    }

    pub(super) fn pool(&mut self, address: &Arc<Address>) -> Option<&mut AddressPool> {
        let mut pools = self.pools.iter_mut();
        pools.find(|pool| Arc::ptr_eq(&pool.address, address))
    }

    /// Removes connections that have closed.
    pub(super) fn prune(&mut self, now: Instant) {
        for pool in &mut self.pools {
            let has_failed = pool.prune(now);
            self.connect_epoch = self.connect_epoch.wrapping_add(has_failed.into());
        }
    }

    pub(super) fn may_eject(&self, rules: &Rules) -> bool {
        let ejected = self.pools.iter().filter(|pool| pool.health.is_ejected());
        rules.allow_one_more(ejected.count(), self.pools.len())
    }

    /// Brings `cautious` up to date.
    pub(super) fn refresh_cautious(&mut self) {
        let suspect = |pool: &AddressPool| {
            pool.health.is_ejected() || pool.last_error.is_some() || pool.is_suspect()
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
        self.refresh_cautious();
    }

    pub(super) fn is_something_worth_waiting_for(&self) -> bool {
        self.names.is_awaited() || self.pools.iter().any(AddressPool::is_promising)
    }

    /// Whether there is an open connection, even if it has no room.
    pub(super) fn has_open_connections(&self) -> bool {
        self.pools.iter().any(|pool| pool.connections() > 0)
    }

    pub(super) fn is_something_coming(&self) -> bool {
        self.names.is_awaited() || self.pools.iter().any(|pool| pool.dialing > 0)
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
