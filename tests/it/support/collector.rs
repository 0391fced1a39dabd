//! A collector that speaks OTLP, over gRPC and over HTTP: it keeps what arrives, and answers as it is told.
//! It runs on a thread of its own, so it lives by the real clock.

mod http;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use fanfare::telemetry::settings::Settings;
use opentelemetry_proto::tonic::{
    collector::{
        metrics::v1::{
            ExportMetricsServiceRequest, ExportMetricsServiceResponse,
            metrics_service_server::{MetricsService, MetricsServiceServer},
        },
        trace::v1::{
            ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
            trace_service_server::{TraceService, TraceServiceServer},
        },
    },
    metrics::v1::Metric,
};
use tokio::{net::TcpListener, runtime::Runtime, sync::watch, time::timeout};
use tonic::{
    Code, Request, Response, Status,
    codec::CompressionEncoding,
    metadata::MetadataMap,
    transport::{Certificate, Identity, Server, ServerTlsConfig},
};

use super::{
    process::PATIENCE,
    spans::{Tree, trees},
};

/// What a collector does with an export.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Answer {
    Takes,
    TakesAfter(Duration),
    Hangs,
    /// This status, without details.
    Refuses(Code),
    /// Says that it takes all but so many spans.
    TakesAllBut(i64),
}

impl Received {
    fn add_traces(&mut self, headers: ::http::HeaderMap, message: ExportTraceServiceRequest) {
        if self.traces.is_empty() {
            self.with_traces = MetadataMap::from_headers(headers);
        }
        self.traces.push(message);
    }

    fn add_metrics(&mut self, headers: ::http::HeaderMap, message: ExportMetricsServiceRequest) {
        if self.metrics.is_empty() {
            self.with_metrics = MetadataMap::from_headers(headers);
        }
        self.metrics.push(message);
    }

    /// The metrics of the last export of them.
    pub fn last_metrics(&self) -> Vec<Metric> {
        let last = self.metrics.last().expect("an export of metrics");
        let resources = last.resource_metrics.iter();
        let scopes = resources.flat_map(|resource| resource.scope_metrics.clone());
        scopes.flat_map(|scope| scope.metrics).collect()
    }
}

/// What a collector shows and trusts.
#[derive(Clone, Copy)]
pub struct Pem {
    pub authority: &'static str,
    pub certificate: &'static str,
    pub key: &'static str,
}

/// A running collector. Its connections break when it is dropped.
pub struct Collector {
    /// Over gRPC.
    pub address: SocketAddr,
    /// Over HTTP.
    pub http: SocketAddr,
    inbox: Arc<Inbox>,
    runtime: Option<Runtime>,
}

struct Inbox {
    answer: watch::Sender<Answer>,
    received: Mutex<Received>,
    /// How many exports were begun.
    asked: watch::Sender<usize>,
    /// How many were taken.
    taken: watch::Sender<usize>,
}

/// What was taken.
#[derive(Clone, Debug, Default)]
pub struct Received {
    pub traces: Vec<ExportTraceServiceRequest>,
    pub metrics: Vec<ExportMetricsServiceRequest>,
    /// The metadata of the first export of either kind.
    pub with_traces: MetadataMap,
    pub with_metrics: MetadataMap,
}

impl Collector {
    /// A collector that takes everything, on a port of its own.
    pub fn start() -> Self {
        Self::start_at("127.0.0.1:0".parse().expect("an address"), None)
    }

    /// A collector at `address`.
    pub fn start_at(address: SocketAddr, tls: Option<Pem>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let inbox = Arc::new(Inbox {
            answer: watch::Sender::new(Answer::Takes),
            received: Mutex::default(),
            asked: watch::Sender::new(0),
            taken: watch::Sender::new(0),
        });
        let bound = |address: SocketAddr| {
            let listener = std::net::TcpListener::bind(address).expect("a port");
            listener.set_nonblocking(true).expect("an option");
            let address = listener.local_addr().expect("an address");
            (listener, address)
        };
        let (listener, address) = bound(address);
        let (http_listener, http) = bound("127.0.0.1:0".parse().expect("an address"));
        let over_http = Arc::clone(&inbox);
        runtime.spawn(async move {
            let listener = TcpListener::from_std(http_listener).expect("a listener");
            http::serve(listener, over_http, tls).await;
        });
        let mut server = Server::builder();
        if let Some(pem) = tls {
            let tls = ServerTlsConfig::new()
                .identity(Identity::from_pem(pem.certificate, pem.key))
                .client_ca_root(Certificate::from_pem(pem.authority));
            server = server.tls_config(tls).expect("certificates");
        }
        let gzip = CompressionEncoding::Gzip;
        let service = Service(Arc::clone(&inbox));
        let traces = TraceServiceServer::new(service.clone());
        let metrics = MetricsServiceServer::new(service);
        let router = server
            .add_service(traces.accept_compressed(gzip))
            .add_service(metrics.accept_compressed(gzip));
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).expect("a listener");
            let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
            router.serve_with_incoming(incoming).await
        });
        Self {
            address,
            http,
            inbox,
            runtime: Some(runtime),
        }
    }

    /// From now on it answers like this; exports that hang as well.
    pub fn answers(&self, answer: Answer) {
        self.inbox.answer.send_replace(answer);
    }

    /// What arrived and was taken.
    pub fn received(&self) -> Received {
        self.inbox.lock().clone()
    }

    /// The spans that were taken, as trees.
    pub fn trees(&self) -> Vec<Tree> {
        trees(&self.received().traces)
    }

    /// How many spans were taken.
    pub fn spans(&self) -> usize {
        let requests = self.received().traces;
        let resources = requests.iter().flat_map(|request| &request.resource_spans);
        let scopes = resources.flat_map(|resource| &resource.scope_spans);
        scopes.map(|scope| scope.spans.len()).sum()
    }

    /// Waits until so many exports were taken.
    pub async fn has_taken(&self, count: usize) {
        reaches(&self.inbox.taken, count, "exports taken").await;
    }

    /// Waits until so many exports were begun.
    pub async fn is_asked(&self, count: usize) {
        reaches(&self.inbox.asked, count, "exports begun").await;
    }

    /// How many exports were begun.
    pub fn asked(&self) -> usize {
        *self.inbox.asked.borrow()
    }

    /// The settings that the environment gives with this collector for spans, of
    /// which none leaves for a day but at the end, and with `variables`.
    pub fn settings(&self, variables: &[(&str, &str)]) -> Settings {
        let endpoint = format!("http://{}", self.address);
        let mut all = vec![
            ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
            ("OTEL_METRICS_EXPORTER", "prometheus"),
            ("OTEL_BSP_SCHEDULE_DELAY", "86400000"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "100000"),
        ];
        all.retain(|(name, _)| !variables.iter().any(|(other, _)| name == other));
        all.extend(variables);
        settings(&all)
    }
}

/// The settings that this environment gives.
pub fn settings(environment: &[(&str, &str)]) -> Settings {
    let find = |name: &str| environment.iter().find(|(known, _)| *known == name);
    Settings::read(|name| Some(find(name)?.1.to_owned())).expect("settings")
}

async fn reaches(counter: &watch::Sender<usize>, count: usize, what: &str) {
    let mut counted = counter.subscribe();
    let reached = timeout(PATIENCE, counted.wait_for(|now| *now >= count)).await;
    assert!(reached.is_ok(), "{} {what}, not {count}", *counter.borrow());
}

impl Drop for Collector {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Received> {
        self.received.lock().expect("what was received")
    }

    /// Does as it is told, then keeps what arrived.
    /// How many it says that it does not take.
    async fn take(&self, keep: impl FnOnce(&mut Received)) -> Result<i64, Status> {
        self.asked.send_modify(|count| *count += 1);
        let mut answer = self.answer.subscribe();
        let does = *answer
            .wait_for(|answer| *answer != Answer::Hangs)
            .await
            .expect("orders");
        let mut rejected = 0;
        match does {
            Answer::Takes | Answer::Hangs => {}
            Answer::TakesAllBut(spans) => rejected = spans,
            Answer::TakesAfter(delay) => tokio::time::sleep(delay).await,
            Answer::Refuses(code) => return Err(Status::new(code, "as told")),
        }
        keep(&mut self.lock());
        self.taken.send_modify(|count| *count += 1);
        Ok(rejected)
    }
}

#[derive(Clone)]
struct Service(Arc<Inbox>);

#[tonic::async_trait]
impl TraceService for Service {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let (metadata, _, message) = request.into_parts();
        let keep = |received: &mut Received| received.add_traces(metadata.into_headers(), message);
        let rejected_spans = self.0.take(keep).await?;
        Ok(Response::new(rejecting(rejected_spans)))
    }
}

/// The answer of one that takes all but so many spans.
fn rejecting(rejected_spans: i64) -> ExportTraceServiceResponse {
    ExportTraceServiceResponse {
        partial_success: Some(ExportTracePartialSuccess {
            rejected_spans,
            error_message: "too many".to_owned(),
        }),
    }
}

#[tonic::async_trait]
impl MetricsService for Service {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        let (metadata, _, message) = request.into_parts();
        let keep = |received: &mut Received| received.add_metrics(metadata.into_headers(), message);
        self.0.take(keep).await?;
        Ok(Response::new(Default::default()))
    }
}
