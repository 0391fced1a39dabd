//! Services that are asked which tools they have: by `ToolService/ListTools`, by gRPC's
//! server reflection, or by a file of descriptors. What one of them tells is bounded, and
//! checked as far as that goes without knowing any other: `discovery.rs` decides when they
//! are asked, `builder.rs` makes tools of it.

mod channel;
mod fanfare;
pub(super) mod methods;
mod reflection;
pub(super) mod status;

use std::{
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use tokio::task::spawn_blocking;

use self::methods::Shape;
use super::definition::Definition;
use crate::{
    config::{self, Descriptors, Pattern, Protocol},
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
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Unusable {
    pub(super) what: String,
    pub(super) why: String,
}

/// How to ask one service.
#[derive(Clone)]
pub(super) struct Source {
    upstream: Arc<Upstream>,
    service: config::Service,
    /// Those of its methods that have a section of their own.
    methods: Vec<String>,
}

impl Source {
    /// Of `service`, of which `methods` are tools in any case.
    pub(super) fn new(
        upstream: Arc<Upstream>,
        service: &config::Service,
        methods: Vec<String>,
    ) -> Self {
        Self {
            upstream,
            service: service.clone(),
            methods,
        }
    }

    /// What the service has now.
    ///
    /// # Errors
    /// If it can't be asked, or answers with nonsense: what is wrong.
    pub(super) async fn ask(&self) -> Result<Told, String> {
        match (self.service.protocol, &self.service.descriptors) {
            (Protocol::Fanfare, _) => fanfare::ask(&self.upstream).await,
            (Protocol::Grpc, Descriptors::File(path)) => {
                let (this, path) = (self.clone(), path.clone());
                off_the_runtime(move || methods::of_file(&path, |it| this.wants(it))).await?
            }
            (Protocol::Grpc, Descriptors::Reflection) => {
                let wanted = |service: &str| self.wants_of(service);
                let named = self.named_services();
                let found = reflection::ask(&self.upstream, wanted, &named).await?;
                let this = self.clone();
                off_the_runtime(move || {
                    let reflection::Descriptors {
                        files,
                        pool,
                        problems,
                    } = found;
                    methods::of_files(files, &pool, &problems, |it| this.wants(it))
                })
                .await
            }
        }
    }

    /// Whether this method may become a tool.
    fn wants(&self, method: &str) -> bool {
        let is_in = |patterns: &[Pattern]| patterns.iter().any(|it| it.matches(method));
        let exposed = is_in(&self.service.expose) && !is_in(&self.service.hide);
        exposed || self.methods.iter().any(|it| it == method)
    }

    /// Whether a method of this gRPC service may.
    fn wants_of(&self, service: &str) -> bool {
        let beginning = format!("{service}/");
        let exposed = self.service.expose.iter();
        exposed.clone().any(|it| it.may_begin_with(&beginning))
    }

    /// The gRPC services that are known without asking.
    fn named_services(&self) -> Vec<String> {
        let services = self.methods.iter().filter_map(|it| it.split_once('/'));
        services.map(|(service, _)| service.to_owned()).collect()
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
