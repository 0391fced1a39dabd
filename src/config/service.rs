//! `[services.NAME]`: the settings of a remote tool service, their defaults, and
//! their keys.

use std::time::Duration;

use http::Uri;
use toml::de::DeValue;

use super::{
    compression::{Compression, compression},
    policy::{Breaker, RetryBudget},
    policy_sections::{read_breaker, read_budget},
    reader::Reader,
    scalar::{count, duration, endpoint, endpoints, percent},
    sections::{Entry, TICK, duration_string, set, string},
    tls::{self, Tls},
};

/// `[services.NAME]`: one remote tool service.
///
/// The name is 1 to 64 of `A-Z a-z 0-9 _ - .`; one with dots is quoted in the file.
/// Durations are from 1 ms to 24 hours, counts from 1 to 1,000,000.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// `endpoint` or `endpoints`, one of them is required. Where it listens:
    /// `http://host:port` or, for TLS, `https://host:port`, with port 80 or 443 if
    /// it names none; several (up to 64) in an array. User names, paths and queries
    /// are refused. Calls are spread over all addresses that all hosts have.
    pub endpoints: Vec<Uri>,
    /// How long opening a connection may take, with TLS and until the service
    /// speaks HTTP/2.
    ///
    /// Default 1 s: enough for one lost packet within a data centre, and short
    /// enough to leave a call time for another attempt.
    pub connect_timeout: Duration,
    /// How long a connection may be quiet before TCP probes the other host and, if
    /// calls are in flight, the service is pinged: at most twice until it sends
    /// something, then every 5 minutes, as more would make gRPC servers close the
    /// connection (gRFC A8). Doubled each time that one does so all the same.
    ///
    /// Default 90 s: few calls take so long without a sign of life. Lower it to notice
    /// a lost host earlier: probes are cheap, and no server counts them.
    pub keepalive_interval: Duration,
    /// How long probes and such a ping may stay unanswered before the connection is
    /// closed and its calls fail. What is sent must be acknowledged by TCP within
    /// both times together.
    ///
    /// Default 5 s: a busy service still answers within that time.
    pub keepalive_timeout: Duration,
    /// The most connections to one address.
    ///
    /// Default 16: the 10,000 calls that a process may have in flight are then 625
    /// on each, which gRPC servers bear.
    pub max_connections_per_address: usize,
    /// How many calls a connection has before another one is opened. If there are
    /// as many as there may be, it gets more, up to what the service itself allows.
    ///
    /// Default 100: what proxies allow, so that calls do not queue there.
    pub max_streams_per_connection: usize,
    /// How long a connection may have no calls before it is closed, give or take a
    /// quarter.
    ///
    /// Default 5 min: load balancers forget a connection after 6 minutes or more,
    /// and then lose what is sent on it.
    pub connection_idle_timeout: Duration,
    /// How often the addresses of a host's name are asked for while the service is
    /// in use. If there is no answer, the last ones stay.
    ///
    /// Default 10 s: Kubernetes' own name servers let answers be kept for 5 to 30 s.
    pub dns_refresh_interval: Duration,
    /// After how many failures in a row, of connecting, of the connection or by calls
    /// that run out of time while other calls of the tool are answered, an address gets
    /// no more calls for a while; at once if it is asked whether it is there and says
    /// nothing for a second. What the tool answers is no failure.
    ///
    /// Default 5: as Envoy's outlier detection.
    pub eject_after_failures: u32,
    /// For how long; then one call tries whether it works again, earlier if it can be
    /// connected to again. Doubled each time that it does not.
    ///
    /// Default 5 s: Envoy's is 30 s, but returns the address to full load where this
    /// risks a single call.
    pub ejection_time: Duration,
    /// The longest such time; at least `ejection_time`.
    ///
    /// Default 1 min: the longest that an address that works again is left alone.
    pub max_ejection_time: Duration,
    /// How many percent of the addresses may be ejected at a time; 0 to 100.
    ///
    /// Default 50: the others bear twice their load then. If most fail, the reason
    /// is rarely the address.
    pub max_ejected_percent: usize,
    /// How requests are compressed; `"none"` or `"gzip"`. A service that does not
    /// understand gzip answers UNIMPLEMENTED. Answers may be compressed with gzip in
    /// any case.
    ///
    /// Default `"none"`: within a data centre compressing takes longer than sending,
    /// and not all services understand it.
    pub compression: Compression,
    /// `[services.NAME.tls]`: how `https` endpoints are secured; `None` for the
    /// defaults, or if there are none.
    pub tls: Option<Tls>,
    /// `[services.NAME.breaker]`: when it is left alone, and one of its tools is.
    pub breaker: Breaker,
    /// `[services.NAME.retry_budget]`: how much more than its calls it gets.
    pub retry_budget: RetryBudget,
}

impl Service {
    /// A service at `endpoint`, with the defaults.
    pub fn new(endpoint: Uri) -> Self {
        Self {
            endpoints: vec![endpoint],
            connect_timeout: Duration::from_secs(1),
            keepalive_interval: Duration::from_secs(90),
            keepalive_timeout: Duration::from_secs(5),
            max_connections_per_address: 16,
            max_streams_per_connection: 100,
            connection_idle_timeout: Duration::from_secs(5 * 60),
            dns_refresh_interval: Duration::from_secs(10),
            eject_after_failures: 5,
            ejection_time: Duration::from_secs(5),
            max_ejection_time: Duration::from_secs(60),
            max_ejected_percent: 50,
            compression: Compression::None,
            tls: None,
            breaker: Breaker::default(),
            retry_budget: RetryBudget::default(),
        }
    }
}

pub(super) fn read(table: &mut Reader<'_, '_>) -> Service {
    let mut s = Service::new(Uri::default());
    let one = |value: &DeValue<'_>| Ok(vec![endpoint(value)?]);
    table.one_of(
        ("endpoint", one),
        ("endpoints", endpoints),
        &mut s.endpoints,
    );
    set!(table => s {
        connect_timeout: duration(TICK),
        keepalive_interval: duration(TICK),
        keepalive_timeout: duration(TICK),
        max_connections_per_address: count,
        max_streams_per_connection: count,
        connection_idle_timeout: duration(TICK),
        dns_refresh_interval: duration(TICK),
        eject_after_failures: count,
        ejection_time: duration(TICK),
    });
    s.max_ejection_time = s.max_ejection_time.max(s.ejection_time);
    set!(table => s {
        max_ejection_time: duration(TICK),
        max_ejected_percent: percent,
        compression: compression,
    });
    table.check(
        s.max_ejection_time >= s.ejection_time,
        "max_ejection_time",
        "ejection_time",
        format_args!(
            "at least ejection_time ({})",
            humantime::format_duration(s.ejection_time)
        ),
        humantime::format_duration(s.max_ejection_time),
    );
    s.tls = table.optional_table("tls", tls::read).flatten();
    let plain = |uri: &Uri| uri.scheme_str() == Some("http");
    if s.endpoints.iter().all(plain) {
        table.refuse("tls", "no endpoint is an https:// one");
    }
    s.breaker = table.table("breaker", |breaker| {
        read_breaker(breaker, Breaker::default())
    });
    s.retry_budget = table.table("retry_budget", read_budget);
    s
}

pub(super) fn entries(s: &Service) -> Vec<Entry> {
    let endpoints = match s.endpoints.as_slice() {
        [one] => ("endpoint", string(one)),
        several => {
            let several: Vec<_> = several.iter().map(string).collect();
            ("endpoints", format!("[{}]", several.join(", ")))
        }
    };
    vec![
        endpoints,
        ("connect_timeout", duration_string(s.connect_timeout)),
        ("keepalive_interval", duration_string(s.keepalive_interval)),
        ("keepalive_timeout", duration_string(s.keepalive_timeout)),
        (
            "max_connections_per_address",
            s.max_connections_per_address.to_string(),
        ),
        (
            "max_streams_per_connection",
            s.max_streams_per_connection.to_string(),
        ),
        (
            "connection_idle_timeout",
            duration_string(s.connection_idle_timeout),
        ),
        (
            "dns_refresh_interval",
            duration_string(s.dns_refresh_interval),
        ),
        ("eject_after_failures", s.eject_after_failures.to_string()),
        ("ejection_time", duration_string(s.ejection_time)),
        ("max_ejection_time", duration_string(s.max_ejection_time)),
        ("max_ejected_percent", s.max_ejected_percent.to_string()),
        ("compression", string(&s.compression)),
    ]
}
