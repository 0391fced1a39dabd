//! `[services.NAME]`

use std::time::Duration;

use http::Uri;

use super::{
    breaker::{self, Breaker},
    compression::{Compression, compression},
    endpoint::{endpoint, endpoints},
    kind::{TICK, count, duration, integer, or_auto},
    limits::Limits,
    pattern::{Pattern, patterns},
    reader::Reader,
    retry_budget::{self, RetryBudget},
    section::{self, Entry, Key, Section, section},
    source::{Descriptors, Protocol, check_descriptors, descriptors, prefix, protocol},
    text,
    tls::{self, Tls},
    tool_defaults::{self, ToolDefaults},
};

const MAX_NAME: usize = 64;
const SECOND: Duration = Duration::from_secs(1);
pub(super) const ONLY_GRPC: &str = "only for a service with protocol = \"grpc\"";
/// To one address, unless there are more workers.
const MAX_CONNECTIONS: usize = 16;
/// The other key of `endpoints`.
const ENDPOINT: &str = "endpoint";

section! {
    /// `[services.NAME]`: one remote tool service.
    ///
    /// The name is 1 to 64 of `A-Z a-z 0-9 _ - .`; one with dots is quoted in the file.
    /// Durations are from 1 ms to 24 hours, counts from 1 to 1,000,000.
    pub struct Service {
        /// `endpoint` or `endpoints`, one of them is required. Where it listens:
        /// `http://host:port` or, for TLS, `https://host:port`, with port 80 or 443 if
        /// it names none; several (up to 64) in an array. User names, paths and queries
        /// are refused. Calls are spread over all addresses that all hosts have.
        pub endpoints: Vec<Uri> = Vec::new(), endpoints();

        /// How long opening a connection may take, with TLS and until the service
        /// speaks HTTP/2.
        ///
        /// Default 1 s: enough for one lost packet within a data centre, and short
        /// enough to leave a call time for another attempt.
        pub connect_timeout: Duration = Duration::from_secs(1), duration(TICK);

        /// How long a connection may be quiet before TCP probes the other host and, if
        /// calls are in flight, the service is pinged: at most twice until it sends
        /// something, then every 5 minutes, as gRPC servers close a connection that is
        /// pinged more often (gRFC A8). Doubled each time that one does so all the same.
        ///
        /// Default 90 s: few calls take so long without a sign of life. Lower it to
        /// notice a lost host earlier: probes are cheap, and no server counts them.
        pub keepalive_interval: Duration = Duration::from_secs(90), duration(TICK);

        /// How long probes and such a ping may stay unanswered before the connection is
        /// closed and its calls fail. What is sent must be acknowledged by TCP within
        /// both times together.
        ///
        /// Default 5 s: a busy service still answers within that time.
        pub keepalive_timeout: Duration = Duration::from_secs(5), duration(TICK);

        /// The most connections to one address, of all workers together. Each worker has
        /// connections of its own, and none has a second one before all may have a first;
        /// if there may be fewer than workers, they share them, at some cost.
        ///
        /// Default `"auto"`: 16, or as many as there are workers if that is more. The
        /// 10,000 calls that a process may have in flight are then at most 625 on each,
        /// which gRPC servers can bear.
        pub max_connections_per_address: Option<usize> = None, or_auto(count());

        /// How many calls a connection has before another one is opened. When there are
        /// as many connections as there may be, each gets more calls, up to what the
        /// service itself allows.
        ///
        /// Default 100: what proxies allow, so that calls do not queue there.
        pub max_streams_per_connection: usize = 100, count();

        /// How long a connection may have no calls before it is closed, give or take a
        /// quarter.
        ///
        /// Default 5 min: load balancers forget a connection after 6 minutes or more,
        /// and what is sent on it then is lost.
        pub connection_idle_timeout: Duration = Duration::from_secs(5 * 60), duration(TICK);

        /// How often the host's name is resolved while the service is in use. If that
        /// fails, the last addresses stay.
        ///
        /// Default 10 s: Kubernetes' own name servers let answers be cached for 5 to 30 s.
        pub dns_refresh_interval: Duration = Duration::from_secs(10), duration(TICK);

        /// After how many failures in a row an address is ejected, that is, gets no calls
        /// for a while. A failed dial counts, a lost connection, and a call that times out
        /// while other calls of the tool are answered; an answer of the tool never does. An
        /// address that does not answer a ping within a second is ejected at once.
        ///
        /// Default 5: as Envoy's outlier detection.
        pub eject_after_failures: u32 = 5, count();

        /// How long an address is ejected; then one call tries whether it works again,
        /// earlier if it can be connected to again. Doubled each time that it does not.
        ///
        /// Default 5 s: Envoy's is 30 s, but gives the address its full load again, where
        /// this risks a single call.
        pub ejection_time: Duration = Duration::from_secs(5), duration(TICK);

        /// The longest such time; at least `ejection_time`.
        ///
        /// Default 1 min: an address that works again gets calls after that at the latest.
        pub max_ejection_time: Duration = Duration::from_secs(60), duration(TICK);

        /// How many percent of the addresses may be ejected at a time; 0 to 100.
        ///
        /// Default 50: the others bear twice their load then. If most fail, the reason
        /// is rarely the address.
        pub max_ejected_percent: usize = 50, integer(0..=100);

        /// How requests are compressed; `"none"` or `"gzip"`. A service that does not
        /// understand gzip answers UNIMPLEMENTED. Answers may be compressed with gzip in
        /// any case.
        ///
        /// Default `"none"`: within a data centre compressing takes longer than sending,
        /// and not all services understand it.
        pub compression: Compression = Compression::None, compression();

        /// What it speaks. `"fanfare"`: `fanfare.v1.ToolService`. `"grpc"`: any gRPC
        /// service, whose methods are tools.
        ///
        /// Default `"fanfare"`.
        pub protocol: Protocol = Protocol::Fanfare, protocol();

        /// Where the descriptors of its methods come from: `"reflection"`, that is from
        /// the service itself, or the path of a file with a `FileDescriptorSet`, imports
        /// included. Only with `protocol = "grpc"`.
        ///
        /// Default `"reflection"`: needs no file. Only a file has the comments of the
        /// methods, which describe the tools (`protoc --include_imports
        /// --include_source_info`, or `buf build`); it is read again when it changes.
        pub descriptors: Descriptors = Descriptors::Reflection, descriptors();

        /// Which of what it has become tools, by the names that it has for them: tools of
        /// its `ToolService/ListTools`, or methods such as `"acme.Books/GetBook"`. `*`
        /// stands for any characters. At most 256 patterns, and 5000 tools.
        ///
        /// Default `[]`: only those that have a `[tools.NAME]`.
        pub expose: Vec<Pattern> = Vec::new(), patterns();

        /// Which of those do not, after all. Only with `expose`.
        ///
        /// Default `[]`.
        pub hide: Vec<Pattern> = Vec::new(), patterns();

        /// What the names of these tools begin with; then comes the name that the service
        /// has, of a method in `snake_case`. Only with `expose`.
        ///
        /// Default `""`.
        pub prefix: String = String::new(), prefix();

        /// How often it is asked what it has, give or take a tenth; 1 s to 24 hours. Also
        /// when it no longer knows a method. Only with `expose` or `protocol = "grpc"`.
        ///
        /// Default 5 min: what is deployed is seen soon, and the service is asked rarely.
        pub refresh_interval: Duration = Duration::from_secs(5 * 60), duration(SECOND);
    }
    beside {
        /// `[services.NAME.tls]`: how `https` endpoints are secured; `None` for the
        /// defaults, or if there are none.
        pub tls: Option<Tls> = None;
        /// `[services.NAME.breaker]`: when calls to it, or to one of its tools, stop.
        pub breaker: Breaker = Breaker::default();
        /// `[services.NAME.retry_budget]`: how many attempts it gets beyond its calls.
        pub retry_budget: RetryBudget = RetryBudget::default();
        /// `[services.NAME.tool_defaults]`: how its tools without a section of their own
        /// are called; `None` if there are none.
        pub tool_defaults: Option<ToolDefaults> = None;
    }
}

impl Service {
    /// A service at `endpoint`, with the defaults.
    pub fn new(endpoint: Uri) -> Self {
        Self {
            endpoints: vec![endpoint],
            ..Self::defaults()
        }
    }

    /// Whether it is asked which tools it has.
    pub fn is_source(&self) -> bool {
        !self.expose.is_empty() || self.protocol == Protocol::Grpc
    }
}

/// What `max_connections_per_address` is, as it was set, if there are so many workers.
pub(crate) fn max_connections_per_address(set: Option<usize>, workers: usize) -> usize {
    set.unwrap_or_else(|| MAX_CONNECTIONS.max(workers))
}

pub(super) fn read(table: &mut Reader<'_, '_>, limits: &Limits) -> Service {
    let mut s = Service::defaults();
    s.read_keys(table);
    table.read(ENDPOINT, &endpoint(), &mut s.endpoints);
    table.exactly_one(ENDPOINT, "endpoints");
    table.keep_ascending(
        ("ejection_time", s.ejection_time),
        ("max_ejection_time", &mut s.max_ejection_time),
    );
    s.tls = table.optional_table("tls", tls::read).flatten();
    let is_plain = |uri: &Uri| uri.scheme_str() == Some("http");
    if s.endpoints.iter().all(is_plain) {
        table.refuse("tls", "no endpoint is an https:// one");
    }
    s.breaker = table.table("breaker", |table| breaker::read(table, Breaker::default()));
    s.retry_budget = table.table("retry_budget", retry_budget::read);
    let is_fanfare = s.protocol == Protocol::Fanfare && !table.is_mistaken("protocol");
    if is_fanfare {
        table.refuse("descriptors", ONLY_GRPC);
    }
    check_descriptors(table, &s.descriptors);
    s.tool_defaults = table.optional_table("tool_defaults", |table| {
        let defaults = tool_defaults::read(table, limits);
        if is_fanfare {
            table.refuse("stream", ONLY_GRPC);
        }
        defaults
    });
    if s.expose.is_empty() && !table.is_mistaken("expose") {
        for key in ["hide", "prefix", "tool_defaults"] {
            table.refuse(key, "only for a service with `expose`");
        }
        if is_fanfare {
            table.refuse(
                "refresh_interval",
                "only for a service with `expose` or protocol = \"grpc\"",
            );
        }
    } else {
        let defaults = s.tool_defaults.take();
        s.tool_defaults = Some(defaults.unwrap_or_else(|| ToolDefaults::of(limits)));
    }
    s
}

pub(super) fn name(name: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if (1..=MAX_NAME).contains(&name.len()) && name.chars().all(allowed) {
        return Ok(name.to_owned());
    }
    Err(format!(
        "expected a name of 1 to {MAX_NAME} of A-Z a-z 0-9 _ - ., got {name:?}"
    ))
}

/// The table of the service and those inside of it, as TOML.
pub(super) fn write(name: &str, service: &Service) -> Vec<String> {
    let header = format!("services.{}", text::key(name));
    let mut tables = vec![section::write(&header, &entries(service))];
    let mut inside = |name: &str, entries: Vec<Entry>| {
        tables.push(section::write(&format!("{header}.{name}"), &entries));
    };
    if let Some(tls) = &service.tls {
        inside("tls", tls::entries(tls));
    }
    inside("breaker", service.breaker.entries());
    inside("retry_budget", service.retry_budget.entries());
    if let Some(defaults) = &service.tool_defaults {
        tables.extend(tool_defaults::write(
            &format!("{header}.tool_defaults"),
            defaults,
        ));
    }
    tables
}

fn entries(service: &Service) -> Vec<Entry> {
    let mut entries = service.entries();
    if service.endpoints.len() == 1 {
        entries[0] = (
            ENDPOINT,
            (endpoint().write)(&service.endpoints).unwrap_or_default(),
        );
    }
    let (is_grpc, exposes) = (
        service.protocol == Protocol::Grpc,
        !service.expose.is_empty(),
    );
    entries.retain(|(key, _)| match *key {
        "descriptors" => is_grpc,
        "hide" | "prefix" => exposes,
        "refresh_interval" => service.is_source(),
        _ => true,
    });
    entries
}

pub(super) fn keys() -> Vec<Key> {
    let mut keys = Service::keys();
    keys[0].required = true;
    keys[0].default = None;
    let one = Key {
        name: ENDPOINT,
        form: endpoint().form,
        ..keys[0].clone()
    };
    keys.insert(0, one);
    keys
}
