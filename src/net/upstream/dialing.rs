//! Dialing the addresses of an upstream, each in a task of its own that no call can
//! cancel. The task then drives the connection to its end.

use std::{
    pin::pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::time::{Instant, sleep_until, timeout};

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
/// After a failed dial the names are looked up at once, but not more often than this.
const LOOKUP_PAUSE: Duration = Duration::from_secs(1);

impl Upstream {
    /// Dials one of the admitted addresses that want a connection: the one with the
    /// fewest dials under way.
    pub(super) fn dial_some(
        self: &Arc<Self>,
        state: &mut State,
        admitted: impl Fn(&AddressPool) -> bool,
        now: Instant,
    ) {
        let pools = state.pools.iter().enumerate();
        let wanting = pools
            .filter(|(index, pool)| admitted(pool) && self.wants_connection(state, *index, now))
            .min_by_key(|(_, pool)| pool.dialing);
        if let Some((index, _)) = wanting {
            self.dial(state, index, now);
        }
    }

    /// Dials every address that failed and has no connection, ejected or not. That delays
    /// no call, and finds an address that is back.
    pub(super) fn dial_the_lost(self: &Arc<Self>, state: &mut State) {
        let now = Instant::now();
        for index in 0..state.pools.len() {
            let pool = &state.pools[index];
            if pool.last_error.is_some() && !pool.has_connections() {
                self.dial_if_wanted(state, index, now);
            }
        }
    }

    /// Dials the address if it wants a connection.
    pub(super) fn dial_if_wanted(self: &Arc<Self>, state: &mut State, index: usize, now: Instant) {
        if self.wants_connection(state, index, now) {
            self.dial(state, index, now);
        }
    }

    /// Dials for a call that came at `came` and has no other choice, even an address that
    /// is ejected or backing off. Returns whether there is one to dial.
    pub(super) fn dial_as_last_resort(self: &Arc<Self>, state: &mut State, came: Instant) -> bool {
        let pools = state.pools.iter().enumerate();
        let choices =
            pools.filter_map(|(i, pool)| Some((pool.connect_backoff.last_resort(came)?, i)));
        let Some((at, index)) = choices.min() else {
            return false;
        };
        self.dial(state, index, at);
        true
    }

    fn wants_connection(&self, state: &State, index: usize, now: Instant) -> bool {
        let pool = &state.pools[index];
        // Slow dials at other addresses may well fail.
        let fresh: usize = state.pools.iter().map(|pool| pool.fresh).sum();
        let coming = fresh - pool.fresh + pool.dialing;
        let waiting = self.waiting.load(Ordering::Relaxed);
        let limits = (self.settings.bound, self.settings.max_connections);
        pool.wants_connection((waiting, coming), limits, now)
    }

    fn dial(self: &Arc<Self>, state: &mut State, index: usize, at: Instant) {
        let pool = &mut state.pools[index];
        pool.dialing += 1;
        pool.fresh += 1;
        let address = Arc::clone(&pool.address);
        let dial = dial(
            Arc::clone(&self.network),
            Arc::clone(&address),
            self.settings.connect_timeout,
            self.settings.keepalive.clone(),
            Arc::clone(&self.changed),
        );
        let this = Arc::downgrade(self);
        tokio::spawn(async move {
            let driver = {
                sleep_until(at).await;
                let mut dial = pin!(dial);
                let (result, fresh) = match timeout(SLOW, &mut dial).await {
                    Ok(result) => (result, true),
                    Err(_) => {
                        if let Some(this) = this.upgrade() {
                            this.dial_is_slow(&address);
                        }
                        (dial.await, false)
                    }
                };
                let Some(this) = this.upgrade() else { return };
                this.dialed(&address, result, fresh)
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
                state.refresh_cautious();
            }
        }
        self.changed.notify_waiters();
    }

    fn dial_is_slow(&self, address: &Arc<Address>) {
        if let Some(pool) = self.state().pool(address) {
            pool.fresh -= 1;
        }
        self.changed.notify_waiters();
    }

    /// Takes in the result of a dial. Returns the driver of the connection.
    fn dialed(
        self: &Arc<Self>,
        address: &Arc<Address>,
        result: Result<(Connection, Driver), String>,
        fresh: bool,
    ) -> Option<Driver> {
        let (result, driver) = match result {
            Ok((connection, driver)) => (Ok(connection), Some(driver)),
            Err(reason) => (Err(reason), None),
        };
        let now = Instant::now();
        let mut state = self.state();
        let may_eject = state.may_eject(&self.settings.rules);
        // Without a pool the address is gone, and the connection is dropped with it.
        if let Some(pool) = state.pool(address) {
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
            pool.dialed(result, fresh, now, &self.settings.rules, may_eject);
            if failed {
                state.connect_epoch = state.connect_epoch.wrapping_add(1);
                self.look_up(&mut state, now, LOOKUP_PAUSE);
            }
        }
        state.refresh_cautious();
        drop(state);
        self.changed.notify_waiters();
        driver
    }
}
