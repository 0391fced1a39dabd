//! The configuration file: TOML text becomes a [`Config`] that is right by
//! construction, or a [`ConfigError`] that names every mistake at once.
//!
//! This page holds the settings, their defaults and the reasons for them; those of
//! the tool services are in `config/service.rs`, `config/policy.rs` and
//! `config/tls.rs`. `deploy/config/` is written out of them, doc comments included,
//! by `tests/it/config_files.rs`.
//! Binding, connecting and applying the limits is the business of those who
//! read them.

mod compression;
mod error;
mod memory;
mod policy;
mod policy_sections;
mod reader;
pub(crate) mod scalar;
mod sections;
mod service;
#[cfg(test)]
mod tests;
mod tls;

use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use toml::de::DeTable;

use self::reader::Files;
use crate::core::call::ToolName;

pub use self::{
    compression::Compression,
    error::{ConfigError, Mistake, Place},
    policy::{Breaker, HedgeDelay, Retry, RetryBudget},
    service::Service,
    tls::Tls,
};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// All settings of the service.
///
/// ```
/// use fanfare::config::Config;
///
/// let config = Config::parse(
///     r#"
///     [services.weather]
///     endpoint = "http://weather.tools.svc:50051"
///     [tools.get_weather]
///     service = "weather"
///     timeout = "5s"
///     "#,
/// )?;
/// assert_eq!(config.tools["get_weather"].timeout.as_secs(), 5);
/// assert_eq!(config.limits.max_calls_per_request, 256);
///
/// let error = Config::parse("[limits]\nmax_calls_per_request = 0").unwrap_err();
/// assert_eq!(error.mistakes()[0].key, "limits.max_calls_per_request");
/// # Ok::<(), fanfare::config::ConfigError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// `[server]`: where and how callers connect.
    pub server: Server,
    /// `[limits]`: what one request and this process may use.
    pub limits: Limits,
    /// `[services.NAME]`: the remote tool services.
    pub services: BTreeMap<String, Service>,
    /// `[tools.NAME]`: what may be called. May be empty: then every call is of
    /// an unknown tool.
    pub tools: BTreeMap<ToolName, Tool>,
}

/// `[server]`: where and how callers connect.
///
/// Durations are from 1 ms, the resolution of the timers, to 24 hours unless
/// said otherwise; counts are from 1 to 1,000,000.
#[derive(Clone, Debug, PartialEq)]
pub struct Server {
    /// Where the gRPC services listen; port 0 takes a free one.
    ///
    /// Default `127.0.0.1:50051`: gRPC's customary port, and reachable from
    /// elsewhere only when somebody asks for it.
    pub listen: SocketAddr,
    /// Where `/metrics`, `/healthz` and `/readyz` are served; port 0 takes a free
    /// one; nowhere if it is `"off"` (`None`).
    ///
    /// Default `127.0.0.1:9464`: where OpenTelemetry's Prometheus exporters
    /// listen by default.
    pub admin_listen: Option<SocketAddr>,
    /// Whether the server describes its services to those who ask.
    ///
    /// Default `true`: `grpcurl` then works without the proto files, and these
    /// are no secret.
    pub reflection: bool,
    /// How answers are compressed, for callers that accept it; `"none"` or
    /// `"gzip"`. Requests may be compressed with gzip in any case.
    ///
    /// Default `"none"`: within a data centre compressing takes longer than
    /// sending.
    pub compression: Compression,
    /// The most connections of callers at a time. Another one is closed at once, so that
    /// clients try another address, and `/readyz` says 503. Fewer where `ulimit -n`, which
    /// is raised, leaves too little for tool services and `admin_listen`.
    ///
    /// Default 4096: far more than callers have replicas, and not all memory.
    pub max_connections: usize,
    /// The most RPCs at a time on one connection, which the server announces
    /// as HTTP/2's `SETTINGS_MAX_CONCURRENT_STREAMS`; callers queue the rest.
    ///
    /// Default 1024: tonic's own would be unlimited, so that one caller could
    /// hold any amount of memory; hyper's 200 would make busy callers queue.
    pub max_streams_per_connection: u32,
    /// The most bytes of the headers of one RPC, counted as HTTP/2 does; 4 KiB to
    /// 1 MiB. More are refused with `RESOURCE_EXHAUSTED`; over four times as many
    /// with HTTP's 431; and sixteen times as many end the connection.
    ///
    /// Default 16 KiB: gRPC servers accept 8 to 16 KiB by default.
    pub max_header_list_bytes: u32,
    /// How many bytes of one request may be on their way before the server has
    /// read them; 64 KiB to 2 GiB less one.
    ///
    /// Default 1 MiB: a request of 4 MiB then takes some four round trips, not
    /// the 64 of HTTP/2's own 64 KiB, and a stalled one holds no more than that.
    pub stream_window_bytes: u32,
    /// The same for all requests of one connection together.
    ///
    /// Default 8 MiB: what has come and was not read is not counted yet, so it is
    /// not much. But h2 charges each unread DATA frame under 256 bytes up to 256
    /// bytes against half of this window and closes the connection when it is used
    /// up. 8 MiB let 16,000 small requests be unread, tonic's 1 MiB some 2,000.
    pub connection_window_bytes: u32,
    /// How long a new connection may say nothing before it is closed.
    ///
    /// Default 5 s: a caller speaks in its first packet, and hyper would wait
    /// for ever, even when the server wants to stop.
    pub first_byte_timeout: Duration,
    /// How long a request may take to arrive, from its headers to its last byte,
    /// whatever its deadline says; it ends with `DEADLINE_EXCEEDED`.
    ///
    /// Default 20 s: 4 MiB arrive in that time at 2 Mbit/s, and whoever begins
    /// requests without ever completing them holds memory no longer.
    pub receive_timeout: Duration,
    /// How long a connection may be quiet before the server pings the caller.
    ///
    /// Default 30 s: finds callers that vanished without closing, whose calls
    /// would run on, at next to no traffic.
    pub keepalive_interval: Duration,
    /// How long such a ping may stay unanswered before the connection is closed.
    ///
    /// Default 10 s: longer than a packet that was lost several times takes.
    pub keepalive_timeout: Duration,
    /// How old a connection gets, plus or minus a tenth, before the server asks
    /// the caller to open another. Calls in flight finish.
    ///
    /// Default 30 min: callers spread over new replicas within that time, and
    /// reconnecting costs nothing that seldom.
    pub max_connection_age: Duration,
    /// How long the server still accepts requests after it was asked to stop
    /// and says so in its health; 0 to 24 hours.
    ///
    /// Default 0 s. Where load balancers learn of the end only later, set it to
    /// the time that they need, and `terminationGracePeriodSeconds` higher.
    pub drain_delay: Duration,
    /// How long requests in flight may take to finish after that. A caller that says
    /// nothing loses its connection a second after that was done, or 5 s if it reads no answer.
    ///
    /// Default 25 s: Kubernetes kills 30 s after its SIGTERM by default.
    pub drain_timeout: Duration,
    /// How long a call may take, with waiting and all attempts, before it gets a line
    /// in the log at level `info`; `"off"` (`None`): however long. Failed calls always
    /// have one.
    ///
    /// Default `"off"`: what is slow for one tool is quick for another, and the
    /// metrics tell more of many calls than lines can.
    pub slow_call: Option<Duration>,
}

/// `[limits]`: what one request and this process may use.
///
/// Durations are from 1 ms to 24 hours unless said otherwise, counts from 1 to
/// 1,000,000, sizes of messages from 1 byte to 2 GiB less one, which is the most
/// that protobuf allows.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// The most calls in one request.
    ///
    /// Default 256: an agent picks tens of tools at once, rarely more.
    pub max_calls_per_request: usize,
    /// The most calls in flight in this process, over all requests; beyond it
    /// requests are shed. At least `max_calls_per_request`, or the largest
    /// request would never be accepted.
    ///
    /// Default 10,000: `connection_window_bytes` is enough for them.
    pub max_in_flight_calls: usize,
    /// The most calls of one request that run at a time, where the request asks
    /// for no less; the others wait.
    ///
    /// Default: `max_calls_per_request`, that is all of them. A request shall
    /// take as long as its slowest call.
    pub concurrency_limit: usize,
    /// The longest time that a request gets, whatever its deadline says, and
    /// what one without a deadline gets.
    ///
    /// Default 5 min: longer than agents wait for tools, yet a request that
    /// everybody forgot ends.
    pub max_request_timeout: Duration,
    /// The largest request.
    ///
    /// Default 4 MiB: what gRPC servers accept by default.
    pub max_request_bytes: usize,
    /// The largest observation of one call; a larger one fails that call alone.
    /// At most `max_response_bytes`.
    ///
    /// Default 1 MiB: more than a model reads, and three of that size still fit
    /// into one response.
    pub max_result_bytes: usize,
    /// The largest response, and so all results of a request together. At least
    /// 1 KiB for each of `max_calls_per_request`, which is what a result needs
    /// without its observation; with an id of more than 256 bytes up to 2 KiB.
    ///
    /// Default 4 MiB: what gRPC clients accept by default.
    pub max_response_bytes: usize,
    /// The most bytes that this process holds for its callers and tools, all
    /// together: requests that arrive or run, observations, and answers until the
    /// last byte was handed on. Beyond it requests are shed, and an observation
    /// fails its own call; an observation must leave room for seven more of its
    /// size, or an eighth of all, so that large ones do not keep small ones out. A
    /// request counts 8 KiB by itself, and each call 2 KiB. At least
    /// `max_request_bytes` and `max_response_bytes` together, or the largest request
    /// could not be answered.
    ///
    /// Default 256 MiB: 60 times the largest request; or three quarters of the
    /// memory limit of the process's cgroup less 64 MiB, if that is smaller: the
    /// rest is for connections, calls and code.
    pub max_buffered_bytes: usize,
    /// How long before the caller's deadline the server stops waiting for
    /// tools, so that the answer still arrives; 0 to 24 hours, and never more
    /// than a tenth of the time that remains.
    ///
    /// Default 50 ms: more than it takes to send a response of 4 MiB within a
    /// data centre.
    pub reply_margin: Duration,
}

/// `[tools.NAME]`: a tool that may be called.
///
/// The name is 1 to 128 of `A-Z a-z 0-9 _ - . /`; one with dots or slashes is
/// quoted in the file: `[tools."files.read"]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Tool {
    /// Required. The name of the service that runs it.
    pub service: String,
    /// What it does, for those who list the tools. Default: empty.
    pub description: String,
    /// How long one call of it may take; 1 ms to 24 hours.
    ///
    /// Default 30 s: longer than most tools take, shorter than most people wait.
    pub timeout: Duration,
    /// Whether a second call with the same arguments does no harm. If not, a
    /// call is never repeated once it may have started.
    ///
    /// Default `false`: the safe answer for a tool about which nobody said
    /// otherwise.
    pub idempotent: bool,
    /// The most calls with the tool at a time; others wait for a turn, and each
    /// request gets one in its turn. One that was cancelled is with the tool until
    /// its stream is reset: some milliseconds, or up to 5 s after many cancels.
    ///
    /// Default: `max_in_flight_calls`, that is no bound of its own. What a tool
    /// bears, its operator knows.
    pub max_concurrency: usize,
    /// The most calls that wait for a turn; others fail at once with
    /// `OVERLOADED`, as do those whose turn won't come before their deadline.
    ///
    /// Default 1000: several large requests, and a tenth of what may be in
    /// flight, so that a slow tool leaves room for others.
    pub max_queue: usize,
    /// `[tools.NAME.retry]`: when a call is sent again.
    pub retry: Retry,
    /// `[tools.NAME.hedge]`: when a second attempt races the first. Default `None`:
    /// never.
    pub hedge: Option<HedgeDelay>,
    /// `[tools.NAME.breaker]`: when it is left alone.
    pub breaker: Breaker,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 50051)),
            admin_listen: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 9464))),
            reflection: true,
            compression: Compression::None,
            max_connections: 4096,
            max_streams_per_connection: 1024,
            max_header_list_bytes: 16 * KIB as u32,
            stream_window_bytes: MIB as u32,
            connection_window_bytes: 8 * MIB as u32,
            first_byte_timeout: Duration::from_secs(5),
            receive_timeout: Duration::from_secs(20),
            keepalive_interval: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(10),
            max_connection_age: Duration::from_secs(30 * 60),
            drain_delay: Duration::ZERO,
            drain_timeout: Duration::from_secs(25),
            slow_call: None,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_calls_per_request: 256,
            max_in_flight_calls: 10_000,
            concurrency_limit: 256,
            max_request_timeout: Duration::from_secs(5 * 60),
            max_request_bytes: 4 * MIB,
            max_result_bytes: MIB,
            max_response_bytes: 4 * MIB,
            max_buffered_bytes: 256 * MIB,
            reply_margin: Duration::from_millis(50),
        }
    }
}

impl Tool {
    /// A tool that `service` runs, with the defaults.
    pub fn new(service: String) -> Self {
        Self {
            service,
            description: String::new(),
            timeout: Duration::from_secs(30),
            idempotent: false,
            max_concurrency: Limits::default().max_in_flight_calls,
            max_queue: 1000,
            retry: Retry::default(),
            hedge: None,
            breaker: Breaker::default(),
        }
    }
}

impl Config {
    /// Reads settings from TOML text. An empty text is a service with the
    /// defaults and without tools.
    ///
    /// # Errors
    /// Every mistake in the text, in its order; or, if it is no TOML, the
    /// syntax errors alone.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        Ok(Self::read(text, Files::Read)?.0)
    }

    /// As [`Config::parse`], on another machine than the one that it is for: files
    /// that settings name are not read. Also gives these settings, each with its
    /// path, such as `services.weather.tls.ca_file: /tls/ca.crt`.
    ///
    /// # Errors
    /// As [`Config::parse`].
    pub fn parse_offline(text: &str) -> Result<(Self, Vec<String>), ConfigError> {
        Self::read(text, Files::Elsewhere)
    }

    fn read(text: &str, files: Files) -> Result<(Self, Vec<String>), ConfigError> {
        let (root, syntax_errors) = DeTable::parse_recoverable(text);
        if !syntax_errors.is_empty() {
            return Err(ConfigError::syntax(text, &syntax_errors));
        }
        reader::read(text, root.into_inner(), files, sections::read)
    }

    /// Reads settings from a file.
    ///
    /// # Errors
    /// If the file can't be read, a single mistake that names its path; else as
    /// [`Config::parse`].
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        match fs::read_to_string(path) {
            Ok(text) => Self::parse(&text),
            Err(error) => Err(ConfigError::unreadable(path, &error)),
        }
    }

    /// All settings, with those that were left to their defaults, as TOML that
    /// [`Config::parse`] reads back to an equal value.
    pub fn to_toml(&self) -> String {
        sections::write(self)
    }
}
