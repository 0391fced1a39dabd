//! `[services.NAME.tool_defaults]`

use std::time::Duration;

use super::{
    hedge::{self, HedgeDelay},
    kind::{TICK, boolean, count, duration, optional},
    limits::Limits,
    reader::Reader,
    retry::{self, Retry},
    section::{self, Entry, Section, section},
    source::{FromSource, Stream, stream},
};

section! {
    /// `[services.NAME.tool_defaults]`: how tools are called that have no
    /// `[tools.NAME]` of their own.
    ///
    /// Only with `expose`. Their circuit breakers are as in `[services.NAME.breaker]`.
    pub struct ToolDefaults {
        /// How long one call may take; 1 ms to 24 hours.
        ///
        /// Default 30 s, or what the service says of the tool, if that is less than 24
        /// hours.
        pub timeout: Duration = Duration::from_secs(30), duration(TICK);

        /// Whether second calls with the same arguments do no harm, of all these tools.
        ///
        /// Default `false`, or what the service says of the tool: `idempotent` in its
        /// `ListTools`, or the option `idempotency_level` of its method.
        pub idempotent: bool = false, boolean();

        /// The most calls that each tool has at a time, as in `[tools.NAME]`.
        ///
        /// Default: `max_in_flight_calls`, that is no bound of its own.
        pub max_concurrency: usize = Limits::default().max_in_flight_calls, count();

        /// The most calls of each tool that wait, as in `[tools.NAME]`.
        ///
        /// Default 1000: as there.
        pub max_queue: usize = 1000, count();

        /// What is made of the answers of methods that answer with a stream, as in
        /// `[tools.NAME]`; `"collect"`. Only with `protocol = "grpc"`.
        ///
        /// Default: such methods are no tools.
        pub stream: Option<Stream> = None, optional(stream());
    }
    beside {
        /// `[services.NAME.tool_defaults.retry]`: when a call is sent again.
        pub retry: Retry = Retry::default();
        /// `[services.NAME.tool_defaults.hedge]`: when a second attempt races the first.
        /// Default `None`: never.
        pub hedge: Option<HedgeDelay> = None;
        /// What the service may decide, as the file does not.
        pub from_source: FromSource = FromSource::default();
    }
}

impl ToolDefaults {
    /// Those of a file that says nothing of them, of a process with these limits.
    pub fn of(limits: &Limits) -> Self {
        Self {
            max_concurrency: limits.max_in_flight_calls,
            from_source: FromSource {
                timeout: true,
                idempotent: true,
            },
            ..Self::defaults()
        }
    }
}

pub(super) fn read(table: &mut Reader<'_, '_>, limits: &Limits) -> ToolDefaults {
    let mut t = ToolDefaults::of(limits);
    t.read_keys(table);
    t.from_source = FromSource {
        timeout: !table.has("timeout"),
        idempotent: !table.has("idempotent"),
    };
    // A value that is a mistake itself makes no mistake of others.
    let idempotent = t.idempotent || !table.has_good("idempotent");
    t.retry = table.table("retry", |table| retry::read(table, idempotent));
    t.hedge = table.optional_table("hedge", |table| hedge::read(table, idempotent));
    t
}

/// The table and those inside of it, as TOML.
pub(super) fn write(header: &str, defaults: &ToolDefaults) -> Vec<String> {
    let mut entries: Vec<Entry> = defaults.entries();
    entries.retain(|(key, _)| !defaults.from_source.leaves_out(key));
    let mut tables = vec![section::write(header, &entries)];
    let idempotent = defaults.idempotent || defaults.from_source.idempotent;
    let retry = retry::entries(&defaults.retry, idempotent);
    tables.push(section::write(&format!("{header}.retry"), &retry));
    if let Some(delay) = defaults.hedge {
        let hedge = hedge::entries(delay);
        tables.push(section::write(&format!("{header}.hedge"), &hedge));
    }
    tables
}
