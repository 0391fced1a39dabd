//! Spans on their way to the collector: who is sampled, and the task that sends
//! what has ended, in batches.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use http::uri::PathAndQuery;
use opentelemetry::{
    Context,
    trace::{SpanContext, SpanId, SpanKind, TraceContextExt as _, TraceId},
};
use opentelemetry_otlp::ExporterBuildError;
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceResponse, common::v1::InstrumentationScope,
    resource::v1::Resource,
};
use opentelemetry_sdk::trace::{
    IdGenerator as _, RandomIdGenerator, Sampler, SamplingDecision, ShouldSample as _,
};
use tokio::{
    sync::{Mutex, watch},
    task::JoinHandle,
    time::{Instant, sleep, timeout, timeout_at},
};
use tonic::{Code, Request, Status, client::Grpc, transport::Channel};
use tonic_prost::ProstCodec;
use tonic_types::StatusExt as _;

use super::{
    export, names,
    queue::Queue,
    settings::{self, Otlp},
    span::Writer,
};

const EXPORT: PathAndQuery =
    PathAndQuery::from_static("/opentelemetry.proto.collector.trace.v1.TraceService/Export");
/// The first wait before an export is tried again; the next ones double, each
/// less up to a half.
const FIRST_BACKOFF: Duration = Duration::from_millis(200);
const MAX_BACKOFF: Duration = Duration::from_secs(5);

/// Where sampled spans go.
pub(super) struct Spans {
    sampler: Sampler,
    ids: RandomIdGenerator,
    queue: Arc<Queue>,
    closing: watch::Sender<bool>,
    task: Mutex<JoinHandle<()>>,
}

/// `ExportTraceServiceRequest`, whose spans are encoded already.
#[derive(Clone, PartialEq, prost::Message)]
struct ExportRequest {
    #[prost(message, optional, tag = "1")]
    resource_spans: Option<ResourceSpans>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, optional, tag = "2")]
    scope_spans: Option<ScopeSpans>,
    #[prost(string, tag = "3")]
    schema_url: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ScopeSpans {
    #[prost(message, optional, tag = "1")]
    scope: Option<InstrumentationScope>,
    #[prost(bytes = "bytes", repeated, tag = "2")]
    spans: Vec<Bytes>,
    #[prost(string, tag = "3")]
    schema_url: String,
}

impl Spans {
    /// Starts a task that sends them. Does not wait for the collector.
    pub(super) fn start(
        settings: &settings::Traces,
        resource: &opentelemetry_sdk::Resource,
    ) -> Result<Self, ExporterBuildError> {
        let queue = Arc::new(Queue::new(settings.queue_size, settings.batch_size));
        let (closing, closed) = watch::channel(false);
        let export = Export {
            queue: Arc::clone(&queue),
            client: export::client(&settings.otlp)?,
            otlp: settings.otlp.clone(),
            resource: resource.into(),
        };
        let (batch, delay) = (settings.batch_size, settings.schedule_delay);
        Ok(Self {
            sampler: settings.sampler.clone(),
            ids: RandomIdGenerator::default(),
            queue,
            closing,
            task: Mutex::new(tokio::spawn(export.run(batch, delay, closed))),
        })
    }

    pub(super) fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }

    /// The trace of an RPC whose caller's span is `parent`, and whether it is
    /// sampled, and all below it.
    pub(super) fn trace(&self, parent: Option<&SpanContext>, name: &str) -> (TraceId, bool) {
        let trace = match parent {
            Some(parent) => parent.trace_id(),
            None => self.ids.new_trace_id(),
        };
        let context = parent.map(|parent| Context::new().with_remote_span_context(parent.clone()));
        let kind = SpanKind::Server;
        let sampling = self
            .sampler
            .should_sample(context.as_ref(), trace, name, &kind, &[], &[]);
        (
            trace,
            sampling.decision == SamplingDecision::RecordAndSample,
        )
    }

    pub(super) fn new_id(&self) -> SpanId {
        self.ids.new_span_id()
    }

    /// Takes a sampled span that has ended. Never waits: if the queue is full, the
    /// span is lost.
    pub(super) fn take(&self, span: Writer) {
        self.queue.push(span.finish());
    }

    /// Sends what is left, for at most `limit`.
    pub(super) async fn shutdown(&self, limit: Duration) {
        self.closing.send_replace(true);
        let mut task = self.task.lock().await;
        if timeout(limit, &mut *task).await.is_err() {
            task.abort();
            let _ = (&mut *task).await;
        }
        self.queue.close();
    }
}

impl fmt::Debug for Spans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spans")
            .field("sampler", &self.sampler)
            .finish_non_exhaustive()
    }
}

impl Drop for Spans {
    fn drop(&mut self) {
        self.task.get_mut().abort();
    }
}

/// Sends batches, one after the other.
struct Export {
    queue: Arc<Queue>,
    client: Grpc<Channel>,
    otlp: Otlp,
    resource: Resource,
}

impl Export {
    async fn run(mut self, batch: usize, delay: Duration, mut closed: watch::Receiver<bool>) {
        loop {
            let least = tokio::select! {
                () = self.queue.ready() => batch,
                () = sleep(delay) => 1,
                _ = closed.wait_for(|closed| *closed) => 1,
            };
            let last = *closed.borrow();
            while let Some(spans) = self.queue.pop(least) {
                let result = self.send(spans).await;
                self.queue.ended(&result);
            }
            if last {
                return;
            }
        }
    }

    /// Tries until it is sent, it makes no sense any more, or time is up.
    async fn send(&mut self, spans: Vec<Bytes>) -> Result<(), Status> {
        let deadline = Instant::now() + self.otlp.timeout;
        let request = self.request(spans);
        let mut backoff = FIRST_BACKOFF;
        loop {
            let Ok(result) = timeout_at(deadline, self.once(request.clone())).await else {
                return Err(Status::deadline_exceeded("no answer in time"));
            };
            let Err(status) = result else { return Ok(()) };
            let Some(wait) = retry_after(&status, backoff) else {
                return Err(status);
            };
            if Instant::now() + wait >= deadline {
                return Err(status);
            }
            sleep(wait).await;
            backoff = (2 * backoff).min(MAX_BACKOFF);
        }
    }

    async fn once(&mut self, request: ExportRequest) -> Result<(), Status> {
        let mut request = Request::new(request);
        *request.metadata_mut() = export::metadata(&self.otlp);
        let client = &mut self.client;
        client
            .ready()
            .await
            .map_err(|error| Status::from_error(error.into()))?;
        let codec = ProstCodec::<ExportRequest, ExportTraceServiceResponse>::default();
        let response = client.unary(request, EXPORT, codec).await?.into_inner();
        if let Some(partial) = response.partial_success
            && partial.rejected_spans > 0
        {
            let rejected = usize::try_from(partial.rejected_spans).unwrap_or_default();
            let why = Status::invalid_argument(partial.error_message);
            self.queue.refused(rejected, &why);
        }
        Ok(())
    }

    fn request(&self, spans: Vec<Bytes>) -> ExportRequest {
        ExportRequest {
            resource_spans: Some(ResourceSpans {
                resource: Some(self.resource.clone()),
                scope_spans: Some(ScopeSpans {
                    scope: Some(InstrumentationScope {
                        name: names::SCOPE.to_owned(),
                        version: env!("CARGO_PKG_VERSION").to_owned(),
                        ..Default::default()
                    }),
                    spans,
                    schema_url: names::SCHEMA_URL.to_owned(),
                }),
                schema_url: String::new(),
            }),
        }
    }
}

/// How long to wait before the next try; `None` if there must not be one
/// (<https://opentelemetry.io/docs/specs/otlp/#failures>).
fn retry_after(status: &Status, backoff: Duration) -> Option<Duration> {
    let asked = status
        .get_details_retry_info()
        .and_then(|info| info.retry_delay);
    let again = match status.code() {
        Code::ResourceExhausted => asked.is_some(),
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unavailable
        | Code::DataLoss => true,
        _ => false,
    };
    let jittered = backoff.mul_f64(0.5 + 0.5 * fastrand::f64());
    again.then(|| asked.unwrap_or(jittered))
}
