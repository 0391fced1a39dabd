//! `[tools.NAME]`

use std::{collections::BTreeMap, time::Duration};

use super::{
    breaker::{self, Breaker},
    hedge::{self, HedgeDelay},
    kind::{TICK, boolean, count, duration, required, text},
    limits::Limits,
    reader::Reader,
    retry::{self, Retry},
    section::{self, Entry, Section, section},
    service::Service,
    text::{self, shown_text},
};
use crate::core::{call::ToolName, suggest::nearest};

section! {
    /// `[tools.NAME]`: a tool that may be called.
    ///
    /// The name is 1 to 128 of `A-Z a-z 0-9 _ - . /`; one with dots or slashes is
    /// quoted in the file: `[tools."files.read"]`.
    pub struct Tool {
        /// Required. The name of the service that runs it.
        pub service: String = String::new(), required(text());

        /// What it does, for those who list the tools. Default: empty.
        pub description: String = String::new(), text();

        /// How long one call of it may take; 1 ms to 24 hours.
        ///
        /// Default 30 s: longer than most tools take, shorter than most people wait.
        pub timeout: Duration = Duration::from_secs(30), duration(TICK);

        /// Whether a second call with the same arguments does no harm. If it might, a
        /// call is never repeated once it may have started.
        ///
        /// Default `false`: the safe answer for a tool about which nobody said
        /// otherwise.
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
}

pub(super) fn read(
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
    let idempotent = t.idempotent || table.is_mistaken("idempotent");
    t.retry = table.table("retry", |table| retry::read(table, idempotent));
    t.hedge = table.optional_table("hedge", |table| hedge::read(table, idempotent));
    let inherited = service.map(|service| service.breaker.clone());
    t.breaker = table.table("breaker", |table| {
        breaker::read(table, inherited.unwrap_or_default())
    });
    t
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
    let mut tables = vec![section::write(&header, &tool.entries())];
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
