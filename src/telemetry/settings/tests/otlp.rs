//! How a collector is reached.

use std::time::Duration;

use super::{good, mistaken};
use crate::telemetry::settings::Protocol;

#[test]
fn an_endpoint_without_a_scheme_is_secure_unless_told_otherwise() {
    let cases = [
        ("http://a:1", "false", "http://a:1/"),
        ("https://a:1", "true", "https://a:1/"),
        ("https://a", "", "https://a/"),
        ("a:1", "", "https://a:1/"),
        ("a:1", "false", "https://a:1/"),
        ("a:1", "TRUE", "http://a:1/"),
        ("[::1]:4317", "true", "http://[::1]:4317/"),
        ("localhost", "true", "http://localhost/"),
    ];
    for (endpoint, insecure, expected) in cases {
        let settings = good(&format!(
            "OTEL_EXPORTER_OTLP_ENDPOINT={endpoint}\nOTEL_EXPORTER_OTLP_INSECURE={insecure}"
        ));
        let otlp = settings.traces.unwrap().otlp;
        assert_eq!(otlp.endpoint.to_string(), expected);
        assert_eq!(otlp.tls.is_some(), expected.starts_with("https"));
    }
}

#[test]
fn certificates_are_read_and_checked() {
    good(
        "OTEL_EXPORTER_OTLP_ENDPOINT=https://a:1
         OTEL_EXPORTER_OTLP_CERTIFICATE=TLS/authority.pem
         OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE=TLS/client.pem
         OTEL_EXPORTER_OTLP_CLIENT_KEY=TLS/client.key",
    );
    let (authority, certificate, key) = ("CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY");
    let cases = [
        ("https://a", "nowhere", "", "", authority),
        ("https://a", "TLS/", "", "", authority),
        ("https://a", "TLS/client.key", "", "", authority),
        ("https://a", "TLS/../mod.rs", "", "", authority),
        ("https://a", "", "TLS/client.pem", "", certificate),
        ("https://a", "", "", "TLS/client.key", key),
        ("https://a", "", "nowhere", "TLS/client.key", certificate),
        ("https://a", "", "TLS/client.pem", "nowhere", key),
        ("https://a", "", "TLS/client.pem", "TLS/client.pem", key),
        ("https://a", "", "TLS/client.pem", "TLS/server.key", key),
    ];
    for (endpoint, a, c, k, expected) in cases {
        let found = mistaken(&format!(
            "OTEL_EXPORTER_OTLP_ENDPOINT={endpoint}\nOTEL_EXPORTER_OTLP_CERTIFICATE={a}\n\
             OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE={c}\nOTEL_EXPORTER_OTLP_CLIENT_KEY={k}"
        ));
        assert_eq!(
            found,
            format!("OTEL_EXPORTER_OTLP_{expected}"),
            "{a} {c} {k}"
        );
    }
}

#[test]
fn http_has_paths() {
    let cases = [
        (
            "",
            "",
            "http://localhost:4318/v1/traces",
            "http://localhost:4318/v1/metrics",
        ),
        (
            "http://a:1",
            "",
            "http://a:1/v1/traces",
            "http://a:1/v1/metrics",
        ),
        (
            "http://a:1/",
            "",
            "http://a:1/v1/traces",
            "http://a:1/v1/metrics",
        ),
        (
            "https://a/otlp/",
            "",
            "https://a/otlp/v1/traces",
            "https://a/otlp/v1/metrics",
        ),
        (
            "http://a/x?key=1",
            "",
            "http://a/x/v1/traces?key=1",
            "http://a/x/v1/metrics?key=1",
        ),
        (
            "http://a:1",
            "http://b:2",
            "http://b:2/",
            "http://a:1/v1/metrics",
        ),
        (
            "http://a:1",
            "http://b/x/",
            "http://b/x/",
            "http://a:1/v1/metrics",
        ),
        ("a:1", "", "https://a:1/v1/traces", "https://a:1/v1/metrics"),
    ];
    for (base, traces, expected_traces, expected_metrics) in cases {
        let settings = good(&format!(
            "OTEL_TRACES_EXPORTER=otlp\nOTEL_METRICS_EXPORTER=otlp\n\
             OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf\nOTEL_EXPORTER_OTLP_ENDPOINT={base}\n\
             OTEL_EXPORTER_OTLP_TRACES_ENDPOINT={traces}"
        ));
        let (spans, metrics) = (
            settings.traces.unwrap().otlp,
            settings.metrics.otlp.unwrap().otlp,
        );
        assert_eq!(
            (spans.protocol, metrics.protocol),
            (Protocol::Http, Protocol::Http)
        );
        assert_eq!(
            spans.endpoint.to_string(),
            expected_traces,
            "{base} {traces}"
        );
        assert_eq!(
            metrics.endpoint.to_string(),
            expected_metrics,
            "{base} {traces}"
        );
        assert_eq!(settings.ignored, []);
    }
}

#[test]
fn a_timeout_of_zero_is_none() {
    let traces =
        good("OTEL_TRACES_EXPORTER=otlp\nOTEL_EXPORTER_OTLP_TIMEOUT=0\nOTEL_BSP_EXPORT_TIMEOUT=0");
    let timeout = traces.traces.unwrap().otlp.timeout;
    assert_eq!(timeout, Duration::from_secs(24 * 60 * 60));
}
