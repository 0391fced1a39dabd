//! Which tools there are, and how each is called.

mod alias;
mod builder;
pub mod check;
pub mod definition;
pub mod discovery;
pub mod formats;
mod gauges;
pub mod listing;
mod naming;
pub mod snapshot;
mod source;
#[cfg(test)]
mod tests;
mod unavailable;

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use futures_util::{StreamExt as _, stream};

use self::{builder::Builder, definition::Definition, listing::Listing, source::status::Status};
use crate::{
    config::{self, Config},
    core::{
        call::ToolName,
        fanout::Tool,
        suggest::{Effort, nearest_name},
    },
    net::{Connect, Internet, Network, OneAddress, Upstream},
    policy::{Breakers, ServicePolicy},
    telemetry::ToolGauges,
};

pub use crate::{net::Connectivity, policy::BreakerState};

/// How many tool services are connected to at a time at the start.
const CONNECTING_AT_A_TIME: usize = 16;

/// The tools, by name.
#[derive(Clone, Default)]
pub struct Catalog {
    tools: BTreeMap<ToolName, Entry>,
    /// The tool services, by name.
    services: BTreeMap<String, Service>,
    /// Of these `tools`: another one for each change of them.
    listing: Arc<OnceLock<Listing>>,
}

#[derive(Clone)]
struct Service {
    upstream: Arc<Upstream>,
    breakers: Arc<ServicePolicy>,
    /// If it is asked which tools it has.
    source: Option<Arc<Status>>,
}

#[derive(Clone)]
struct Entry {
    definition: Arc<Definition>,
    tool: Arc<dyn Tool>,
    gauges: Arc<ToolGauges>,
    /// Whether it has no section of its own: there may be thousands of these.
    exposed: bool,
    /// If a tool service runs it.
    remote: Option<Remote>,
}

#[derive(Clone)]
struct Remote {
    /// Its name.
    service: Arc<str>,
    upstream: Arc<Upstream>,
    breakers: Arc<Breakers>,
}

impl Catalog {
    /// The tools of `config`, reached over TCP. Connects to none of them yet: see
    /// [`Catalog::connect`].
    pub fn new(config: &Config) -> Self {
        Self::with_network(config, |service| Arc::new(Internet::of(service)))
    }

    /// The tools of `config`, each service reached by what `connect` makes, whatever
    /// its endpoints are.
    pub fn with_connect(
        config: &Config,
        connect: impl Fn(&config::Service) -> Arc<dyn Connect>,
    ) -> Self {
        Self::with_network(config, |service| Arc::new(OneAddress(connect(service))))
    }

    /// The tools of `config`, each service reached through what `network` makes.
    pub fn with_network(
        config: &Config,
        network: impl Fn(&config::Service) -> Arc<dyn Network>,
    ) -> Self {
        Builder::new(config, network).catalog()
    }

    /// Adds a tool, or replaces the one of that name.
    pub fn insert(
        &mut self,
        name: ToolName,
        definition: impl Into<Definition>,
        tool: Arc<dyn Tool>,
    ) {
        let entry = Entry {
            definition: Arc::new(definition.into()),
            tool,
            gauges: Arc::new(ToolGauges::new(&name)),
            exposed: false,
            remote: None,
        };
        self.tools.insert(name, entry);
        self.listing = Arc::default();
    }

    /// The tool of that name or alias, and where its calls are counted.
    pub(crate) fn get(&self, name: &str) -> Option<(Arc<dyn Tool>, Arc<ToolGauges>)> {
        let entry = self.tools.get(name).or_else(|| self.by_alias(name))?;
        Some((Arc::clone(&entry.tool), Arc::clone(&entry.gauges)))
    }

    /// The name of the tool that was probably meant by one that no tool has.
    pub(crate) fn nearest(&self, name: &str, effort: &mut Effort) -> Option<&str> {
        nearest_name(name, self.tools.keys().map(ToolName::as_str), effort)
    }

    /// Connects to each tool service once, some at a time, so that it is known, and
    /// logged, which of them can't be reached. Calls need not wait for it.
    pub fn connect(&self) -> impl Future<Output = ()> + Send + use<> {
        let services = self.services.values();
        let upstreams: Vec<_> = services.map(|it| Arc::clone(&it.upstream)).collect();
        async move {
            let connecting = stream::iter(upstreams);
            let connect = |upstream: Arc<Upstream>| async move { upstream.connect().await };
            connecting
                .for_each_concurrent(CONNECTING_AT_A_TIME, connect)
                .await;
        }
    }
}

impl std::fmt::Debug for Catalog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.tools.keys()).finish()
    }
}
