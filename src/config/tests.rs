//! The file format from outside: what is read, what is refused and how, and
//! that what is written reads back.

mod listeners;
mod policies;
mod services;
mod sources;
mod syntax;

use std::{path::Path, time::Duration};

use proptest::prelude::*;

use super::{Compression, Config, Limits, Server, Service, Tool};
use crate::{core::call::ToolName, mistakes::Mistake};

const SAMPLE: &str = r#"
[server]
listen = "127.0.0.1:50051"
admin_listen = "127.0.0.1:9464"        # /metrics, /healthz, /readyz
[limits]
max_calls_per_request = 256
max_in_flight_calls = 10000            # in this process
max_request_bytes = "4MiB"
max_result_bytes = "1MiB"
max_response_bytes = "4MiB"
reply_margin = "50ms"
[services.weather]
endpoint = "http://weather.tools.svc:50051"
[tools.get_weather]
service = "weather"
description = "Current weather of a city"
timeout = "5s"
idempotent = true
"#;

/// The keys of the mistakes in `text`, in order.
fn mistaken_keys(text: &str) -> Vec<String> {
    let error = Config::parse(text).unwrap_err();
    error
        .mistakes()
        .iter()
        .map(|mistake| mistake.key.clone())
        .collect()
}

/// The problem of the only mistake in `text`.
fn problem(text: &str) -> String {
    let error = Config::parse(text).unwrap_err();
    assert_eq!(error.mistakes().len(), 1, "{error}");
    error.mistakes()[0].problem.clone()
}

/// `text` is refused because of `key` alone.
#[track_caller]
fn assert_refused(text: &str, key: &str) {
    assert!(Config::parse(text).is_err(), "{text}");
    assert_eq!(mistaken_keys(text), [key], "{text}");
}

fn tool_name(name: &str) -> ToolName {
    ToolName::try_new(name.to_owned()).unwrap()
}

#[test]
fn sample_file_is_read() {
    let config = Config::parse(SAMPLE).unwrap();

    assert_eq!(config.server, Server::default());
    assert_eq!(config.limits, Limits::default());
    let endpoint = "http://weather.tools.svc:50051".parse().unwrap();
    assert_eq!(
        config.services,
        [("weather".to_owned(), Service::new(endpoint))].into()
    );
    let tool = Tool {
        description: "Current weather of a city".to_owned(),
        timeout: Duration::from_secs(5),
        idempotent: true,
        ..Tool::new("weather".to_owned())
    };
    assert_eq!(config.tools, [(tool_name("get_weather"), tool)].into());
}

#[test]
fn every_setting_can_be_set() {
    let text = r#"
        [server]
        listen = "[::]:0"
        admin_listen = "off"
        reflection = false
        compression = "gzip"
        max_connections = 2
        max_streams_per_connection = 3
        max_header_list_bytes = "5KiB"
        stream_window_bytes = "64KiB"
        connection_window_bytes = 2147483647
        first_byte_timeout = "1ms"
        receive_timeout = "2ms"
        keepalive_interval = "24h"
        keepalive_timeout = "1m 30s"
        max_connection_age = "1h"
        drain_delay = "6s"
        drain_timeout = "7s"
        slow_call = "8s"
        workers = 4
        [limits]
        max_calls_per_request = 1
        max_in_flight_calls = 1
        concurrency_limit = 9
        max_request_timeout = "1s"
        max_request_bytes = "1000B"
        max_result_bytes = "1000"
        max_response_bytes = 1024
        max_buffered_bytes = "3GiB"
        reply_margin = "0s"
        [services."a.b"]
        endpoint = "http://[::1]"
        [tools."a.b/c"]
        service = "a.b"
    "#;
    let config = Config::parse(text).unwrap();

    let server = Server {
        listen: "[::]:0".parse().unwrap(),
        admin_listen: None,
        reflection: false,
        compression: Compression::Gzip,
        max_connections: 2,
        max_streams_per_connection: 3,
        max_header_list_bytes: 5 << 10,
        stream_window_bytes: 64 << 10,
        connection_window_bytes: (1 << 31) - 1,
        first_byte_timeout: Duration::from_millis(1),
        receive_timeout: Duration::from_millis(2),
        keepalive_interval: Duration::from_secs(86_400),
        keepalive_timeout: Duration::from_secs(90),
        max_connection_age: Duration::from_secs(3600),
        drain_delay: Duration::from_secs(6),
        drain_timeout: Duration::from_secs(7),
        slow_call: Some(Duration::from_secs(8)),
        workers: Some(4),
    };
    assert_eq!(config.server, server);
    let limits = Limits {
        max_calls_per_request: 1,
        max_in_flight_calls: 1,
        concurrency_limit: 9,
        max_request_timeout: Duration::from_secs(1),
        max_request_bytes: 1000,
        max_result_bytes: 1000,
        max_response_bytes: 1024,
        max_buffered_bytes: 3 << 30,
        reply_margin: Duration::ZERO,
    };
    assert_eq!(config.limits, limits);
    let endpoint = "http://[::1]".parse().unwrap();
    assert_eq!(config.services["a.b"], Service::new(endpoint));
    let tool = Tool {
        max_concurrency: 1,
        ..Tool::new("a.b".to_owned())
    };
    assert_eq!(config.tools["a.b/c"], tool);
    assert_eq!(Config::parse(&config.to_toml()), Ok(config));
}

#[test]
fn every_mistake_is_named_in_the_order_of_the_file() {
    let text = r#"
        metrics = 1
        [tools.get_weather]
        service = "wether"
        timeout = 5
        idempotent = "yes"
        [tools."no good"]
        service = "weather"
        [tools.alone]
        [services.weather]
        endpoint = "ftp://weather:50051"
        conect_timeout = "1s"
        [server]
        listen = "localhost"
        drain_timeout = "0s"
        max_connections = 0
        [limits]
        max_request_bytes = "4mib"
        reflection = [true]
    "#;

    let error = Config::parse(text).unwrap_err();

    let expected = r#"2 metrics
        4 tools.get_weather.service
        5 tools.get_weather.timeout
        6 tools.get_weather.idempotent
        7 tools."no good"
        9 tools.alone.service
        11 services.weather.endpoint
        12 services.weather.conect_timeout
        14 server.listen
        15 server.drain_timeout
        16 server.max_connections
        18 limits.max_request_bytes
        19 limits.reflection"#;
    let expected: Vec<_> = expected.lines().map(str::trim_start).collect();
    let named = |m: &Mistake| format!("{} {}", m.position.unwrap().line, m.key);
    let mistakes: Vec<_> = error.mistakes().iter().map(named).collect();
    assert_eq!(mistakes, expected);
    assert_eq!(error.to_string().lines().count(), 13);
}

#[test]
fn a_mistake_tells_the_value_and_what_was_expected() {
    assert_eq!(
        problem("[server]\ndrain_timeout = 5"),
        "expected a duration such as \"250ms\" or \"1m 30s\", from 1ms to 24h, got the integer 5"
    );
    assert_eq!(
        problem("[server]\nreflecton = true"),
        "unknown key, did you mean `reflection`?"
    );
    assert_eq!(
        problem("x = 1"),
        "unknown key, known here are limits, server, services, tools"
    );
    let error = Config::parse("[limits]\n  max_calls_per_request = -1").unwrap_err();
    assert_eq!(
        error.to_string(),
        "line 2, column 3: limits.max_calls_per_request: \
         expected an integer from 1 to 1000000, got the integer -1"
    );
    let unquoted = "[services.a]\nendpoint = 'http://a'\n[services.a.b]";
    assert!(problem(unquoted).ends_with("a name with dots needs quotes"));
}

#[test]
fn a_value_of_another_type_is_a_mistake() {
    for section in ["server", "limits", "services", "tools"] {
        for value in ["1", "\"x\"", "[]", "[{}]", "1.5", "true", "1979-05-27"] {
            assert_refused(&format!("{section} = {value}"), section);
        }
    }
    assert_refused("[services]\na = 1", "services.a");
    assert_refused("[tools]\na = 1", "tools.a");
    for value in ["1", "1.5", "[]", "{}", "07:32:00"] {
        assert_refused(&format!("[server]\nlisten = {value}"), "server.listen");
        let text = format!("[server]\ndrain_delay = {value}");
        assert_refused(&text, "server.drain_delay");
    }
    for value in ["\"1\"", "1.0", "[]", "{}", "99999999999999999999"] {
        let text = format!("[server]\nmax_connections = {value}");
        assert_refused(&text, "server.max_connections");
    }
}

#[test]
fn ranges_end_where_documented() {
    // A key, two values that are in its range and two that are not.
    let cases = r#"server max_connections 1 1000000 0 1000001
        server max_header_list_bytes 4096 "1MiB" 4095 "1048577B"
        server stream_window_bytes "64KiB" 0x7fff_ffff 65535 "2GiB"
        server first_byte_timeout "1ms" "24h" "999us" "24h1ns"
        server receive_timeout "1ms" "24h" "999us" "24h1ns"
        server drain_delay "0s" "1day" "-1s" "2days"
        limits reply_margin "0s" "24h" "" "25h"
        limits max_request_bytes 1 "2147483647" 0 "2GiB""#;
    for case in cases.lines() {
        let [section, key, good @ .., bad_1, bad_2] =
            &case.split_whitespace().collect::<Vec<_>>()[..]
        else {
            panic!("{case}");
        };
        for value in good {
            let text = format!("[{section}]\n{key} = {value}");
            assert!(Config::parse(&text).is_ok(), "{text}");
        }
        for value in [bad_1, bad_2] {
            let text = format!("[{section}]\n{key} = {value}");
            assert_refused(&text, &format!("{section}.{key}"));
        }
    }
}

#[test]
fn limits_that_contradict_each_other_are_mistakes() {
    let cases = [
        ("max_in_flight_calls = 255", "limits.max_in_flight_calls"),
        // The default of the other one is too small.
        (
            "max_calls_per_request = 10001\nmax_response_bytes = \"1GiB\"",
            "limits.max_in_flight_calls",
        ),
        ("max_result_bytes = \"5MiB\"", "limits.max_result_bytes"),
        ("max_calls_per_request = 4097", "limits.max_response_bytes"),
        ("max_buffered_bytes = 8388607", "limits.max_buffered_bytes"),
        // Nothing is held against a value that is mistaken itself.
        (
            "max_calls_per_request = 0\nmax_in_flight_calls = 1",
            "limits.max_calls_per_request",
        ),
    ];
    for (keys, key) in cases {
        assert_refused(&format!("[limits]\n{keys}"), key);
    }
}

#[test]
fn concurrency_follows_the_calls_per_request() {
    let config = Config::parse("[limits]\nmax_calls_per_request = 7").unwrap();
    assert_eq!(config.limits.concurrency_limit, 7);
}

#[test]
fn names_are_checked() {
    let service = |name: &str| format!("[services.\"{name}\"]\nendpoint = \"http://a\"");
    let long = "x".repeat(64);
    for good in ["a", "A-1_b.c", &long] {
        assert!(Config::parse(&service(good)).is_ok(), "{good}");
    }
    for bad in ["", "a b", "a/b", "\u{e9}", &format!("{long}x")] {
        assert!(Config::parse(&service(bad)).is_err(), "{bad}");
    }
    let text = service("a") + "\n[tools.\"\"]\nservice = \"a\"";
    assert_refused(&text, "tools.\"\"");
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("absent.toml");
    let error = Config::load(&path).unwrap_err();
    assert!(error.to_string().contains(path.to_str().unwrap()));
    assert_eq!(error.mistakes().len(), 1);

    std::fs::write(&path, SAMPLE).unwrap();
    assert_eq!(Config::load(&path), Config::parse(SAMPLE));
    std::fs::write(&path, b"\xff").unwrap();
    assert!(Config::load(&path).is_err());
    assert!(Config::load(Path::new("")).is_err());
}

fn durations() -> impl Strategy<Value = Duration> {
    (1_000_000..=86_400_000_000_000_u64).prop_map(Duration::from_nanos)
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in any::<String>()) {
        let _ = Config::parse(&text);
    }

    #[test]
    fn settings_read_back(
        description in any::<String>(),
        names in ("[A-Za-z0-9_.-]{1,64}", "[A-Za-z0-9_./-]{1,128}"),
        durations in proptest::array::uniform4(durations()),
        (calls, bytes) in (1..=1000_usize, 1_024_000..=i32::MAX as usize),
        idempotent in any::<bool>(),
    ) {
        let mut service = Service::new("http://host:1".parse().unwrap());
        service.connect_timeout = durations[0];
        let mut tool = Tool::new(names.0.clone());
        tool.description = description;
        tool.timeout = durations[1];
        tool.idempotent = idempotent;
        let mut config = Config {
            server: Server::default(),
            limits: Limits::default(),
            services: [(names.0, service)].into(),
            tools: [(tool_name(&names.1), tool)].into(),
        };
        config.server.drain_timeout = durations[2];
        config.server.reflection = idempotent;
        config.limits.max_calls_per_request = calls;
        config.limits.max_request_timeout = durations[3];
        config.limits.max_response_bytes = bytes;
        config.limits.max_result_bytes = bytes / 2;
        config.limits.max_buffered_bytes = 2 * (bytes + (4 << 20));
        config.server.stream_window_bytes = bytes as u32;
        prop_assert_eq!(Config::parse(&config.to_toml()), Ok(config));
    }
}

#[test]
fn the_defaults_read_back() {
    let defaults = Config::parse("").unwrap();
    assert_eq!(
        (&defaults.server, &defaults.limits),
        (&Server::default(), &Limits::default())
    );
    assert!(defaults.services.is_empty() && defaults.tools.is_empty());
    assert_eq!(Config::parse(&defaults.to_toml()), Ok(defaults));
}
