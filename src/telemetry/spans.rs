//! Spans on their way to the collector: who is sampled, and the task that sends
//! what has ended, in batches.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use http::uri::PathAndQuery;
use opentelemetry::{
    Context,
    trace::{SpanContext, SpanId, SpanKind, TraceContextExt as _, TraceId},
};
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
    time::{sleep, timeout},
};
use tonic::Status;

use super::{
    export::{Export, Exporter},
    names,
    queue::Queue,
    settings,
    span::Writer,
};

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

impl Export for ExportRequest {
    type Answer = ExportTraceServiceResponse;
    const METHOD: PathAndQuery =
        PathAndQuery::from_static("/opentelemetry.proto.collector.trace.v1.TraceService/Export");
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
    ) -> Self {
        let queue = Arc::new(Queue::new(settings.queue_size, settings.batch_size));
        let (closing, closed) = watch::channel(false);
        let sending = Sending {
            queue: Arc::clone(&queue),
            exporter: Exporter::new(settings.otlp.clone()),
            resource: resource.into(),
        };
        let (batch, delay) = (settings.batch_size, settings.schedule_delay);
        Self {
            sampler: settings.sampler.clone(),
            ids: RandomIdGenerator::default(),
            queue,
            closing,
            task: Mutex::new(tokio::spawn(sending.run(batch, delay, closed))),
        }
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
struct Sending {
    queue: Arc<Queue>,
    exporter: Exporter,
    resource: Resource,
}

impl Sending {
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

    async fn send(&mut self, spans: Vec<Bytes>) -> Result<(), Status> {
        let request = self.request(spans);
        let answer = self.exporter.send(&request).await?;
        if let Some(partial) = answer.partial_success
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
