//! Exporters and a collector, with and without TLS: what arrives, and that one
//! which is not there holds nobody up.

use std::{net::SocketAddr, time::Duration};

use fanfare::telemetry::{export, settings::Settings};
use opentelemetry::{InstrumentationScope, metrics::MeterProvider as _};
use opentelemetry_proto::tonic::collector::{
    metrics::v1::{
        ExportMetricsServiceRequest, ExportMetricsServiceResponse,
        metrics_service_server::{MetricsService, MetricsServiceServer},
    },
    trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
};
use opentelemetry_sdk::{
    metrics::{PeriodicReader, SdkMeterProvider},
    trace::{SpanData, SpanEvents, SpanExporter as _, SpanLinks},
};
use tokio::{net::TcpListener, sync::mpsc, time::Instant};
use tonic::{
    Request, Response, Status,
    codec::CompressionEncoding,
    metadata::MetadataMap,
    transport::{Certificate, Identity, Server, ServerTlsConfig},
};

use crate::support::{process::PATIENCE, sockets};

const AUTHORITY: &str = include_str!("support/tls/authority.pem");
const CERTIFICATE: &str = include_str!("support/tls/server.pem");
const KEY: &str = include_str!("support/tls/server.key");

/// A collector that tells of what arrives.
struct Collector<T>(mpsc::UnboundedSender<(MetadataMap, T)>);

#[tonic::async_trait]
impl TraceService for Collector<ExportTraceServiceRequest> {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let (metadata, _, message) = request.into_parts();
        self.0.send((metadata, message)).expect("the test");
        Ok(Response::new(Default::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Collector<ExportMetricsServiceRequest> {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        let (metadata, _, message) = request.into_parts();
        self.0.send((metadata, message)).expect("the test");
        Ok(Response::new(Default::default()))
    }
}

type Arrivals<T> = mpsc::UnboundedReceiver<(MetadataMap, T)>;

/// A collector on a port of its own: where it is, what spans and metrics arrive.
async fn collector(
    tls: Option<ServerTlsConfig>,
) -> (
    SocketAddr,
    Arrivals<ExportTraceServiceRequest>,
    Arrivals<ExportMetricsServiceRequest>,
) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (spans, spans_arrived) = mpsc::unbounded_channel();
    let (metrics, metrics_arrived) = mpsc::unbounded_channel();
    let mut server = Server::builder();
    if let Some(tls) = tls {
        server = server.tls_config(tls).unwrap();
    }
    let gzip = CompressionEncoding::Gzip;
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    let server = server
        .add_service(TraceServiceServer::new(Collector(spans)).accept_compressed(gzip))
        .add_service(MetricsServiceServer::new(Collector(metrics)).accept_compressed(gzip))
        .serve_with_incoming(incoming);
    tokio::spawn(server);
    (address, spans_arrived, metrics_arrived)
}

/// The settings that this environment gives, for both signals.
fn settings(environment: &[(&str, &str)]) -> Settings {
    let find = |name: &str| environment.iter().find(|(known, _)| *known == name);
    Settings::read(|name| Some(find(name)?.1.to_owned())).unwrap()
}

fn span() -> SpanData {
    SpanData {
        span_context: opentelemetry::trace::SpanContext::NONE,
        parent_span_id: opentelemetry::trace::SpanId::INVALID,
        parent_span_is_remote: false,
        span_kind: opentelemetry::trace::SpanKind::Internal,
        name: "execute_tool echo".into(),
        start_time: std::time::SystemTime::UNIX_EPOCH,
        end_time: std::time::SystemTime::UNIX_EPOCH,
        attributes: Vec::new(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: opentelemetry::trace::Status::Unset,
        instrumentation_scope: InstrumentationScope::default(),
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

/// Exports one span; how it went, and how long it took.
async fn export_a_span(environment: &[(&str, &str)]) -> (bool, Duration) {
    let otlp = settings(environment).traces.unwrap().otlp;
    let exporter = export::span_exporter(&otlp).unwrap();
    let start = Instant::now();
    let done = exporter.export(vec![span()]).await.is_ok();
    (done, start.elapsed())
}

async fn next<T>(arrivals: &mut mpsc::UnboundedReceiver<T>) -> T {
    let next = tokio::time::timeout(PATIENCE, arrivals.recv()).await;
    next.expect("an export").expect("the collector")
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_and_metrics_arrive_as_the_variables_say() {
    let (address, mut spans, mut metrics) = collector(None).await;
    let endpoint = format!("http://{address}");
    let settings = settings(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-key=a%20b,x-key=c"),
        ("OTEL_EXPORTER_OTLP_METRICS_HEADERS", "x-key=d"),
        ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "gzip"),
        ("OTEL_SERVICE_NAME", "tester"),
    ]);
    let resource = export::resource(&settings.resource);

    let mut exporter = export::span_exporter(&settings.traces.unwrap().otlp).unwrap();
    exporter.set_resource(&resource);
    exporter.export(vec![span()]).await.unwrap();
    let (metadata, message) = next(&mut spans).await;
    let keys: Vec<_> = metadata.get_all("x-key").iter().collect();
    assert_eq!(keys, ["a b", "c"]);
    assert_eq!(metadata.get("grpc-encoding").unwrap(), "gzip");
    let agent = metadata.get("user-agent").unwrap().to_str().unwrap();
    assert!(agent.starts_with("fanfare/"), "{agent}");
    let attributes = &message.resource_spans[0]
        .resource
        .as_ref()
        .unwrap()
        .attributes;
    let names: Vec<_> = attributes.iter().map(|attribute| &*attribute.key).collect();
    for name in ["service.name", "service.instance.id", "telemetry.sdk.name"] {
        assert!(names.contains(&name), "{names:?}");
    }

    let exporter = export::metric_exporter(&settings.metrics.otlp.unwrap()).unwrap();
    let provider = SdkMeterProvider::builder()
        .with_reader(PeriodicReader::builder(exporter).build())
        .with_resource(resource)
        .build();
    provider
        .meter("test")
        .u64_counter("count")
        .build()
        .add(1, &[]);
    let flushed = tokio::task::spawn_blocking(move || provider.force_flush());
    let (metadata, _) = next(&mut metrics).await;
    assert_eq!(metadata.get("x-key").unwrap(), "d");
    assert!(metadata.get("grpc-encoding").is_none());
    flushed.await.unwrap().unwrap();
}

#[tokio::test]
async fn both_sides_can_ask_for_certificates() {
    let tls = ServerTlsConfig::new()
        .identity(Identity::from_pem(CERTIFICATE, KEY))
        .client_ca_root(Certificate::from_pem(AUTHORITY));
    let (address, mut spans, _metrics) = collector(Some(tls)).await;

    let variables = over_tls(address);
    let variables = variables.each_ref().map(|(name, value)| (*name, &**value));
    assert!(export_a_span(&variables).await.0);
    next(&mut spans).await;
    // Nobody's certificate; and no trust in its authority.
    assert!(!export_a_span(&variables[..2]).await.0);
    assert!(!export_a_span(&variables[..1]).await.0);
    assert!(spans.is_empty());
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
            let (done, took) = export_a_span(&[
                ("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint),
                ("OTEL_EXPORTER_OTLP_TIMEOUT", "300"),
            ])
            .await;
            assert!(
                !done && took < Duration::from_secs(3),
                "{endpoint}: {took:?}"
            );
        }
    }
}
