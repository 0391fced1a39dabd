//! `[tools.NAME]`

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use super::{
    breaker::{self, Breaker},
    hedge::{self, HedgeDelay},
    kind::{TICK, boolean, count, duration, optional, required, text},
    limits::Limits,
    reader::Reader,
    retry::{self, Retry},
    schema_file::{self, InputSchema, path},
    section::{self, Entry, Section, section},
    service::{ONLY_GRPC, Service},
    source::{FromSource, Protocol, Stream, stream},
    text::{self, shown_text},
};
use crate::core::{call::ToolName, suggest::nearest};

/// The longest name that a service has for a tool, in bytes.
const MAX_REMOTE: usize = 512;

section! {
    /// `[tools.NAME]`: a tool that may be called.
    ///
    /// The name is 1 to 128 of `A-Z a-z 0-9 _ - . /`; one with dots or slashes is
    /// quoted in the file: `[tools."files.read"]`.
    pub struct Tool {
        /// Required. The name of the service that runs it.
        pub service: String = String::new(), required(text());

        /// What it does, for those who list the tools. Default: what the service says, if
        /// it is asked.
        pub description: String = String::new(), text();

        /// The name that the service has for it; of a service with `protocol = "grpc"`, a
        /// method such as `"acme.Books/GetBook"`. 1 to 512 characters.
        ///
        /// Default: its own name.
        pub remote: Option<String> = None, optional(text());

        /// The path of a file with the JSON Schema (2020-12) of its arguments, at most
        /// 256 KiB: calls whose arguments do not fit are refused. The file is read with
        /// the configuration.
        ///
        /// Default: the schema that the service tells; without one, any arguments are
        /// sent.
        pub input_schema_file: Option<PathBuf> = None, optional(path());

        /// What is made of the answers of a method that answers with a stream.
        /// `"collect"`: a list of all, once the stream has ended. Only for a service with
        /// `protocol = "grpc"`.
        ///
        /// Default: such a method is no tool.
        pub stream: Option<Stream> = None, optional(stream());

        /// How long one call of it may take; 1 ms to 24 hours.
        ///
        /// Default 30 s: longer than most tools take, shorter than most people wait; or
        /// what the service says of the tool, if it is asked.
        pub timeout: Duration = Duration::from_secs(30), duration(TICK);

        /// Whether a second call with the same arguments does no harm. If it might, a
        /// call is never repeated once it may have started.
        ///
        /// Default `false`: the safe answer for a tool about which nobody said
        /// otherwise, the service included.
        pub idempotent: bool = false, boolean();

        /// The most calls that the tool has at a time. Others wait, and the requests take
        /// turns. A call that was cancelled counts until its stream is reset: for some
        /// milliseconds, or for up to 5 s after many cancellations.
        ///
        /// Default: `max_in_flight_calls`, that is no bound of its own. What a tool can
        /// bear, its operator knows.
        pub max_concurrency: usize = Limits::default().max_in_flight_calls, count();

        /// The most calls that wait; others fail at once with `OVERLOADED`, as do those
        /// whose turn won't come before their deadline.
        ///
        /// Default 1000: several large requests, and a tenth of what may be in
        /// flight, so that a slow tool leaves room for others.
        pub max_queue: usize = 1000, count();
    }
    beside {
        /// `[tools.NAME.retry]`: when a call is sent again.
        pub retry: Retry = Retry::default();
        /// `[tools.NAME.hedge]`: when a second attempt races the first. Default `None`:
        /// never.
        pub hedge: Option<HedgeDelay> = None;
        /// `[tools.NAME.breaker]`: when calls to it stop.
        pub breaker: Breaker = Breaker::default();
        /// What is in the `input_schema_file`.
        pub input_schema: Option<InputSchema> = None;
        /// What the service may decide, as the file does not.
        pub from_source: FromSource = FromSource::default();
    }
}

impl Tool {
    /// A tool that `service` runs, with the defaults.
    pub fn new(service: String) -> Self {
        Self {
            service,
            ..Self::defaults()
        }
    }

    /// One of `service`, of that name, that has no section of its own; `None` if the
    /// service may have no such tools.
    pub fn without_section(name: &str, service: &Service) -> Option<Self> {
        let defaults = service.tool_defaults.as_ref()?;
        Some(Self {
            timeout: defaults.timeout,
            idempotent: defaults.idempotent,
            max_concurrency: defaults.max_concurrency,
            max_queue: defaults.max_queue,
            stream: defaults.stream,
            retry: defaults.retry.clone(),
            hedge: defaults.hedge,
            breaker: service.breaker.clone(),
            from_source: defaults.from_source,
            ..Self::new(name.to_owned())
        })
    }

    /// What the service calls the tool that is `name` here.
    pub fn remote<'a>(&'a self, name: &'a ToolName) -> &'a str {
        self.remote.as_deref().unwrap_or(name.as_str())
    }
}

pub(super) fn read(
    name: &str,
    table: &mut Reader<'_, '_>,
    services: &BTreeMap<String, Service>,
    limits: &Limits,
) -> Tool {
    let mut t = Tool::defaults();
    t.max_concurrency = limits.max_in_flight_calls;
    t.read_keys(table);
    let service = services.get(&t.service);
    if service.is_none() {
        table.refuse("service", unknown_service(&t.service, services));
    }
    // A value that is a mistake itself makes no mistake of others.
    let asked = service.is_some_and(Service::is_source);
    t.from_source = FromSource {
        timeout: asked && !table.has("timeout"),
        idempotent: asked && !table.has("idempotent"),
    };
    check_remote(name, table, &t, service);
    t.input_schema = schema_file::load(table, "input_schema_file", t.input_schema_file.as_deref());
    let idempotent = t.idempotent || table.is_mistaken("idempotent");
    t.retry = table.table("retry", |table| retry::read(table, idempotent));
    t.hedge = table.optional_table("hedge", |table| hedge::read(table, idempotent));
    let inherited = service.map(|service| service.breaker.clone());
    t.breaker = table.table("breaker", |table| {
        breaker::read(table, inherited.unwrap_or_default())
    });
    t
}

/// What the tool is at its service.
fn check_remote(name: &str, table: &mut Reader<'_, '_>, tool: &Tool, service: Option<&Service>) {
    let Some(service) = service else { return };
    if service.protocol == Protocol::Fanfare {
        table.refuse("stream", ONLY_GRPC);
    }
    let remote = tool.remote.as_deref().unwrap_or(name);
    let is_good = match service.protocol {
        Protocol::Fanfare => !table.has("remote") || (1..=MAX_REMOTE).contains(&remote.len()),
        Protocol::Grpc => is_method(remote),
    };
    let expected = match service.protocol {
        Protocol::Fanfare => format!("1 to {MAX_REMOTE} characters"),
        Protocol::Grpc => "a method such as \"acme.Books/GetBook\"".to_owned(),
    };
    table.check(is_good, "remote", "service", expected, shown_text(remote));
}

/// Whether a method may have this name.
fn is_method(name: &str) -> bool {
    let is_name = |name: &str| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_';
        !name.is_empty() && name.chars().all(allowed)
    };
    let Some((service, method)) = name.split_once('/') else {
        return false;
    };
    name.len() <= MAX_REMOTE && service.split('.').all(is_name) && is_name(method)
}

fn unknown_service(name: &str, services: &BTreeMap<String, Service>) -> String {
    let meant = nearest(name, services.keys().map(String::as_str));
    let meant = meant.map(|meant| format!(" (did you mean {meant:?}?)"));
    let (meant, got) = (meant.unwrap_or_default(), shown_text(name));
    format!("expected a service of this file{meant}, got {got}")
}

pub(super) fn name(name: &str) -> Result<ToolName, String> {
    ToolName::try_new(name.to_owned()).map_err(|reason| format!("the tool name {name:?} {reason}"))
}

/// The table of the tool and those inside of it, as TOML.
pub(super) fn write(name: &ToolName, tool: &Tool) -> Vec<String> {
    let header = format!("tools.{}", text::key(name.as_str()));
    let mut entries = tool.entries();
    entries.retain(|(key, _)| !tool.from_source.leaves_out(key));
    let mut tables = vec![section::write(&header, &entries)];
    let mut inside = |name: &str, entries: Vec<Entry>| {
        tables.push(section::write(&format!("{header}.{name}"), &entries));
    };
    inside("retry", retry::entries(&tool.retry, tool.idempotent));
    if let Some(delay) = tool.hedge {
        inside("hedge", hedge::entries(delay));
    }
    inside("breaker", tool.breaker.entries());
    tables
}
