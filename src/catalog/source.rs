//! Services that are asked which tools they have: by `ToolService/ListTools`, by gRPC's
//! server reflection, or by a file of descriptors. What one of them tells is bounded, and
//! checked as far as that goes without knowing any other: `discovery.rs` decides when they
//! are asked, `builder.rs` makes tools of it.

mod channel;
mod fanfare;
pub(super) mod methods;
mod reflection;
pub(super) mod status;
mod unmatched;

use std::{
    collections::BTreeMap,
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use tokio::task::spawn_blocking;

use self::methods::Shape;
pub(super) use self::unmatched::Unmatched;
use super::definition::Definition;
use crate::{
    config::{self, Descriptors, Pattern, Protocol},
    core::call::ToolName,
    net::Upstream,
};

/// How long a service may take for all that it tells.
pub(super) const TIME_LIMIT: Duration = Duration::from_secs(10);
/// How many bytes all that a service tells may have.
const MAX_BYTES: usize = 16 << 20;
/// How many tools one service may have, of those that it is to expose.
pub(super) const MAX_TOOLS: usize = 5000;
/// The longest name that a service may have for a tool, in bytes.
const MAX_NAME_BYTES: usize = 512;

/// What a service said that it has, at one time.
#[derive(Clone, Debug, Default)]
pub(super) struct Told {
    /// The same for the same content.
    pub(super) content: u64,
    pub(super) offers: Vec<Arc<Offer>>,
    /// What can't be used, and why.
    pub(super) unusable: Vec<Unusable>,
    /// What else is wrong.
    pub(super) notes: Vec<String>,
    /// What is to be exposed and is not there.
    pub(super) unmatched: Option<Unmatched>,
}

/// A tool that a service has.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Offer {
    /// What the service calls it.
    pub(super) remote: String,
    pub(super) definition: Definition,
    /// What the service says of it, if it does.
    pub(super) timeout: Option<Duration>,
    pub(super) idempotent: bool,
    /// Of a method: what it takes and gives.
    pub(super) shape: Option<Shape>,
}

/// A tool that is left out, or something else that is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Unusable {
    pub(super) what: String,
    pub(super) why: String,
}

/// How to ask one service.
pub(super) struct Source {
    upstream: Arc<Upstream>,
    wanted: Wanted,
}

/// What may become a tool.
#[derive(Clone)]
pub(super) struct Wanted {
    service: config::Service,
    /// Those that have a section of their own, as the service calls them.
    remotes: Vec<String>,
}

impl Wanted {
    /// Of the service of that name.
    pub(super) fn new(
        name: &str,
        service: &config::Service,
        tools: &BTreeMap<ToolName, config::Tool>,
    ) -> Self {
        let remotes = tools.iter().filter(|(_, tool)| tool.service == name);
        Self {
            service: service.clone(),
            remotes: remotes
                .map(|(name, tool)| tool.remote(name).to_owned())
                .collect(),
        }
    }

    /// What is in its file of descriptors, if it has one.
    ///
    /// # Errors
    /// If that can't be read, or is none.
    pub(super) fn of_file(&self) -> Option<Result<Told, String>> {
        match (self.service.protocol, &self.service.descriptors) {
            (Protocol::Grpc, Descriptors::File(path)) => Some(methods::of_file(path, self)),
            _ => None,
        }
    }

    /// Whether this method may.
    fn wants(&self, method: &str) -> bool {
        let is_in = |patterns: &[Pattern]| patterns.iter().any(|it| it.matches(method));
        let exposed = is_in(&self.service.expose) && !is_in(&self.service.hide);
        exposed || self.remotes.iter().any(|it| it == method)
    }

    /// Whether a method of this gRPC service may.
    fn wants_of(&self, service: &str) -> bool {
        let beginning = format!("{service}/");
        let mut patterns = self.service.expose.iter();
        patterns.any(|it| it.may_begin_with(&beginning))
    }

    /// The gRPC services that are known without asking.
    fn named_services(&self) -> Vec<String> {
        let services = self.remotes.iter().filter_map(|it| it.split_once('/'));
        services.map(|(service, _)| service.to_owned()).collect()
    }
}

impl Source {
    /// The service behind `upstream`, of which that is `wanted`.
    pub(super) fn new(upstream: Arc<Upstream>, wanted: Wanted) -> Self {
        Self { upstream, wanted }
    }

    /// What the service has now.
    ///
    /// # Errors
    /// If it can't be asked, or answers with nonsense: what is wrong.
    pub(super) async fn ask(&self) -> Result<Told, String> {
        let wanted = self.wanted.clone();
        match (wanted.service.protocol, &wanted.service.descriptors) {
            (Protocol::Fanfare, _) => {
                let mut told = fanfare::ask(&self.upstream).await?;
                off_the_runtime(move || {
                    let usable = told.offers.iter().map(|it| it.remote.as_str());
                    let unusable = told.unusable.iter().map(|it| it.what.as_str());
                    let names: Vec<_> = usable.chain(unusable).collect();
                    told.unmatched = wanted.unmatched(&names, &[]);
                    told
                })
                .await
            }
            (Protocol::Grpc, Descriptors::File(_)) => {
                let read = off_the_runtime(move || wanted.of_file());
                let told = read.await?;
                told.unwrap_or_else(|| Err("it has no file of descriptors".to_owned()))
            }
            (Protocol::Grpc, Descriptors::Reflection) => {
                let named = wanted.named_services();
                let is_wanted = |service: &str| wanted.wants_of(service);
                let found = reflection::ask(&self.upstream, is_wanted, &named).await?;
                off_the_runtime(move || methods::of_reflection(found, &wanted)).await
            }
        }
    }
}

/// Descriptors may be large: reading them takes a moment, in which others go on.
async fn off_the_runtime<T: Send + 'static>(
    read: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    let read = spawn_blocking(read).await;
    read.map_err(|error| format!("it sent what can't be read: {error}"))
}

impl Unusable {
    pub(super) fn new(what: &str, why: impl Into<String>) -> Self {
        Self {
            what: what.to_owned(),
            why: why.into(),
        }
    }
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", shown(&self.what), self.why)
    }
}

/// What a stranger calls something, for the log.
fn shown(name: &str) -> String {
    const MOST: usize = 100;
    let cut = &name[..name.floor_char_boundary(MOST)];
    cut.escape_debug().to_string()
}

fn hash_of(content: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    hasher.finish()
}
