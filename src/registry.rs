//! Which tools there are, and how each is called.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    call::ToolName,
    config::{self, Config},
    fanout::Tool,
    tool::{Connect, GrpcTool, Internet, Network, OnePlace, Upstream},
};

/// The tools, by name.
#[derive(Clone, Default)]
pub struct Registry {
    tools: BTreeMap<ToolName, Entry>,
}

#[derive(Clone)]
struct Entry {
    description: String,
    tool: Arc<dyn Tool>,
}

impl Registry {
    /// The tools of `config`, reached over TCP. Connects to none of them yet.
    pub fn new(config: &Config) -> Self {
        Self::with_network(config, |_| Arc::new(Internet))
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
        let services: BTreeMap<&String, Arc<Upstream>> = config
            .services
            .iter()
            .map(|(name, service)| {
                let upstream = Upstream::new(name, network(service), service);
                (name, Arc::new(upstream))
            })
            .collect();
        let mut registry = Self::default();
        for (name, tool) in &config.tools {
            // The configuration was checked: its tools name services it has.
            if let Some(upstream) = services.get(&tool.service) {
                let max_result_bytes = config.limits.max_result_bytes;
                let client = GrpcTool::new(Arc::clone(upstream), tool, max_result_bytes);
                registry.insert(name.clone(), tool.description.clone(), Arc::new(client));
            }
        }
        registry
    }

    /// Adds a tool, or replaces the one of that name.
    pub fn insert(&mut self, name: ToolName, description: String, tool: Arc<dyn Tool>) {
        self.tools.insert(name, Entry { description, tool });
    }

    /// The tool of that name.
    pub fn get(&self, name: &ToolName) -> Option<Arc<dyn Tool>> {
        self.tools.get(name).map(|entry| Arc::clone(&entry.tool))
    }

    /// All tools with their descriptions, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&ToolName, &str, &dyn Tool)> {
        self.tools
            .iter()
            .map(|(name, entry)| (name, entry.description.as_str(), &*entry.tool))
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.tools.keys()).finish()
    }
}
