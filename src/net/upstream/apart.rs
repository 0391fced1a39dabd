//! A byte stream to one address, for what is no call of a tool.

use std::{pin::pin, sync::Arc};

use http::{Uri, uri::PathAndQuery};
use tokio::{
    sync::futures::Notified,
    time::{Instant, timeout},
};

use super::{State, Upstream};
use crate::net::{address::Address, address_pool::AddressPool, network::Io};

/// How many addresses are tried.
const ATTEMPTS: usize = 3;

/// A byte stream to one address.
pub(crate) struct Apart {
    pub(crate) io: Box<dyn Io>,
    /// The scheme, host and port that requests on it name.
    pub(crate) origin: Uri,
}

impl Upstream {
    /// Opens a byte stream, with TLS where the endpoint has it, to one of the addresses:
    /// rather to one that works. It is no connection of the pools, and counts for nothing.
    ///
    /// # Errors
    /// Why none of those that were tried can be reached.
    pub(crate) async fn open_apart(self: &Arc<Self>) -> Result<Apart, String> {
        let mut last = "it has no address".to_owned();
        for address in self.addresses_to_try().await?.into_iter().take(ATTEMPTS) {
            let limit = self.settings.connect_timeout;
            let opening = async {
                let io = self.network.connect(address.socket()).await;
                let io = io.map_err(|error| error.to_string())?;
                match &address.endpoint().tls {
                    None => Ok(io),
                    Some(tls) => {
                        let secured = tls.secure(io).await;
                        secured.map_err(|error| format!("TLS: {error}"))
                    }
                }
            };
            last = match timeout(limit, opening).await {
                Ok(Ok(io)) => {
                    let origin = address.endpoint().uri(&PathAndQuery::from_static("/"));
                    return Ok(Apart { io, origin });
                }
                Ok(Err(reason)) => format!("{address}: {reason}"),
                Err(_) => format!("{address}: no connection within {limit:?}"),
            };
        }
        Err(last)
    }

    async fn addresses_to_try(self: &Arc<Self>) -> Result<Vec<Arc<Address>>, String> {
        loop {
            let changed = match self.addresses_or_wait() {
                Ok(addresses) => return addresses,
                Err(changed) => changed,
            };
            pin!(changed).await;
        }
    }

    fn addresses_or_wait(
        self: &Arc<Self>,
    ) -> Result<Result<Vec<Arc<Address>>, String>, Notified<'_>> {
        let mut state = self.state();
        self.look_up_if_stale(&mut state, Instant::now());
        if state.pools.is_empty() && state.names.is_awaited() {
            // Made under the lock, so that no later change is missed.
            return Err(self.changed.notified());
        }
        if state.pools.is_empty() {
            return Ok(Err(state.names.last_error()));
        }
        Ok(Ok(state.in_order_of_health()))
    }
}

impl State {
    /// The addresses: those that work first, otherwise in any order.
    fn in_order_of_health(&self) -> Vec<Arc<Address>> {
        let mut pools: Vec<&AddressPool> = self.pools.iter().collect();
        fastrand::shuffle(&mut pools);
        pools.sort_by_key(|pool| (pool.health.is_ejected(), pool.last_error.is_some()));
        let addresses = pools.into_iter().map(|pool| Arc::clone(&pool.address));
        addresses.collect()
    }
}
