//! What an upstream does beside the calls, each in a task of its own that no call
//! can cancel: it dials, asks name servers, and closes what is idle. A service that
//! is not in use has no tasks, unless it could not be reached.

use std::{
    pin::pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::time::{Instant, sleep_until, timeout};

use super::{Upstream, connectivity::Connectivity, keeping::keep, state::State};
use crate::{
    logging::peer::connected_to,
    net::{
        address::Address,
        address_pool::{AddressPool, sweep_interval},
        connect_backoff::ConnectBackoff,
        connection::{Connection, Driver, End},
        dial::dial,
        resolve::{Answer, Endpoints},
    },
};

/// Calls that have another choice do not wait longer for a connection (RFC 8305, 5:
/// what Happy Eyeballs waits for).
const SLOW: Duration = Duration::from_millis(250);
/// After a failed dial the name servers are asked at once, but not more often.
const LOOKUP_PAUSE: Duration = Duration::from_secs(1);

/// The names of a service, and how asking for their addresses goes.
pub(super) struct Names {
    endpoints: Endpoints,
    /// Their addresses are not among the pools: they were never asked for, or that
    /// was long ago.
    stale: bool,
    lookup: Lookup,
    asked: Option<Instant>,
    connect_backoff: ConnectBackoff,
    last_error: Option<String>,
}

#[derive(Clone, Copy, PartialEq)]
enum Lookup {
    None,
    Running,
    /// Running, and nobody waits for it any more.
    Slow,
}

impl Names {
    /// How many connections were worn by cancels.
    pub(super) fn worn(&self) -> u64 {
        self.endpoints.worn()
    }

    pub(super) fn new(endpoints: Endpoints) -> Self {
        Self {
            stale: endpoints.have_names(),
            endpoints,
            lookup: Lookup::None,
            asked: None,
            connect_backoff: ConnectBackoff::default(),
            last_error: None,
        }
    }

    /// Whether calls should wait for the addresses.
    pub(super) fn is_awaited(&self) -> bool {
        self.stale && self.lookup == Lookup::Running
    }

    /// Whether there are no addresses because asking for them failed.
    pub(super) fn have_failed(&self) -> bool {
        self.stale && self.last_error.is_some()
    }

    /// Why there are no addresses.
    pub(super) fn last_error(&self) -> String {
        let last_error = self.last_error.as_deref();
        last_error.unwrap_or("it can't be dialed now").to_owned()
    }
}

impl Upstream {
    /// Dials the first of the admitted addresses that wants it, the one with the
    /// fewest dials under way.
    pub(super) fn dial_some(
        self: &Arc<Self>,
        state: &mut State,
        admitted: impl Fn(&AddressPool) -> bool,
        now: Instant,
    ) {
        let pools = state.pools.iter().enumerate();
        let wanting = pools
            .filter(|(index, pool)| admitted(pool) && self.wants_link(state, *index, now))
            .min_by_key(|(_, pool)| pool.dialing);
        if let Some((index, _)) = wanting {
            self.dial(state, index, now);
        }
    }

    /// Dials the addresses that have no connection, be they ejected or not: that costs
    /// no call, and who is back is to be found soon.
    pub(super) fn dial_the_lost(self: &Arc<Self>, state: &mut State) {
        let now = Instant::now();
        for index in 0..state.pools.len() {
            let pool = &state.pools[index];
            if pool.last_error.is_some() && !pool.has_links() {
                self.dial_if_wanted(state, index, now);
            }
        }
    }

    /// Dials that address if it wants a connection.
    pub(super) fn dial_if_wanted(self: &Arc<Self>, state: &mut State, index: usize, now: Instant) {
        if self.wants_link(state, index, now) {
            self.dial(state, index, now);
        }
    }

    /// Dials for a call that came at `came` and has no other choice, whatever is held
    /// against the address; says whether there is one to dial.
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

    fn wants_link(&self, state: &State, index: usize, now: Instant) -> bool {
        let pool = &state.pools[index];
        // Slow dials elsewhere may come to nothing.
        let fresh: usize = state.pools.iter().map(|pool| pool.fresh).sum();
        let coming = fresh - pool.fresh + pool.dialing;
        let waiting = self.waiting.load(Ordering::Relaxed);
        let limits = (self.settings.bound, self.settings.max_connections);
        pool.wants_link((waiting, coming), limits, now)
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

    /// Notes how a connection ended.
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

    /// Takes in what a dial came to. Returns the driver of a connection.
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
        // It may be gone: then so is the connection.
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

    /// Asks for the addresses if they are not known, or were asked for long ago.
    pub(super) fn look_up_if_stale(self: &Arc<Self>, state: &mut State, now: Instant) {
        if state.names.stale && state.names.connect_backoff.allows(now) {
            self.look_up(state, now, Duration::ZERO);
        }
    }

    /// Asks for the addresses, unless that was done within `pause`.
    pub(super) fn look_up(self: &Arc<Self>, state: &mut State, now: Instant, pause: Duration) {
        let names = &mut state.names;
        let just_asked = names.asked.is_some_and(|asked| now < asked + pause);
        if !names.endpoints.have_names() || names.lookup != Lookup::None || just_asked {
            return;
        }
        names.lookup = Lookup::Running;
        names.asked = Some(now);
        let answers = names.endpoints.look_up(&self.network);
        let limit = self.settings.connect_timeout;
        let this = Arc::downgrade(self);
        tokio::spawn(async move {
            let mut answers = pin!(answers);
            let answers = match timeout(limit, &mut answers).await {
                Ok(answers) => answers,
                Err(_) => {
                    if let Some(this) = this.upgrade() {
                        this.lookup_is_slow(limit);
                    }
                    // The system's resolver can't be cancelled: two would pile up.
                    answers.await
                }
            };
            if let Some(this) = this.upgrade() {
                this.looked_up(answers);
            }
        });
        self.keep(state);
    }

    fn lookup_is_slow(&self, limit: Duration) {
        let mut state = self.state();
        state.connect_epoch = state.connect_epoch.wrapping_add(1);
        state.names.lookup = Lookup::Slow;
        let reason = format!("no answer from the resolver within {limit:?}");
        if state.names.last_error.is_none() {
            let service = self.service.as_str();
            tracing::warn!(service, reason, "can't resolve");
        }
        state.names.last_error = Some(reason);
        state.use_addresses();
        self.changed.notify_waiters();
    }

    fn looked_up(&self, answers: Vec<Answer>) {
        let mut state = self.state();
        let names = &mut state.names;
        names.lookup = Lookup::None;
        names.last_error = names.endpoints.update(&self.service, answers);
        state.use_addresses();
        if state.names.stale {
            state.connect_epoch = state.connect_epoch.wrapping_add(1);
            state
                .names
                .connect_backoff
                .failed(Instant::now(), fastrand::f64());
        } else {
            state.names.connect_backoff.succeeded(Instant::now());
        }
        self.changed.notify_waiters();
    }

    /// Starts the task that closes what is idle and asks the name servers again.
    fn keep(self: &Arc<Self>, state: &mut State) {
        if std::mem::replace(&mut state.kept, true) {
            return;
        }
        let sweep = sweep_interval(self.settings.idle);
        let refresh = self.settings.refresh;
        tokio::spawn(keep(Arc::downgrade(self), sweep, refresh));
    }

    /// Closes what is idle; says whether there is still something to look after.
    pub(super) fn sweep(&self) -> bool {
        let mut state = self.state();
        let now = Instant::now();
        state.pools.iter_mut().for_each(|pool| pool.sweep(now));
        let in_use = |pool: &AddressPool| pool.has_links() || pool.dialing > 0;
        let kept = state.pools.iter().any(in_use)
            || state.names.lookup != Lookup::None
            || state.connectivity() == Connectivity::TransientFailure;
        state.kept = kept;
        if !kept && state.names.endpoints.have_names() {
            // Others may have these addresses when the service is needed again.
            let is_literal = |pool: &AddressPool| pool.address.endpoint().literal().is_some();
            state.pools.retain(is_literal);
            state.names.stale = true;
        }
        kept
    }
}

impl State {
    /// Makes the last good addresses the pools. Those that stay keep what they have;
    /// of those that go, the calls in flight go on.
    fn use_addresses(&mut self) {
        let mut old = std::mem::take(&mut self.pools);
        for address in self.names.endpoints.addresses() {
            let known = old
                .iter()
                .position(|pool| Arc::ptr_eq(&pool.address, address));
            let pool = known.map(|index| old.swap_remove(index));
            let pool = pool.unwrap_or_else(|| AddressPool::new(Arc::clone(address)));
            self.pools.push(pool);
        }
        self.names.stale = self.pools.is_empty();
        self.refresh_cautious();
    }
}
