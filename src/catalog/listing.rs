//! What there is to say of the tools of a catalogue: made once, as it is asked for far more
//! often than it changes.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use ring::digest::{Context, SHA256};

use super::{
    BreakerState, Catalog, Connectivity, Entry, alias,
    definition::Definition,
    formats::{self, Format, Subject},
};
use crate::core::call::ToolName;

/// How much of the hash identifies a generation, in bytes.
const GENERATION_BYTES: usize = 16;

/// What does not depend on what a process observes.
#[derive(Debug)]
pub(super) struct Listing {
    /// In the order of their names.
    tools: Vec<Described>,
    /// The names of tools with another alias, by that.
    by_alias: BTreeMap<String, ToolName>,
    generation: OnceLock<String>,
}

#[derive(Debug)]
struct Described {
    name: ToolName,
    alias: String,
    definition: Arc<Definition>,
    input_schema: Option<Bytes>,
    output_schema: Option<Bytes>,
    /// By format, each once it was asked for.
    definitions: [OnceLock<Bytes>; Format::COUNT],
}

/// Which tools are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The one of this name or alias.
    One(String),
    /// Those whose names begin like this.
    Beginning(String),
}

/// A tool, for those who list them.
#[derive(Clone, Copy, Debug)]
pub struct Listed<'a> {
    /// What it is called by.
    pub name: &'a ToolName,
    /// What it is called by where its name is refused.
    pub alias: &'a str,
    /// What it is.
    pub definition: &'a Definition,
    /// The schema of its arguments, as an encoded `google.protobuf.Struct`.
    pub input_schema: Option<&'a Bytes>,
    /// That of its observations.
    pub output_schema: Option<&'a Bytes>,
    /// The service that runs it, if one does.
    pub service: Option<&'a str>,
    /// The longest that a call may take.
    pub timeout: Duration,
    /// Whether calling twice does no more than calling once.
    pub idempotent: bool,
    /// Of its circuit breaker or that of its service, the worse; `None` if it has
    /// none.
    pub breaker_state: Option<BreakerState>,
    /// Whether its service can be reached; `None` if it has none.
    pub connectivity: Option<Connectivity>,
    described: &'a Described,
}

impl Listed<'_> {
    /// Its definition in that format, as an encoded `google.protobuf.Struct`.
    pub fn definition_as(&self, format: Format) -> Bytes {
        let make = || {
            let subject = Subject {
                name: self.name.as_str(),
                alias: self.alias,
                definition: self.definition,
                idempotent: self.idempotent,
            };
            formats::encoded(format, subject)
        };
        self.described.definitions[format as usize]
            .get_or_init(make)
            .clone()
    }
}

impl Catalog {
    /// All tools, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = Listed<'_>> {
        let described = self.listing().tools.iter();
        described.zip(self.tools.values()).map(listed)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.tools.len()
    }

    /// Those of them that are wanted: each once, sorted by name.
    pub fn select<'a>(&'a self, wanted: &[Wanted]) -> Vec<Listed<'a>> {
        let listing = self.listing();
        let mut places = Vec::new();
        for wanted in wanted {
            match wanted {
                Wanted::One(name) => places.extend(listing.find(name)),
                Wanted::Beginning(beginning) => {
                    let after = |tool: &Described| tool.name.as_str() < beginning.as_str();
                    let first = listing.tools.partition_point(after);
                    let begins = |tool: &&Described| tool.name.as_str().starts_with(beginning);
                    let count = listing.tools[first..].iter().take_while(begins).count();
                    places.extend(first..first + count);
                }
            }
        }
        places.sort_unstable();
        places.dedup();
        let find = |place: usize| {
            let described = &listing.tools[place];
            Some(listed((described, self.tools.get(&described.name)?)))
        };
        places.into_iter().filter_map(find).collect()
    }

    /// Identifies what the tools are: the same wherever and whenever they are the same.
    pub fn generation(&self) -> &str {
        let listing = self.listing();
        let identify = || {
            let mut identity = Identity::new();
            for (described, entry) in listing.tools.iter().zip(self.tools.values()) {
                identity.add(described, entry);
            }
            identity.finish()
        };
        listing.generation.get_or_init(identify)
    }

    /// Makes what there is to say of the tools, so that no request has to wait for it.
    pub fn describe(&self) {
        // A tool that panics when it is asked spoils the answers for which it is.
        let _ = catch_unwind(AssertUnwindSafe(|| self.generation().len()));
    }

    /// The tool of that alias.
    pub(super) fn by_alias(&self, alias: &str) -> Option<&Entry> {
        self.tools.get(self.listing().by_alias.get(alias)?)
    }

    fn listing(&self) -> &Listing {
        self.listing.get_or_init(|| Listing::of(&self.tools))
    }
}

impl Listing {
    fn of(tools: &BTreeMap<ToolName, Entry>) -> Self {
        let aliases = alias::aliases(tools.keys());
        let describe = |((name, entry), alias): ((&ToolName, &Entry), String)| {
            let definition = Arc::clone(&entry.definition);
            Described {
                name: name.clone(),
                alias,
                input_schema: definition
                    .input_schema
                    .as_deref()
                    .map(formats::encoded_schema),
                output_schema: definition
                    .output_schema
                    .as_deref()
                    .map(formats::encoded_schema),
                definition,
                definitions: Default::default(),
            }
        };
        let tools: Vec<_> = tools.iter().zip(aliases).map(describe).collect();
        let named = tools.iter().map(|tool| (&tool.name, tool.alias.as_str()));
        Self {
            by_alias: alias::by_alias(named),
            generation: OnceLock::new(),
            tools,
        }
    }

    /// Where the tool of this name or alias is.
    fn find(&self, name: &str) -> Option<usize> {
        let place = |name: &str| {
            let order = |tool: &Described| tool.name.as_str().cmp(name);
            self.tools.binary_search_by(order).ok()
        };
        place(name).or_else(|| place(self.by_alias.get(name)?.as_str()))
    }
}

/// The hash of what tools are. Everything that varies in length is hashed with its length:
/// two lists that differ are never the same bytes.
struct Identity(Context);

impl Identity {
    fn new() -> Self {
        Self(Context::new(&SHA256))
    }

    fn add(&mut self, described: &Described, entry: &Entry) {
        let Definition {
            title,
            description,
            input_schema: _,
            output_schema: _,
            read_only,
            destructive,
        } = &*described.definition;
        let service = entry.remote.as_ref().map(|remote| &*remote.service);
        self.text(Some(described.name.as_str().as_bytes()));
        self.text(service.map(str::as_bytes));
        self.text(Some(title.as_bytes()));
        self.text(Some(description.as_bytes()));
        self.text(described.input_schema.as_deref());
        self.text(described.output_schema.as_deref());
        let flags = [*read_only, *destructive, entry.tool.idempotent()];
        self.0.update(&flags.map(u8::from));
        let timeout = entry.tool.timeout().as_nanos();
        self.0.update(&timeout.to_be_bytes());
    }

    fn text(&mut self, text: Option<&[u8]>) {
        let length = text.map_or(u64::MAX, |text| text.len() as u64);
        self.0.update(&length.to_be_bytes());
        self.0.update(text.unwrap_or_default());
    }

    fn finish(self) -> String {
        let hash = self.0.finish();
        let bytes = hash.as_ref().iter().take(GENERATION_BYTES);
        bytes.map(|byte| format!("{byte:02x}")).collect()
    }
}

fn listed<'a>((described, entry): (&'a Described, &'a Entry)) -> Listed<'a> {
    let remote = entry.remote.as_ref();
    Listed {
        name: &described.name,
        alias: &described.alias,
        definition: &described.definition,
        input_schema: described.input_schema.as_ref(),
        output_schema: described.output_schema.as_ref(),
        service: remote.map(|remote| &*remote.service),
        timeout: entry.tool.timeout(),
        idempotent: entry.tool.idempotent(),
        breaker_state: remote.map(|remote| remote.breakers.state()),
        connectivity: remote.map(|remote| remote.upstream.connectivity()),
        described,
    }
}
