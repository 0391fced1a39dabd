//! Traces: sampling, the `tracing` subscriber with the `tracing-opentelemetry` layer, the
//! SDK's tracer provider with its batch span processor, and the exporter.
//!
//! Spans have a subscriber of their own; the one of the process is for the log. So `RUST_LOG`
//! can't hide spans, log lines pay nothing for spans and spans nothing for log lines, and
//! each server in a process has its own spans.
//!
//! Requests are sampled before their first span starts. If the SDK did it, each request that
//! is not sampled would still pay for a `tracing` span.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::uri::PathAndQuery;
use opentelemetry::{
    Context, InstrumentationScope,
    trace::{SpanKind, TraceContextExt as _, TraceId, TracerProvider as _},
};
use opentelemetry_proto::tonic::{self as proto, collector::trace::v1::ExportTraceServiceResponse};
use opentelemetry_sdk::{
    Resource,
    error::{OTelSdkError, OTelSdkResult},
    trace::{
        BatchConfigBuilder, BatchSpanProcessor, IdGenerator as _, Sampler, SamplingDecision,
        SdkTracerProvider, ShouldSample as _, SpanData, SpanExporter, SpanLimits,
    },
};
use prost::Message as _;
use tokio::{runtime::Handle, task::spawn_blocking};
use tonic::Status;
use tracing::{Dispatch, level_filters::LevelFilter};
use tracing_subscriber::{filter::Targets, layer::SubscriberExt as _};

use super::{
    backlog::{Backlog, Bounded},
    export::{Export, Exporter, reason},
    names, settings,
    span::{Ids, Span, TARGET, Tracer},
};

/// Makes spans, and sends them.
pub(super) struct Spans {
    sampler: Sampler,
    ids: Ids,
    dispatch: Dispatch,
    provider: SdkTracerProvider,
    backlog: Arc<Backlog>,
}

impl Spans {
    /// Starts the thread that sends spans. Does not wait for the collector.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub(super) fn start(settings: &settings::Traces, resource: &Resource) -> Self {
        let backlog = Arc::new(Backlog::new(settings.queue_size));
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(settings.queue_size)
            .with_max_export_batch_size(settings.batch_size)
            .with_scheduled_delay(settings.schedule_delay);
        let push = Push {
            exporter: Arc::new(Exporter::new(settings.otlp.clone())),
            resource: resource.into(),
            runtime: Handle::current(),
            backlog: Arc::clone(&backlog),
        };
        let processor = Bounded {
            backlog: Arc::clone(&backlog),
            batches: BatchSpanProcessor::builder(push)
                .with_batch_config(batches.build())
                .build(),
        };
        // The SDK reads from the environment whatever is not given.
        let provider = SdkTracerProvider::builder()
            .with_sampler(Sampler::AlwaysOn)
            .with_id_generator(Ids::default())
            .with_span_limits(SpanLimits::default())
            .with_resource(resource.clone())
            .with_span_processor(processor)
            .build();
        Self {
            sampler: settings.sampler.clone(),
            ids: Ids::default(),
            dispatch: dispatch(&provider),
            provider,
            backlog,
        }
    }

    pub(super) fn backlog(&self) -> &Arc<Backlog> {
        &self.backlog
    }

    /// The trace id of an RPC, that of `caller` if there is one, and whether the RPC and its
    /// calls are sampled.
    pub(super) fn trace(&self, caller: &Context, name: &str) -> (TraceId, bool) {
        let span = caller.span();
        let (caller, trace) = match span.span_context() {
            parent if parent.is_valid() => (Some(caller), parent.trace_id()),
            _ => (None, self.ids.new_trace_id()),
        };
        let kind = SpanKind::Server;
        let sampling = self
            .sampler
            .should_sample(caller, trace, name, &kind, &[], &[]);
        (
            trace,
            sampling.decision == SamplingDecision::RecordAndSample,
        )
    }

    pub(super) fn new_id(&self) -> opentelemetry::trace::SpanId {
        self.ids.new_span_id()
    }

    /// Starts the span of a sampled RPC; see [`Span::server`].
    pub(super) fn server(
        &self,
        caller: Context,
        trace: TraceId,
        name: &str,
        at: SystemTime,
    ) -> Option<Span> {
        Span::server(&self.dispatch, caller, trace, name, at)
    }

    /// Sends the spans that are left, for at most `limit`.
    pub(super) async fn shutdown(&self, limit: Duration) {
        let provider = self.provider.clone();
        // If it fails, the backlog has counted that.
        let _ = spawn_blocking(move || provider.shutdown_with_timeout(limit)).await;
        self.backlog.close();
        self.backlog.report();
    }
}

/// The subscriber, which takes nothing but spans.
fn dispatch(provider: &SdkTracerProvider) -> Dispatch {
    let tracer = Tracer(provider.tracer_with_scope(scope()));
    let layer = tracing_opentelemetry::layer()
        .with_tracer(tracer)
        .with_location(false)
        .with_target(false)
        .with_threads(false)
        .with_tracked_inactivity(false);
    // Without this filter, `tracing` would ask this subscriber about every event of every
    // library.
    let spans = Targets::new().with_target(TARGET, LevelFilter::INFO);
    Dispatch::new(tracing_subscriber::registry().with(layer).with(spans))
}

fn scope() -> InstrumentationScope {
    let scope = InstrumentationScope::builder(names::SCOPE);
    let scope = scope.with_version(env!("CARGO_PKG_VERSION"));
    scope.with_schema_url(names::SCHEMA_URL).build()
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
        self.backlog.close();
    }
}

/// `ExportTraceServiceRequest` with spans that are encoded already. As a tree of messages,
/// prost measures each attribute again for every message that it is in.
#[derive(Clone, PartialEq, prost::Message)]
struct ExportRequest {
    #[prost(message, optional, tag = "1")]
    resource_spans: Option<ResourceSpans>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    resource: Option<proto::resource::v1::Resource>,
    #[prost(message, optional, tag = "2")]
    scope_spans: Option<ScopeSpans>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ScopeSpans {
    #[prost(message, optional, tag = "1")]
    scope: Option<proto::common::v1::InstrumentationScope>,
    #[prost(bytes = "bytes", repeated, tag = "2")]
    spans: Vec<Bytes>,
    #[prost(string, tag = "3")]
    schema_url: String,
}

impl ExportRequest {
    /// The scope of all spans is ours.
    fn new(spans: Vec<SpanData>, resource: &proto::resource::v1::Resource) -> Self {
        let encoded = |span| proto::trace::v1::Span::from(span).encode_to_vec().into();
        let scope_spans = ScopeSpans {
            scope: Some((scope(), None).into()),
            spans: spans.into_iter().map(encoded).collect(),
            schema_url: names::SCHEMA_URL.to_owned(),
        };
        Self {
            resource_spans: Some(ResourceSpans {
                resource: Some(resource.clone()),
                scope_spans: Some(scope_spans),
            }),
        }
    }
}

impl Export for ExportRequest {
    type Answer = ExportTraceServiceResponse;
    const METHOD: PathAndQuery =
        PathAndQuery::from_static("/opentelemetry.proto.collector.trace.v1.TraceService/Export");
}

/// The exporter that the SDK calls, with one batch after the other.
struct Push {
    exporter: Arc<Exporter>,
    resource: proto::resource::v1::Resource,
    /// The SDK calls this from a thread of its own.
    runtime: Handle,
    backlog: Arc<Backlog>,
}

impl SpanExporter for Push {
    async fn export(&self, spans: Vec<SpanData>) -> OTelSdkResult {
        if !self.backlog.leave(spans.len()) {
            return Err(OTelSdkError::AlreadyShutdown);
        }
        let request = ExportRequest::new(spans, &self.resource);
        let exporter = Arc::clone(&self.exporter);
        let sent = self
            .runtime
            .spawn(async move { exporter.send(request).await });
        let ends = |_| Err(Status::cancelled("the process ends"));
        let answer = sent.await.unwrap_or_else(ends);
        let result = answer.map(|answer| answer.partial_success);
        let partial = match result {
            Ok(partial) => {
                self.backlog.ended(&Ok(()));
                partial
            }
            Err(status) => {
                let problem = reason(&status);
                self.backlog.ended(&Err(status));
                return Err(OTelSdkError::InternalFailure(problem));
            }
        };
        if let Some(partial) = partial
            && partial.rejected_spans > 0
        {
            let rejected = usize::try_from(partial.rejected_spans).unwrap_or_default();
            let why = Status::invalid_argument(partial.error_message);
            self.backlog.refused(rejected, &why);
        }
        Ok(())
    }
}

impl fmt::Debug for Push {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Push").finish_non_exhaustive()
    }
}
