//! Which tools there are, and how each is called.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::{
    call::ToolName,
    config::{self, Config},
    fanout::Tool,
    telemetry::ServiceGauges,
    tool::{
        Breaker, BreakerState, Connect, GrpcTool, Guard, Internet, Network, OnePlace, Upstream,
    },
};

/// The tools, by name.
#[derive(Clone, Default)]
pub struct Registry {
    tools: BTreeMap<ToolName, Entry>,
    /// The tool services, by name.
    services: BTreeMap<String, Service>,
}

#[derive(Clone)]
struct Service {
    upstream: Arc<Upstream>,
    guard: Arc<Guard>,
}

#[derive(Clone)]
struct Entry {
    description: String,
    tool: Arc<dyn Tool>,
    /// Of the service that runs it, if that has one.
    guard: Option<Arc<Guard>>,
}

/// A tool, for those who list them.
#[derive(Clone, Copy, Debug)]
pub struct Listed<'a> {
    /// What it is called by.
    pub name: &'a ToolName,
    /// What it does.
    pub description: &'a str,
    /// The longest that a call may take.
    pub timeout: Duration,
    /// Whether calling twice does no more than calling once.
    pub idempotent: bool,
    /// Of the circuit breaker of its service, if that has one.
    pub breaker_state: Option<BreakerState>,
}

impl Registry {
    /// The tools of `config`, reached over TCP. Connects to none of them yet.
    pub fn new(config: &Config) -> Self {
        Self::with_network(config, |service| Arc::new(Internet::of(service)))
    }

    /// The tools of `config`, each service reached by what `connect` makes, whatever
    /// its endpoints are.
    pub fn with_connect(
        config: &Config,
        connect: impl Fn(&config::Service) -> Arc<dyn Connect>,
    ) -> Self {
        Self::with_network(config, |service| Arc::new(OnePlace(connect(service))))
    }

    /// The tools of `config`, each service reached through what `network` makes.
    pub fn with_network(
        config: &Config,
        network: impl Fn(&config::Service) -> Arc<dyn Network>,
    ) -> Self {
        let mut registry = Self::default();
        for (name, config) in &config.services {
            let service = Service {
                upstream: Arc::new(Upstream::new(name, network(config), config)),
                guard: Arc::new(Guard::new(name, config)),
            };
            registry.services.insert(name.clone(), service);
        }
        for (name, tool) in &config.tools {
            // The configuration was checked: its tools name services it has.
            if let Some(Service { upstream, guard }) = registry.services.get(&tool.service) {
                let max_result_bytes = config.limits.max_result_bytes;
                let (upstream, guard) = (Arc::clone(upstream), Arc::clone(guard));
                let client = GrpcTool::new(upstream, Arc::clone(&guard), tool, max_result_bytes);
                let entry = Entry {
                    description: tool.description.clone(),
                    tool: Arc::new(client),
                    guard: Some(guard),
                };
                registry.tools.insert(name.clone(), entry);
            }
        }
        registry
    }

    /// Adds a tool, or replaces the one of that name.
    pub fn insert(&mut self, name: ToolName, description: String, tool: Arc<dyn Tool>) {
        let entry = Entry {
            description,
            tool,
            guard: None,
        };
        self.tools.insert(name, entry);
    }

    /// The tool of that name.
    pub fn get(&self, name: &str) -> Option<Arc<dyn Tool>> {
        self.tools.get(name).map(|entry| Arc::clone(&entry.tool))
    }

    /// All tools, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = Listed<'_>> {
        self.tools.iter().map(|(name, entry)| Listed {
            name,
            description: &entry.description,
            timeout: entry.tool.timeout(),
            idempotent: entry.tool.idempotent(),
            breaker_state: entry.guard.as_ref().map(|guard| guard.breaker().state()),
        })
    }

    /// What there is to see of each tool service, for metrics.
    pub fn gauges(&self) -> impl Iterator<Item = ServiceGauges> {
        self.services.iter().map(|(name, service)| {
            let (guard, opened) = (Arc::clone(&service.guard), Arc::clone(&service.guard));
            let (upstream, ejected) =
                (Arc::clone(&service.upstream), Arc::clone(&service.upstream));
            ServiceGauges {
                name: Arc::from(name.as_str()),
                breaker_state: Box::new(move || match guard.breaker().state() {
                    BreakerState::Closed => 0,
                    BreakerState::HalfOpen => 1,
                    BreakerState::Open => 2,
                }),
                breaker_openings: Box::new(move || opened.breaker().times_opened()),
                connections: Box::new(move || upstream.connections() as u64),
                ejected: Box::new(move || ejected.ejected() as u64),
            }
        })
    }

    /// The circuit breakers of all tool services, sorted by the service's name.
    pub fn breakers(&self) -> impl Iterator<Item = &Breaker> {
        self.services
            .values()
            .map(|service| service.guard.breaker())
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.tools.keys()).finish()
    }
}
