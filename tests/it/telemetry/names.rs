use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use fanfare::{
    core::workers::Workers,
    pb,
    telemetry::names::{ATTRIBUTES, METRICS},
};
use opentelemetry_proto::tonic::{
    common::v1::KeyValue,
    metrics::v1::{Metric, metric::Data},
};
use serde_json::json;
use tokio::{net::TcpListener, sync::oneshot};
use tonic::{Code, Request};

use crate::support::{
    call, call_with, ms,
    observed::{Observer, Seen},
    process::Process,
    raw::{EXECUTE, RawClient, framed, post_with},
    request,
    spans::{Kind, attributes},
    tools::Scripted,
};

/// Everything that telemetry can tell of.
async fn everything() -> Seen {
    let tools = Process::demo_tools().await;
    let config = fanfare::config::Config::parse(&fanfare::demo::config_toml(tools.address))
        .expect("a configuration");
    let mut catalog = fanfare::catalog::Catalog::new(&config);
    // Nothing asks twice by itself.
    let twice = Scripted::new(|invocation| async move {
        invocation.sent();
        invocation.sent();
        Ok(bytes::Bytes::new())
    });
    let name = fanfare::core::call::ToolName::try_new("twice".to_owned()).unwrap();
    catalog.insert(name, String::new(), std::sync::Arc::new(twice));
    let variables = [
        ("OTEL_METRICS_EXPORTER", "otlp,prometheus"),
        ("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "true"),
    ];
    let (server, observer) = Observer::start(&config, catalog, &variables).await;
    let (workers, _threads) = Workers::start(2).unwrap();
    observer.telemetry.watch_workers(&workers);
    let server = server.on(workers);
    // Over a socket, to have a peer.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let serving = tokio::spawn(server.run(listener, async { stopped.await.unwrap_or_default() }));
    let mut client = fanfare::demo::connect(address).await.unwrap();

    let short = prost_types::Duration {
        seconds: 0,
        nanos: 200_000_000,
    };
    let all = pb::ExecuteToolsRequest {
        concurrency_limit: 2,
        ..request(vec![
            call_with("id", "echo", json!({"a": 1})),
            call_with("", "fail", json!({"code": 5, "message": "no"})),
            call("", "nobody"),
            call("", "twice"),
            call_with("", "sleep", json!({"seconds": 0.05})),
            call_with("", "sleep", json!({"seconds": 0.05})),
            call_with("", "sleep", json!({"seconds": 0.05})),
            pb::ToolCall {
                timeout: Some(short),
                ..call("", "hang")
            },
        ])
    };
    let mut all = Request::new(all);
    all.set_timeout(20 * ms(1000));
    // More than is passed on.
    let baggage = format!("a={}", "x".repeat(9000));
    all.metadata_mut()
        .insert("baggage", baggage.parse().unwrap());
    client.execute_tools(all).await.unwrap();
    // tonic's client would give it up itself, perhaps before it is sent.
    let raw = RawClient::connect(address).await;
    let expired = post_with(EXECUTE, "grpc-timeout", "0n");
    let body = framed(&request(vec![call("", "echo")]));
    let answer = raw.ask(expired, body).await.unwrap();
    assert_eq!(answer.code(), Code::DeadlineExceeded);

    drop((client, raw));
    stop.send(()).unwrap();
    serving.await.unwrap();
    observer.end_by_real_time().await
}

/// Name and kind of every attribute of these spans.
fn attributes_of(seen: &Seen) -> BTreeSet<(String, Kind)> {
    let spans = seen.trees.iter().flat_map(|tree| tree.all());
    let pairs = spans.flat_map(|span| {
        let names = span.attributes.keys().cloned();
        names.map(|name| (name, span.kind))
    });
    pairs.collect()
}

/// Kind, unit, labels and meaning of a metric that was sent.
fn described(metric: &Metric) -> (&'static str, String, BTreeSet<String>, String) {
    let keys = |points: Vec<&Vec<KeyValue>>| -> BTreeSet<String> {
        let keys = points
            .into_iter()
            .flat_map(|point| attributes(point).into_keys());
        keys.collect()
    };
    let (kind, labels) = match metric.data.as_ref().expect("data") {
        Data::Histogram(histogram) => {
            let points = histogram.data_points.iter();
            ("histogram", keys(points.map(|p| &p.attributes).collect()))
        }
        Data::Sum(sum) => {
            let kind = if sum.is_monotonic { "counter" } else { "gauge" };
            let points = sum.data_points.iter();
            (kind, keys(points.map(|p| &p.attributes).collect()))
        }
        Data::Gauge(gauge) => {
            let points = gauge.data_points.iter();
            ("gauge", keys(points.map(|p| &p.attributes).collect()))
        }
        other => panic!("{other:?}"),
    };
    (
        kind,
        metric.unit.clone(),
        labels,
        metric.description.clone(),
    )
}

#[tokio::test]
async fn the_tables_are_what_is_sent() {
    let seen = everything().await;

    let kinds = [Kind::Server, Kind::Internal, Kind::Client];
    let in_table: BTreeSet<_> = ATTRIBUTES
        .iter()
        .flat_map(|attribute| {
            let has = |kind: &Kind| {
                attribute.spans == "all" || attribute.spans.split(", ").any(|s| s == kind.name())
            };
            let kinds = kinds.into_iter().filter(has);
            kinds.map(|kind| (attribute.name.to_owned(), kind))
        })
        .collect();
    assert_eq!(attributes_of(&seen), in_table);

    let in_table: BTreeMap<_, _> = METRICS
        .iter()
        .map(|metric| {
            let labels = metric.attributes.iter().map(|label| (*label).to_owned());
            let unit = metric.unit.to_owned();
            let meaning = metric.meaning.to_owned();
            let described = (metric.kind, unit, labels.collect(), meaning);
            (metric.name.to_owned(), described)
        })
        .collect();
    let metrics = seen.received.last_metrics();
    let sent: BTreeMap<_, _> = metrics
        .iter()
        .map(|metric| (metric.name.clone(), described(metric)))
        .collect();
    assert_eq!(sent.len(), metrics.len(), "a name twice");
    assert_eq!(sent, in_table);
}

/// The rows of the page between a marker and the next end.
fn rows(table: &str) -> Vec<String> {
    const PAGE: &str = include_str!("../../../deploy/observability/telemetry.md");
    let begin = format!("<!-- telemetry:{table} -->");
    let (_, rest) = PAGE.split_once(&begin).expect("the table's begin");
    let (text, _) = rest.split_once("<!-- end -->").expect("the table's end");
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    rows.map(str::to_owned).collect()
}

#[test]
fn the_page_lists_every_attribute_and_metric() {
    let attributes: Vec<_> = ATTRIBUTES
        .iter()
        .map(|a| format!("| `{}` | {} | {} |", a.name, a.spans, a.meaning))
        .collect();
    assert_eq!(rows("attributes"), attributes);

    let metrics: Vec<_> = METRICS
        .iter()
        .map(|metric| {
            let mut row = format!("| `{}` | {}, {} | ", metric.name, metric.kind, metric.unit);
            let labels: Vec<_> = metric.attributes.iter().map(|a| format!("`{a}`")).collect();
            let _ = write!(row, "{} | {} |", labels.join(", "), metric.meaning);
            row
        })
        .collect();
    assert_eq!(rows("metrics"), metrics);
}
