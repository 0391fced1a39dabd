//! Dialing the addresses of an upstream, each in a task of its own that no call can
//! cancel. The task then drives the connection to its end, on the worker that dialed.

use std::{
    pin::pin,
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::{
    runtime::Handle,
    time::{Instant, sleep_until, timeout},
};

use super::{Upstream, state::State};
use crate::{
    net::{
        address::Address,
        address_pool::AddressPool,
        connection::{Connection, Driver, End},
        dial::dial,
    },
    transport::peer::connected_to,
};

/// How long a call waits for a connection if it has another choice: RFC 8305's
/// Connection Attempt Delay (section 5).
const SLOW: Duration = Duration::from_millis(250);
/// By how much a dial may be late to end. One that is later is stuck with its worker, and
/// takes no place from other workers.
const LATE: Duration = Duration::from_secs(1);
/// After a failed dial the names are looked up at once, but not more often than this.
const LOOKUP_PAUSE: Duration = Duration::from_secs(1);

/// What a call that has no other choice may hope for.
pub(super) enum Resort {
    /// A dial of its worker.
    Own,
    /// Dials of other workers.
    OfOthers,
}

/// A dial under way. It counts until this is dropped, also when it ends with its worker.
struct Dialing {
    upstream: Weak<Upstream>,
    address: Arc<Address>,
    worker: usize,
    /// It is not slow yet.
    is_fresh: bool,
    is_over: bool,
}

impl Upstream {
    /// Dials one of the admitted addresses that want a connection: the one with the
    /// fewest dials under way.
    pub(super) fn dial_some(
        self: &Arc<Self>,
        state: &mut State,
        worker: usize,
        admitted: impl Fn(&AddressPool) -> bool,
        now: Instant,
    ) {
        let wants = |index| self.wants_connection(state, worker, index, now);
        let pools = state.pools.iter().enumerate();
        let wanting = pools
            .filter(|(index, pool)| admitted(pool) && wants(*index))
            .min_by_key(|(_, pool)| pool.dials(worker));
        if let Some((index, _)) = wanting {
            self.dial(state, worker, index, now);
        }
    }

    /// Dials every address that failed and has no connection, ejected or not. That delays
    /// no call, and finds an address that is back.
    pub(super) fn dial_the_lost(self: &Arc<Self>, state: &mut State, worker: usize) {
        let now = Instant::now();
        for index in 0..state.pools.len() {
            let pool = &state.pools[index];
            if pool.last_error.is_some() && !pool.has_connections() && !pool.is_dialed(now) {
                self.dial_if_wanted(state, worker, index, now);
            }
        }
    }

    /// Dials the address if it wants a connection.
    pub(super) fn dial_if_wanted(
        self: &Arc<Self>,
        state: &mut State,
        worker: usize,
        index: usize,
        now: Instant,
    ) {
        if self.wants_connection(state, worker, index, now) {
            self.dial(state, worker, index, now);
        }
    }

    /// Dials for a call that came at `came` and has no other choice, even an address that
    /// is ejected or backing off. Returns whether there is a dial to wait for: this one, or
    /// those of other workers, if there may be no more connections than they make; `None`
    /// if all addresses have been tried.
    pub(super) fn dial_as_last_resort(
        self: &Arc<Self>,
        state: &mut State,
        worker: usize,
        (came, now): (Instant, Instant),
    ) -> Option<Resort> {
        let pools = state.pools.iter().enumerate();
        let choices =
            pools.filter_map(|(i, pool)| Some((pool.connect_backoff.last_resort(came)?, i)));
        let choices: Vec<_> = choices.collect();
        let max = self.settings.max_connections();
        let may_grow = |index: usize| state.pools[index].may_grow(worker, max, now);
        let free = choices.iter().filter(|(_, index)| may_grow(*index));
        let Some(&(at, index)) = free.min() else {
            return (!choices.is_empty()).then_some(Resort::OfOthers);
        };
        self.dial(state, worker, index, at);
        Some(Resort::Own)
    }

    fn wants_connection(&self, state: &State, worker: usize, index: usize, now: Instant) -> bool {
        let pool = &state.pools[index];
        // Slow dials at other addresses may well fail.
        let fresh = state.pools.iter().map(|pool| pool.fresh_dials(worker));
        let coming = fresh.sum::<usize>() - pool.fresh_dials(worker) + pool.dials(worker);
        let waiting = state.waiting(worker);
        let limits = (self.settings.bound, self.settings.max_connections());
        pool.wants_connection(worker, (waiting, coming), limits, now)
    }

    fn dial(self: &Arc<Self>, state: &mut State, worker: usize, index: usize, at: Instant) {
        state.called_by(worker).runtime = Handle::current();
        let limit = self.settings.connect_timeout;
        let pool = &mut state.pools[index];
        pool.begin_dial(worker, at + limit + LATE);
        self.views.clear();
        let mut dialing = Dialing {
            upstream: Arc::downgrade(self),
            address: Arc::clone(&pool.address),
            worker,
            is_fresh: true,
            is_over: false,
        };
        let dial = dial(
            Arc::clone(&self.network),
            Arc::clone(&pool.address),
            limit,
            self.settings.keepalive.clone(),
            Arc::clone(&self.changed),
        );
        tokio::spawn(async move {
            let address = Arc::clone(&dialing.address);
            let this = Weak::clone(&dialing.upstream);
            let driver = {
                sleep_until(at).await;
                let mut dial = pin!(dial);
                let result = match timeout(SLOW, &mut dial).await {
                    Ok(result) => result,
                    Err(_) => {
                        dialing.is_slow();
                        dial.await
                    }
                };
                let Some(this) = this.upgrade() else { return };
                this.dialed(dialing, result)
            };
            if let Some(driver) = driver {
                let peer = address.to_string();
                let end = connected_to(Some(peer), driver).await;
                if let Some(this) = this.upgrade() {
                    this.ended_with(&address, end);
                }
            }
        });
        self.keep(state);
    }

    /// Takes note of how a connection ended.
    fn ended_with(&self, address: &Arc<Address>, end: End) {
        let service = self.service.as_str();
        match end {
            End::Closed => return,
            End::TooManyPings => {
                let slowdown = self.settings.keepalive.pace.halve();
                tracing::warn!(
                    service,
                    %address,
                    slowdown,
                    "a connection was closed with too_many_pings: pinging half as often"
                );
                return;
            }
            End::Silent(limit) => {
                let reason = format!("it did not answer within {limit:?}");
                tracing::warn!(service, %address, reason, "closed a connection");
                let now = Instant::now();
                let mut state = self.state();
                state.connect_epoch = state.connect_epoch.wrapping_add(1);
                let may_eject = state.may_eject(&self.settings.rules);
                state.prune(now);
                if let Some(pool) = state.pool(address) {
                    pool.fell_silent(reason.into(), now, &self.settings.rules, may_eject);
                }
                self.note_change(&mut state);
            }
        }
        self.changed.notify_waiters();
    }

    /// Takes in the result of a dial. Returns the driver of the connection.
    fn dialed(
        self: &Arc<Self>,
        mut dialing: Dialing,
        result: Result<(Connection, Driver), String>,
    ) -> Option<Driver> {
        let (result, driver) = match result {
            Ok((connection, driver)) => (Ok(connection), Some(driver)),
            Err(reason) => (Err(reason), None),
        };
        let now = Instant::now();
        let mut state = self.state();
        let may_eject = state.may_eject(&self.settings.rules);
        let worker = dialing.worker;
        let address = Arc::clone(&dialing.address);
        // Without a pool the address is gone, and the connection is dropped with it.
        if let Some(pool) = dialing.end(&mut state) {
            let was_down = pool.last_error.is_some();
            let service = self.service.as_str();
            match &result {
                Err(reason) if !was_down => {
                    tracing::warn!(service, %address, reason, "can't connect");
                }
                Ok(_) if was_down => tracing::info!(service, %address, "connected again"),
                _ => tracing::debug!(service, %address, "dialed"),
            }
            let failed = result.is_err();
            let result = result.map_err(Arc::from);
            pool.dialed(worker, result, now, &self.settings.rules, may_eject);
            if failed {
                state.connect_epoch = state.connect_epoch.wrapping_add(1);
                self.look_up(&mut state, now, LOOKUP_PAUSE);
            }
        }
        self.note_change(&mut state);
        drop(state);
        self.changed.notify_waiters();
        driver
    }
}

impl Dialing {
    fn is_slow(&mut self) {
        let Some(upstream) = self.upstream.upgrade() else {
            return;
        };
        self.is_fresh = false;
        if let Some(pool) = upstream.state().pool(&self.address) {
            pool.dial_is_slow(self.worker);
        }
        upstream.changed.notify_waiters();
    }

    /// Counts no more.
    fn end<'a>(&mut self, state: &'a mut State) -> Option<&'a mut AddressPool> {
        self.is_over = true;
        let pool = state.pool(&self.address)?;
        pool.end_dial(self.worker, self.is_fresh);
        Some(pool)
    }
}

impl Drop for Dialing {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        if let Some(upstream) = self.upstream.upgrade() {
            self.end(&mut upstream.state());
            upstream.changed.notify_waiters();
        }
    }
}
