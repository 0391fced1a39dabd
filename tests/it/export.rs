//! Spans and metrics on their way to a collector, with and without TLS: what
//! arrives, and that one which is not there holds nobody up.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use fanfare::{catalog::Catalog, pb, server::Server, telemetry::Telemetry};
use nix::sys::signal::Signal;
use tokio::time::{Instant, timeout};
use tonic::Code;

use crate::support::{
    collector::{Answer, Collector, Pem, settings},
    config, ms,
    page::Page,
    pipes,
    process::{PATIENCE, Process},
    sockets,
    spans::{attributes, rpc},
};

const PEM: Pem = Pem {
    authority: include_str!("support/tls/authority.pem"),
    certificate: include_str!("support/tls/server.pem"),
    key: include_str!("support/tls/server.key"),
};
const PROTOCOLS: [&str; 2] = ["grpc", "http/protobuf"];

/// Where `collector` takes exports.
fn endpoint(collector: &Collector, protocol: &str) -> SocketAddr {
    match protocol {
        "grpc" => collector.address,
        _ => collector.http,
    }
}

/// The variables for a collector with our own certificate at `address`.
fn over_tls(address: SocketAddr) -> [(&'static str, String); 4] {
    let file = |name| format!("{}/tests/it/support/tls/{name}", env!("CARGO_MANIFEST_DIR"));
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("https://{address}")),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", file("authority.pem")),
        ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", file("client.pem")),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", file("client.key")),
    ]
}

/// Serves one RPC with telemetry as `environment` says. Its span leaves at once.
async fn observe_an_rpc(environment: &[(&str, &str)]) -> Telemetry {
    let mut environment = environment.to_vec();
    // The first of equal names counts.
    environment.push(("OTEL_METRICS_EXPORTER", "otlp,prometheus"));
    environment.push(("OTEL_BSP_SCHEDULE_DELAY", "1"));
    let telemetry = Telemetry::start(&settings(&environment), 0);
    let server = Server::orchestrator(&config(), Catalog::default()).await;
    let server = Arc::new(server.with_telemetry(telemetry.clone()));
    let mut client = pipes::client_of(&server).await;
    client
        .list_tools(pb::ListToolsRequest::default())
        .await
        .unwrap();
    telemetry
}

fn lost_spans(telemetry: &Telemetry) -> f64 {
    Page::of(telemetry).sum("fanfare_telemetry_dropped_spans_total", &[])
}

/// Waits until a span is lost, then ends; how long that takes.
async fn end_without_collector(telemetry: Telemetry) -> Duration {
    let lost = async {
        while lost_spans(&telemetry) != 1.0 {
            tokio::time::sleep(ms(5)).await;
        }
    };
    let lost = timeout(PATIENCE, lost).await;
    lost.expect("the span to be given up");
    let start = Instant::now();
    telemetry.shutdown(10 * PATIENCE).await;
    start.elapsed()
}

#[tokio::test]
async fn spans_and_metrics_arrive_as_the_variables_say() {
    for protocol in PROTOCOLS {
        arrive_as_the_variables_say(protocol).await;
    }
}

async fn arrive_as_the_variables_say(protocol: &str) {
    let collector = Collector::start();
    let endpoint = format!("http://{}", endpoint(&collector, protocol));

    let telemetry = observe_an_rpc(&[
        ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-key=a%20b,x-key=c"),
        ("OTEL_EXPORTER_OTLP_METRICS_HEADERS", "x-key=d"),
        ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "gzip"),
        ("OTEL_SERVICE_NAME", "tester"),
    ])
    .await;

    collector.has_taken(1).await;
    assert_eq!(lost_spans(&telemetry), 0.0);
    telemetry.shutdown(PATIENCE).await;
    let received = collector.received();
    let metadata = &received.with_traces;
    let keys: Vec<_> = metadata.get_all("x-key").iter().collect();
    assert_eq!(keys, ["a b", "c"]);
    let encoding = match protocol {
        "grpc" => "grpc-encoding",
        _ => "content-encoding",
    };
    assert_eq!(metadata.get(encoding).unwrap(), "gzip");
    let metadata = &received.with_metrics;
    let keys: Vec<_> = metadata.get_all("x-key").iter().collect();
    assert_eq!(keys, ["d"]);
    assert_eq!(metadata.get(encoding), None);
    for metadata in [&received.with_traces, &received.with_metrics] {
        let agent = metadata.get("user-agent").unwrap().to_str().unwrap();
        assert!(agent.starts_with("fanfare/"), "{agent}");
    }

    let trace = &received.traces[0].resource_spans[0];
    let metrics = &received.metrics[0].resource_metrics[0];
    let resource = attributes(&trace.resource.as_ref().unwrap().attributes);
    let names: Vec<_> = resource.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "service.instance.id",
            "service.name",
            "service.version",
            "telemetry.sdk.language",
            "telemetry.sdk.name",
            "telemetry.sdk.version",
        ]
    );
    assert_eq!(resource["service.name"], "tester");
    let of_metrics = attributes(&metrics.resource.as_ref().unwrap().attributes);
    assert_eq!(resource, of_metrics);
    let conventions = "https://opentelemetry.io/schemas/1.44.0";
    let (spans, points) = (&trace.scope_spans, &metrics.scope_metrics);
    assert_eq!((spans.len(), points.len()), (1, 1));
    for (scope, schema) in [
        (&spans[0].scope, &spans[0].schema_url),
        (&points[0].scope, &points[0].schema_url),
    ] {
        let scope = scope.as_ref().unwrap();
        assert_eq!(scope.name, "fanfare");
        assert_eq!(scope.version, env!("CARGO_PKG_VERSION"));
        assert_eq!(schema, conventions);
    }
    let trees = collector.trees().into_iter().map(|tree| tree.timeless());
    let expected = [rpc("ListTools", "OK").timeless()];
    assert_eq!(trees.collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn spans_that_a_collector_rejects_are_lost() {
    // Part of an export, and all of one that makes no sense to send again.
    for answer in [
        Answer::TakesAllBut(1),
        Answer::Refuses(Code::InvalidArgument),
    ] {
        for protocol in PROTOCOLS {
            let collector = Collector::start();
            collector.answers(answer);
            let endpoint = format!("http://{}/v1/traces", endpoint(&collector, protocol));
            let telemetry = observe_an_rpc(&[
                ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", &endpoint),
                ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
                ("OTEL_METRICS_EXPORTER", "prometheus"),
            ])
            .await;
            end_without_collector(telemetry).await;
            assert_eq!(collector.asked(), 1, "{protocol}");
        }
    }
}

#[tokio::test]
async fn a_collector_that_is_busy_is_asked_again() {
    for protocol in PROTOCOLS {
        let collector = Collector::start();
        collector.answers(Answer::Refuses(Code::Unavailable));
        let endpoint = format!("http://{}", endpoint(&collector, protocol));
        let telemetry = observe_an_rpc(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
            ("OTEL_METRICS_EXPORTER", "prometheus"),
        ])
        .await;
        collector.is_asked(2).await;
        collector.answers(Answer::Takes);
        collector.has_taken(1).await;
        telemetry.shutdown(PATIENCE).await;
        assert_eq!(collector.spans(), 1, "{protocol}");
    }
}

#[tokio::test]
async fn both_sides_can_ask_for_certificates() {
    for protocol in PROTOCOLS {
        let collector = Collector::start_at("127.0.0.1:0".parse().unwrap(), Some(PEM));
        let variables = over_tls(endpoint(&collector, protocol));
        let mut variables = variables
            .each_ref()
            .map(|(name, value)| (*name, &**value))
            .to_vec();
        variables.insert(0, ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol));

        observe_an_rpc(&variables).await.shutdown(PATIENCE).await;
        let received = collector.received();
        assert_eq!((received.traces.len(), received.metrics.len()), (1, 1));

        // With nobody's certificate; and without trust in the collector's authority.
        variables.insert(0, ("OTEL_EXPORTER_OTLP_TIMEOUT", "300"));
        for known in [4, 3] {
            let telemetry = observe_an_rpc(&variables[..known]).await;
            end_without_collector(telemetry).await;
        }
        assert_eq!(collector.asked(), 2, "{protocol}");
    }
}

#[tokio::test]
async fn a_collector_that_is_not_there_holds_nobody_up() {
    let dropped = sockets::black_hole().await;
    let addresses = [
        sockets::reserved().address,
        dropped.address,
        sockets::silent(b"").await,
        sockets::silent(sockets::SETTINGS).await,
        sockets::resetting().await,
    ];
    for address in addresses {
        for scheme in ["http", "https"] {
            let endpoint = format!("{scheme}://{address}");
            for protocol in PROTOCOLS {
                let telemetry = observe_an_rpc(&[
                    ("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint),
                    ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
                    ("OTEL_EXPORTER_OTLP_TIMEOUT", "300"),
                ])
                .await;
                let took = end_without_collector(telemetry).await;
                assert!(took < PATIENCE, "{endpoint}: {took:?}");
            }
        }
    }
}

/// What an operator's injector may set, of which not all can be followed.
#[tokio::test]
async fn a_start_follows_what_it_can_of_the_environment() {
    let collector = Collector::start();
    let endpoint = format!("http://{}", collector.http);
    let environment = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ("OTEL_PROPAGATORS", "tracecontext,baggage,b3,"),
        ("OTEL_LOGS_EXPORTER", "otlp"),
        ("OTEL_METRICS_EXPORTER", "otlp,prometheus,console"),
        ("OTEL_SDK_DISABLED", "1"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=b,authorization=secret%"),
    ];
    let toml = "[server]\nlisten = \"127.0.0.1:0\"\n";
    let mut server = Process::serve_in(toml, &environment).await;
    let mut client = server.client().await;
    client
        .list_tools(pb::ListToolsRequest::default())
        .await
        .unwrap();

    let told = server.log().all(|line| line["level"] == "WARN");
    let variables: Vec<_> = told
        .iter()
        .map(|line| line["variable"].as_str().unwrap())
        .collect();
    let expected = [
        "OTEL_SDK_DISABLED",
        "OTEL_LOGS_EXPORTER",
        "OTEL_PROPAGATORS",
        "OTEL_EXPORTER_OTLP_HEADERS",
        "OTEL_METRICS_EXPORTER",
    ];
    assert_eq!(variables, expected);
    assert!(!format!("{told:?}").contains("secret"), "{told:?}");
    let page = Page::of_process(&server).await;
    assert_eq!(page.value("fanfare_telemetry_ignored_settings", &[]), 5.0);

    server.signal(Signal::SIGTERM);
    assert_eq!(server.exit_code().await, Some(0));
    let received = collector.received();
    assert_eq!((collector.spans(), received.metrics.len()), (1, 1));
    assert_eq!(received.with_traces.get("a").unwrap(), "b");
}
