//! One remote service: its addresses, and which connection a call takes.
//!
//! A call goes to the less loaded of two addresses picked at random, on a connection
//! that has room: one of its own worker, or else one that another worker lends it
//! (`address_pool.rs`). It never waits for a connection while another one, at whatever
//! address, could take it: addresses that are down, slow or new are dialed in the
//! background and delay no call. Nor does it wait for what another worker dials, which may
//! be stuck, unless there may be no more connections.
//!
//! `state.rs` is what is known of the addresses, by all workers; `view.rs` is what a worker
//! sees of it as long as all is well, so that no lock is shared then; `pick.rs` picks an
//! address and a connection; `dialing.rs`, `lookups.rs` and `maintenance.rs` are what runs in tasks of
//! their own; `connectivity.rs` tells whether the service can be reached; `in_flight.rs` is
//! a call that was sent; `apart.rs` opens what is no connection for calls.

mod apart;
mod connectivity;
mod dialing;
mod in_flight;
mod lookups;
mod maintenance;
mod names;
mod pick;
mod state;
mod view;

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::{Uri, uri::PathAndQuery};
use tokio::{
    sync::Notify,
    time::{Instant, timeout},
};

pub(crate) use self::apart::Apart;
pub use self::connectivity::Connectivity;
pub(crate) use self::in_flight::{AddressHealth, InFlight, Terms};
use self::{names::Names, pick::Pick, state::State, view::Views};
use super::{
    address::{Address, Endpoint},
    address_pool::AddressPool,
    connection::{Call, Connection, Outgoing},
    eject::{Answers, Rules},
    liveness::Keepalive,
    network::Network,
    resolve::Endpoints,
};
use crate::{
    config::{self, Compression},
    core::{observer::Target, worker},
};

/// How often a call that waits because every connection is full looks for other
/// addresses.
const RECHECK_INTERVAL: Duration = Duration::from_millis(500);

/// A remote service. Connects when that is first needed.
pub struct Upstream {
    service: String,
    target: Target,
    network: Arc<dyn Network>,
    gzip: bool,
    settings: Settings,
    // std's Mutex: held for a few instructions, never across an await.
    state: Mutex<State>,
    views: Views,
    /// Notified when something happens that calls wait for.
    changed: Arc<Notify>,
}

struct Settings {
    connect_timeout: Duration,
    keepalive: Keepalive,
    /// How many calls a connection takes before another one is opened.
    bound: usize,
    /// The most connections to one address, as it was set.
    max_connections: Option<usize>,
    idle: Duration,
    refresh: Duration,
    rules: Rules,
}

/// There is no connection, for this reason. Nothing was sent.
#[derive(Debug)]
pub(crate) struct NoConnection {
    pub(crate) service: String,
    pub(crate) reason: String,
    /// How many attempts at a connection had failed by then; calls in between meet the
    /// same count.
    pub(crate) connect_epoch: u32,
}

impl Settings {
    fn max_connections(&self) -> usize {
        config::max_connections_per_address(self.max_connections, worker::count())
    }
}

impl Upstream {
    /// The service `name`, reached through `network`.
    pub fn new(name: &str, network: Arc<dyn Network>, service: &config::Service) -> Self {
        let endpoint = |uri| Endpoint::new(uri, service);
        let endpoints = Endpoints::new(service.endpoints.iter().map(endpoint));
        let pool = |address: &Arc<Address>| AddressPool::new(Arc::clone(address));
        Self {
            service: name.to_owned(),
            target: endpoints.target(),
            network,
            gzip: service.compression == Compression::Gzip,
            settings: Settings {
                connect_timeout: service.connect_timeout,
                keepalive: Keepalive {
                    interval: service.keepalive_interval,
                    timeout: service.keepalive_timeout,
                    pace: Arc::default(),
                },
                bound: service.max_streams_per_connection,
                max_connections: service.max_connections_per_address,
                idle: service.connection_idle_timeout,
                refresh: service.dns_refresh_interval,
                rules: Rules {
                    after_failures: service.eject_after_failures,
                    time: service.ejection_time,
                    max_time: service.max_ejection_time,
                    max_percent: service.max_ejected_percent,
                },
            },
            state: Mutex::new(State {
                pools: endpoints.addresses().map(pool).collect(),
                cautious: false,
                connect_epoch: 0,
                names: Names::new(endpoints),
                kept: false,
                workers: BTreeMap::new(),
                retries: 0,
            }),
            views: Views::default(),
            changed: Arc::default(),
        }
    }

    /// Whether requests to it are compressed.
    pub(crate) fn gzip(&self) -> bool {
        self.gzip
    }

    /// What telemetry calls it before an address is picked.
    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    /// How many connections are open.
    pub(crate) fn connections(&self) -> usize {
        self.state()
            .pools
            .iter()
            .map(AddressPool::connections)
            .sum()
    }

    /// How many connections were replaced because too many of their calls were cancelled.
    pub(crate) fn worn(&self) -> u64 {
        self.state().names.worn()
    }

    /// How many addresses are ejected.
    pub(crate) fn ejected(&self) -> usize {
        let state = self.state();
        let ejected = state.pools.iter().filter(|pool| pool.health.is_ejected());
        ejected.count()
    }

    /// Sends the request for `path` that `request` makes, given its URI and the largest
    /// header list that the peer accepts. Avoids the address `avoid` if there is another
    /// one. If a connection turns out to be closed, nothing was sent, and the next one is
    /// tried.
    ///
    /// # Errors
    /// [`NoConnection`] if, since this was called, dialing each of the addresses has
    /// failed, or no address was found.
    pub(crate) async fn send<'a>(
        self: &'a Arc<Self>,
        avoid: Option<SocketAddr>,
        terms: Terms<'a>,
        path: &PathAndQuery,
        request: impl Fn(Uri, Option<u32>) -> Outgoing,
    ) -> Result<InFlight<'a>, NoConnection> {
        // Since when the call has been held up, if it is.
        let mut came = None;
        loop {
            let (mut connection, mut call) = match self.pick(avoid, &mut came) {
                Pick::Take(connection, call) => (connection, call),
                Pick::Wait(_waiting, changed) => {
                    changed.await;
                    continue;
                }
                Pick::Full(_waiting, changed) => {
                    let _ = timeout(RECHECK_INTERVAL, changed).await;
                    continue;
                }
                Pick::Nowhere(error) => return Err(error),
            };
            let uri = call.address().endpoint().uri(path);
            let max_header_list = connection.max_header_list();
            if connection
                .send(&mut call, request(uri, max_header_list))
                .is_ok()
            {
                return Ok(InFlight::new(self, call, terms));
            }
            self.retire(&connection);
        }
    }

    fn retire(&self, connection: &Connection) {
        let mut state = self.state();
        let is_setback = state
            .pool(connection.address())
            .is_some_and(|pool| pool.retire(connection, Instant::now()));
        state.connect_epoch = state.connect_epoch.wrapping_add(is_setback.into());
        self.note_change(&mut state);
    }

    fn ended(&self, address: &Arc<Address>, failed: bool) {
        let mut state = self.state();
        let may_eject = state.may_eject(&self.settings.rules);
        if let Some(pool) = state.pool(address) {
            if failed {
                pool.failed(Instant::now(), &self.settings.rules, may_eject);
            } else {
                pool.succeeded();
            }
        }
        self.note_change(&mut state);
    }

    /// Takes note of a call that ran out of time.
    fn timed_out(&self, call: &Call, answers: &Answers) {
        let mut state = self.state();
        if call.is_silent() {
            call.suspect();
        }
        if answers.speak_against_a_timeout() {
            let may_eject = state.may_eject(&self.settings.rules);
            if let Some(pool) = state.pool(call.address()) {
                pool.failed(Instant::now(), &self.settings.rules, may_eject);
            }
        }
        self.note_change(&mut state);
    }

    /// Has calls take note of a change of the addresses or their connections.
    fn note_change(&self, state: &mut State) {
        state.refresh_cautious();
        self.views.clear();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        let addresses = state.pools.iter().map(|pool| &pool.address);
        f.debug_struct("Upstream")
            .field("service", &self.service)
            .field("addresses", &addresses.collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
