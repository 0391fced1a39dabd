//! Makes catalogues: one for each change of what services have. What stays the same from
//! one to the next is the same object, and a tool that changes keeps its breakers, its
//! bulkhead and its counts: a call that runs in an earlier one counts in the next.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    Catalog, Entry, Remote, Service,
    definition::Definition,
    naming::Names,
    source::{Offer, Source, Told, Unusable, Wanted, status::Status},
    unavailable::Unavailable,
};
use crate::{
    config::{self, Config, Protocol},
    core::{call::ToolName, fanout::Tool},
    net::{Network, Upstream},
    policy::{Breakers, Policy, ServicePolicy},
    telemetry::ToolGauges,
    tool::{fanfare::Fanfare, method::Method, remote::RemoteTool, schema::ArgumentsSchema},
};

/// How many tools that are left out have a line of their own in the log.
const MOST_LINES: usize = 20;

/// Makes catalogues of one configuration.
pub(super) struct Builder {
    services: BTreeMap<String, config::Service>,
    tools: BTreeMap<ToolName, config::Tool>,
    max_result_bytes: usize,
    connected: BTreeMap<String, Service>,
    /// What each service told last.
    told: BTreeMap<String, Told>,
    made: BTreeMap<ToolName, Made>,
    left_out: BTreeMap<String, BTreeSet<Unusable>>,
}

/// A tool of the last catalogue.
struct Made {
    config: config::Tool,
    offer: Option<Arc<Offer>>,
    policy: Option<Arc<Policy>>,
    entry: Entry,
}

impl Builder {
    /// For `config`, each service reached through what `network` makes.
    pub(super) fn new(
        config: &Config,
        network: impl Fn(&config::Service) -> Arc<dyn Network>,
    ) -> Self {
        let connected = config.services.iter().map(|(name, config)| {
            let service = Service {
                upstream: Arc::new(Upstream::new(name, network(config), config)),
                breakers: Arc::new(ServicePolicy::new(name, config)),
                source: config.is_source().then(|| Arc::new(Status::new())),
            };
            (name.clone(), service)
        });
        Self {
            connected: connected.collect(),
            services: config.services.clone(),
            tools: config.tools.clone(),
            max_result_bytes: config.limits.max_result_bytes,
            told: BTreeMap::new(),
            made: BTreeMap::new(),
            left_out: BTreeMap::new(),
        }
    }

    /// The services that are to be asked what they have.
    pub(super) fn sources(&self) -> Vec<(String, config::Service, Source, Arc<Status>)> {
        let sources = self.connected.iter().filter_map(|(name, service)| {
            let config = self.services.get(name)?;
            let wanted = Wanted::new(name, config, &self.tools);
            let source = Source::new(Arc::clone(&service.upstream), wanted);
            let status = Arc::clone(service.source.as_ref()?);
            Some((name.clone(), config.clone(), source, status))
        });
        sources.collect()
    }

    /// Takes in what `service` told. Returns whether that is something else than before.
    pub(super) fn take(&mut self, service: &str, told: Told) -> bool {
        let before = self.told.get(service);
        if before.is_some_and(|before| before.content == told.content) {
            return false;
        }
        self.told.insert(service.to_owned(), told);
        true
    }

    /// What services have now as a catalogue.
    pub(super) fn catalog(&mut self) -> Catalog {
        let mut names = Names::new(&self.services, &self.tools, &self.told);
        let mut made = BTreeMap::new();
        for (name, tool) in &self.tools {
            let offer = self.offered(&tool.service, tool.remote(name)).cloned();
            let remote = tool.remote(name);
            match self.make(name, tool.clone(), remote, offer) {
                Ok(one) => made.extend(one.map(|one| (name.clone(), one))),
                Err(why) => names.leave_out(&tool.service, Unusable::new(name.as_str(), why)),
            }
        }
        for exposed in std::mem::take(&mut names.exposed) {
            let service = self.services.get(&exposed.service);
            let tool = service.and_then(|it| config::Tool::without_section(&exposed.service, it));
            let (Some(tool), offer) = (tool, exposed.offer) else {
                continue;
            };
            let remote = offer.remote.clone();
            match self.make(&exposed.name, tool, &remote, Some(offer)) {
                Ok(one) => made.extend(one.map(|one| (exposed.name, one))),
                Err(why) => names.leave_out(&exposed.service, Unusable::new(&remote, why)),
            }
        }
        self.tell(&made, names.left_out);
        self.made = made;
        Catalog {
            tools: self
                .made
                .iter()
                .map(|(name, made)| (name.clone(), made.entry.clone()))
                .collect(),
            services: self.connected.clone(),
            listing: Arc::default(),
        }
    }

    fn offered(&self, service: &str, remote: &str) -> Option<&Arc<Offer>> {
        let told = self.told.get(service)?;
        // They are sorted.
        let found = told
            .offers
            .binary_search_by(|it| it.remote.as_str().cmp(remote));
        Some(&told.offers[found.ok()?])
    }

    /// The tool that its service calls `remote`. `None` if there is no such service, which a
    /// configuration that was checked rules out.
    ///
    /// # Errors
    /// If it can't be used: why.
    fn make(
        &self,
        name: &ToolName,
        mut config: config::Tool,
        remote: &str,
        offer: Option<Arc<Offer>>,
    ) -> Result<Option<Made>, String> {
        if let Some(offer) = &offer {
            settle(&mut config, offer);
        }
        let before = self.made.get(name);
        if let Some(before) = before
            && before.config == config
            && before.offer == offer
        {
            return Ok(Some(before.clone()));
        }
        let Some(service) = self.connected.get(&config.service) else {
            return Ok(None);
        };
        let definition = Arc::new(definition(&config, offer.as_deref()));
        let schema = self.schema(name, &config.service, &definition)?;
        let before = before.filter(|before| has_same_policy(&before.config, &config));
        let (policy, breakers) = match before {
            Some(Made {
                policy: Some(policy),
                entry:
                    Entry {
                        remote: Some(remote),
                        ..
                    },
                ..
            }) => (Arc::clone(policy), Arc::clone(&remote.breakers)),
            _ => {
                let of_service = Arc::clone(&service.breakers);
                let breakers = Arc::new(Breakers::new(name.as_str(), &config, of_service));
                (
                    Arc::new(Policy::new(Arc::clone(&breakers), &config)),
                    breakers,
                )
            }
        };
        let known = before.map(|before| Arc::clone(&before.entry.gauges));
        let entry = Entry {
            definition,
            tool: self.tool(&config, remote, offer.as_deref(), schema, &policy),
            gauges: known.unwrap_or_else(|| Arc::new(ToolGauges::new(name))),
            exposed: !self.tools.contains_key(name),
            remote: Some(Remote {
                service: Arc::from(config.service.as_str()),
                upstream: Arc::clone(&service.upstream),
                breakers,
            }),
        };
        Ok(Some(Made {
            config,
            offer,
            policy: Some(policy),
            entry,
        }))
    }

    fn is_grpc(&self, service: &str) -> bool {
        let service = self.services.get(service);
        service.is_some_and(|it| it.protocol == Protocol::Grpc)
    }

    /// What checks the arguments of a tool; `None` if nobody told a schema, or if they are
    /// translated, which checks them too.
    fn schema(
        &self,
        name: &ToolName,
        service: &str,
        definition: &Definition,
    ) -> Result<Option<Arc<ArgumentsSchema>>, String> {
        let Some(told) = &definition.input_schema else {
            return Ok(None);
        };
        if self.is_grpc(service) {
            return Ok(None);
        }
        let compiled = ArgumentsSchema::compile(name.as_str(), Arc::clone(told));
        compiled
            .map(|schema| Some(Arc::new(schema)))
            .map_err(|why| why.to_string())
    }

    fn tool(
        &self,
        config: &config::Tool,
        remote: &str,
        offer: Option<&Offer>,
        schema: Option<Arc<ArgumentsSchema>>,
        policy: &Arc<Policy>,
    ) -> Arc<dyn Tool> {
        let service = &self.connected[&config.service];
        let upstream = Arc::clone(&service.upstream);
        let stale = service.source.as_ref().map(|it| Arc::clone(&it.stale));
        let max_bytes = self.max_result_bytes;
        if self.is_grpc(&config.service) {
            let shape = offer.and_then(|it| it.shape.as_ref());
            let shape = shape.filter(|it| !it.streams() || config.stream.is_some());
            let method =
                shape.and_then(|it| Method::new(remote, it.messages(), upstream, max_bytes));
            if let Some(method) = method {
                return Arc::new(RemoteTool::new(method, Arc::clone(policy), config, stale));
            }
            let asked = self.told.contains_key(&config.service);
            return Arc::new(Unavailable::new(config, remote, asked));
        }
        let protocol = Fanfare::new(remote, upstream, max_bytes).with_schema(schema);
        Arc::new(RemoteTool::new(protocol, Arc::clone(policy), config, stale))
    }

    /// Tells the log and the metrics what changes.
    fn tell(
        &mut self,
        made: &BTreeMap<ToolName, Made>,
        mut left_out: BTreeMap<String, BTreeSet<Unusable>>,
    ) {
        for (service, connected) in &self.connected {
            let now = left_out.remove(service).unwrap_or_default();
            let before = self.left_out.get(service);
            let is_new = |it: &&Unusable| !before.is_some_and(|before| before.contains(it));
            let new: Vec<_> = now.iter().filter(is_new).collect();
            for unusable in new.iter().take(MOST_LINES) {
                tracing::warn!(service, "left out a tool: {unusable}");
            }
            if new.len() > MOST_LINES {
                let more = new.len() - MOST_LINES;
                tracing::warn!(service, more, "left out more tools");
            }
            if let Some(status) = &connected.source {
                let tools = made.values().filter(|it| it.config.service == *service);
                status.count(tools.count(), now.len());
            }
            self.left_out.insert(service.clone(), now);
        }
    }
}

/// What the file does not say, the service does.
fn settle(config: &mut config::Tool, offer: &Offer) {
    if config.from_source.timeout {
        config.timeout = offer.timeout.unwrap_or(config.timeout);
    }
    if config.from_source.idempotent {
        config.idempotent = offer.idempotent;
    }
    if !config.idempotent {
        config.hedge = None;
    }
}

fn definition(config: &config::Tool, offer: Option<&Offer>) -> Definition {
    let mut definition = offer.map_or_else(Definition::default, |it| it.definition.clone());
    if !config.description.is_empty() {
        definition.description.clone_from(&config.description);
    }
    if let Some(schema) = &config.input_schema {
        definition.input_schema = Some(Arc::clone(schema));
    }
    definition
}

/// Whether they are called in the same way, whatever they are.
fn has_same_policy(one: &config::Tool, other: &config::Tool) -> bool {
    let policy = |tool: &config::Tool| config::Tool {
        description: String::new(),
        input_schema: None,
        input_schema_file: None,
        ..tool.clone()
    };
    policy(one) == policy(other)
}

impl Clone for Made {
    fn clone(&self) -> Self {
        Self {
            config: self.config.clone(),
            offer: self.offer.clone(),
            policy: self.policy.clone(),
            entry: self.entry.clone(),
        }
    }
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder").finish_non_exhaustive()
    }
}
