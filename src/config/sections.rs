//! The sections of the file and their keys, once for reading and once for
//! writing. What the settings mean is told in [`config`](super).

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use toml::de::DeValue;

use super::{
    Config, KIB, Limits, Server, Service, Tool,
    compression::compression,
    memory,
    policy_sections::{read_breaker, read_hedge, read_retry, service_sections, tool_sections},
    reader::{Reader, nearest},
    scalar::{
        self, OFF, address, address_or_off, boolean, bytes, count, duration, duration_or_off,
        format_bytes, text,
    },
    service, tls,
};
use crate::core::call::ToolName;

/// The timers' resolution: a shorter duration would come out as this one.
pub(super) const TICK: Duration = Duration::from_millis(1);
/// HTTP/2's largest window, and protobuf's largest message.
const MAX_BYTES: u64 = i32::MAX as u64;
const MIN_WINDOW: u64 = 64 * KIB as u64;
const MIN_HEADERS: u64 = 4 * KIB as u64;
const MAX_HEADERS: u64 = 1024 * KIB as u64;
/// More than machines have.
const MAX_BUFFERED: u64 = 1 << 40;
/// What a result needs without its observation: ids, times, an error message.
const RESULT_OVERHEAD: usize = KIB;
const MAX_SERVICE_NAME: usize = 64;

// === Reading ===

pub(super) fn read(root: &mut Reader<'_, '_>) -> Config {
    let server = root.table("server", read_server);
    let limits = root.table("limits", read_limits);
    let services = root.named("services", service_name, service::read);
    let tools = root.named("tools", tool_name, |tool| {
        read_tool(tool, &services, &limits)
    });
    Config {
        server,
        limits,
        services,
        tools,
    }
}

/// Sets each field from the key of the same name.
macro_rules! set {
    ($table:ident => $into:ident { $($key:ident: $parse:expr,)* }) => {
        $($table.set(stringify!($key), &mut $into.$key, $parse);)*
    };
}
pub(super) use set;

fn read_server(table: &mut Reader<'_, '_>) -> Server {
    let mut s = Server::default();
    let window = bytes(MIN_WINDOW..=MAX_BYTES);
    set!(table => s {
        listen: address,
        admin_listen: address_or_off,
        reflection: boolean,
        compression: compression,
        max_connections: count,
        max_streams_per_connection: count,
        max_header_list_bytes: bytes(MIN_HEADERS..=MAX_HEADERS),
        stream_window_bytes: &window,
        connection_window_bytes: &window,
        first_byte_timeout: duration(TICK),
        receive_timeout: duration(TICK),
        keepalive_interval: duration(TICK),
        keepalive_timeout: duration(TICK),
        max_connection_age: duration(TICK),
        drain_delay: duration(Duration::ZERO),
        drain_timeout: duration(TICK),
        slow_call: duration_or_off,
    });
    let admin = s.admin_listen.unwrap_or(s.listen);
    table.check(
        s.admin_listen.is_none() || !clash(s.listen, admin),
        "admin_listen",
        "listen",
        format_args!("another port than listen ({})", s.listen),
        admin,
    );
    s
}

/// Whether two listeners can't be there at the same time.
fn clash(one: SocketAddr, other: SocketAddr) -> bool {
    let ips = [one.ip(), other.ip()].map(|ip| ip.to_canonical());
    let overlap = match ips {
        // `::` takes what comes by IPv4 as well.
        [IpAddr::V6(Ipv6Addr::UNSPECIFIED), _] | [_, IpAddr::V6(Ipv6Addr::UNSPECIFIED)] => true,
        [IpAddr::V4(one), IpAddr::V4(other)] => {
            one == other || one.is_unspecified() || other.is_unspecified()
        }
        [one, other] => one == other,
    };
    one.port() == other.port() && one.port() != 0 && overlap
}

fn read_limits(table: &mut Reader<'_, '_>) -> Limits {
    let mut l = Limits::default();
    let size = bytes(1..=MAX_BYTES);
    set!(table => l {
        max_calls_per_request: count,
        max_in_flight_calls: count,
    });
    l.concurrency_limit = l.max_calls_per_request;
    set!(table => l {
        concurrency_limit: count,
        max_request_timeout: duration(TICK),
        max_request_bytes: &size,
        max_result_bytes: &size,
        max_response_bytes: &size,
    });
    l.max_buffered_bytes = memory::max_buffered_bytes(&l);
    set!(table => l {
        max_buffered_bytes: bytes(1..=MAX_BUFFERED),
        reply_margin: duration(Duration::ZERO),
    });

    table.check(
        l.max_in_flight_calls >= l.max_calls_per_request,
        "max_in_flight_calls",
        "max_calls_per_request",
        format_args!(
            "at least max_calls_per_request ({})",
            l.max_calls_per_request
        ),
        l.max_in_flight_calls,
    );
    table.check(
        l.max_result_bytes <= l.max_response_bytes,
        "max_result_bytes",
        "max_response_bytes",
        format_args!(
            "at most max_response_bytes ({})",
            format_bytes(l.max_response_bytes)
        ),
        format_bytes(l.max_result_bytes),
    );
    table.check(
        l.max_response_bytes / RESULT_OVERHEAD >= l.max_calls_per_request,
        "max_response_bytes",
        "max_calls_per_request",
        format_args!(
            "at least 1KiB x max_calls_per_request ({}KiB)",
            l.max_calls_per_request
        ),
        format_bytes(l.max_response_bytes),
    );
    let least = l.max_request_bytes + l.max_response_bytes;
    table.check(
        l.max_buffered_bytes >= least,
        "max_buffered_bytes",
        "max_response_bytes",
        format_args!(
            "at least max_request_bytes and max_response_bytes together ({})",
            format_bytes(least)
        ),
        format_bytes(l.max_buffered_bytes),
    );
    l
}

fn read_tool(
    table: &mut Reader<'_, '_>,
    services: &BTreeMap<String, Service>,
    limits: &Limits,
) -> Tool {
    let mut t = Tool::new(String::new());
    t.max_concurrency = limits.max_in_flight_calls;
    let service = |value: &DeValue<'_>| known_service(value, services);
    table.require("service", &mut t.service, service);
    set!(table => t {
        description: text,
        timeout: duration(TICK),
        idempotent: boolean,
        max_concurrency: count,
        max_queue: count,
    });
    // Nothing is held against a value that is mistaken itself.
    let idempotent = t.idempotent || table.is_mistaken("idempotent");
    t.retry = table.table("retry", |retry| read_retry(retry, idempotent));
    let hedge = table.optional_table("hedge", |hedge| read_hedge(hedge, idempotent));
    t.hedge = hedge.flatten();
    let service = services.get(&t.service);
    let inherited = service.map(|service| service.breaker.clone());
    t.breaker = table.table("breaker", |breaker| {
        read_breaker(breaker, inherited.unwrap_or_default())
    });
    t
}

fn known_service(
    value: &DeValue<'_>,
    services: &BTreeMap<String, Service>,
) -> Result<String, String> {
    let name = text(value)?;
    if services.contains_key(&name) {
        return Ok(name);
    }
    Err(match nearest(&name, services.keys().map(String::as_str)) {
        Some(nearest) => format!("a service of this file (did you mean {nearest:?}?)"),
        None => "a service of this file".to_owned(),
    })
}

fn service_name(name: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if (1..=MAX_SERVICE_NAME).contains(&name.len()) && name.chars().all(allowed) {
        return Ok(name.to_owned());
    }
    Err(format!(
        "expected a name of 1 to {MAX_SERVICE_NAME} of A-Z a-z 0-9 _ - ., got {name:?}"
    ))
}

fn tool_name(name: &str) -> Result<ToolName, String> {
    ToolName::try_new(name.to_owned()).map_err(|reason| format!("the tool name {name:?} {reason}"))
}

// === Writing ===

pub(super) fn write(config: &Config) -> String {
    let mut sections = vec![
        section("server", &server_entries(&config.server)),
        section("limits", &limit_entries(&config.limits)),
    ];
    for (name, service) in &config.services {
        let header = format!("services.{}", scalar::key(name));
        sections.push(section(&header, &service::entries(service)));
        if let Some(tls) = &service.tls {
            sections.push(section(&format!("{header}.tls"), &tls::entries(tls)));
        }
        sections.extend(service_sections(&header, service));
    }
    for (name, tool) in &config.tools {
        let header = format!("tools.{}", scalar::key(name.as_str()));
        sections.push(section(&header, &tool_entries(tool)));
        sections.extend(tool_sections(&header, tool));
    }
    sections.join("\n")
}

pub(super) type Entry = (&'static str, String);

fn server_entries(s: &Server) -> [Entry; 17] {
    [
        ("listen", string(&s.listen)),
        ("admin_listen", address_string(s.admin_listen)),
        ("reflection", s.reflection.to_string()),
        ("compression", string(&s.compression)),
        ("max_connections", s.max_connections.to_string()),
        (
            "max_streams_per_connection",
            s.max_streams_per_connection.to_string(),
        ),
        (
            "max_header_list_bytes",
            size_string(s.max_header_list_bytes as usize),
        ),
        (
            "stream_window_bytes",
            size_string(s.stream_window_bytes as usize),
        ),
        (
            "connection_window_bytes",
            size_string(s.connection_window_bytes as usize),
        ),
        ("first_byte_timeout", duration_string(s.first_byte_timeout)),
        ("receive_timeout", duration_string(s.receive_timeout)),
        ("keepalive_interval", duration_string(s.keepalive_interval)),
        ("keepalive_timeout", duration_string(s.keepalive_timeout)),
        ("max_connection_age", duration_string(s.max_connection_age)),
        ("drain_delay", duration_string(s.drain_delay)),
        ("drain_timeout", duration_string(s.drain_timeout)),
        (
            "slow_call",
            s.slow_call.map_or_else(|| string(&OFF), duration_string),
        ),
    ]
}

fn limit_entries(l: &Limits) -> [Entry; 9] {
    [
        ("max_calls_per_request", l.max_calls_per_request.to_string()),
        ("max_in_flight_calls", l.max_in_flight_calls.to_string()),
        ("concurrency_limit", l.concurrency_limit.to_string()),
        (
            "max_request_timeout",
            duration_string(l.max_request_timeout),
        ),
        ("max_request_bytes", size_string(l.max_request_bytes)),
        ("max_result_bytes", size_string(l.max_result_bytes)),
        ("max_response_bytes", size_string(l.max_response_bytes)),
        ("max_buffered_bytes", size_string(l.max_buffered_bytes)),
        ("reply_margin", duration_string(l.reply_margin)),
    ]
}

fn tool_entries(t: &Tool) -> [Entry; 6] {
    [
        ("service", string(&t.service)),
        ("description", string(&t.description)),
        ("timeout", duration_string(t.timeout)),
        ("idempotent", t.idempotent.to_string()),
        ("max_concurrency", t.max_concurrency.to_string()),
        ("max_queue", t.max_queue.to_string()),
    ]
}

pub(super) fn string(value: &(impl ToString + ?Sized)) -> String {
    scalar::quoted(&value.to_string())
}

fn address_string(address: Option<SocketAddr>) -> String {
    address.map_or_else(|| string(&scalar::OFF), |address| string(&address))
}

fn size_string(bytes: usize) -> String {
    string(&format_bytes(bytes))
}

pub(super) fn duration_string(duration: Duration) -> String {
    string(&humantime::format_duration(duration))
}

pub(super) fn section(header: &str, entries: &[Entry]) -> String {
    let mut section = format!("[{header}]\n");
    for (key, value) in entries {
        section.extend([*key, " = ", value, "\n"]);
    }
    section
}
