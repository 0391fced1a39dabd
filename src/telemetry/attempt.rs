//! One attempt at a tool, as its client sees it: a CLIENT span and a metric, and
//! the trace context that the tool gets. An attempt that is dropped was cancelled
//! or ran out of time, and says so.

use std::sync::Arc;

use http::{HeaderMap, Uri};
use opentelemetry::{
    KeyValue,
    trace::{SpanId, SpanKind, Status as SpanStatus},
};
use tokio::time::Instant;
use tonic::Code;

use super::{
    batch::BatchTrace,
    names,
    propagation::traceparent,
    spans::{Place, Span},
};
use crate::fanout::Invocation;

/// The tool service as telemetry names it: by what is configured, not by the
/// addresses that it resolves to.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    address: Arc<str>,
    port: i64,
}

impl Target {
    /// The service at `endpoint`.
    pub(crate) fn new(endpoint: &Uri) -> Self {
        let https = endpoint.scheme_str() == Some("https");
        let port = endpoint.port_u16().unwrap_or(if https { 443 } else { 80 });
        Self {
            address: Arc::from(endpoint.host().unwrap_or_default()),
            port: i64::from(port),
        }
    }
}

/// A running attempt. Ends when dropped, if not before.
#[derive(Debug)]
pub(crate) struct Attempt<'a> {
    batch: Option<&'a BatchTrace>,
    invocation: &'a Invocation,
    target: &'a Target,
    number: u32,
    /// Invalid if the request is not sampled.
    span: SpanId,
    start: Instant,
    ended: bool,
}

impl<'a> Attempt<'a> {
    /// The next attempt at a call, at `target`.
    pub(crate) fn start(invocation: &'a Invocation, target: &'a Target) -> Self {
        let batch = BatchTrace::of(invocation);
        let span = batch
            .filter(|batch| batch.record.trace.sampled)
            .and_then(|batch| batch.record.telemetry.0.spans.as_ref())
            .map_or(SpanId::INVALID, |spans| spans.new_id());
        Self {
            batch,
            invocation,
            target,
            number: invocation.next_attempt(),
            span,
            start: Instant::now(),
            ended: false,
        }
    }

    /// Writes the context that the tool gets.
    pub(crate) fn inject(&self, headers: &mut HeaderMap) {
        let Some(batch) = self.batch else { return };
        let trace = &batch.record.trace;
        let propagators = batch.record.telemetry.0.propagators;
        let own = trace
            .place
            .as_ref()
            .filter(|_| trace.sampled && propagators.trace_context)
            .map(|place| traceparent(place.trace, self.span, true));
        trace.headers.inject(own, headers);
    }

    /// Notes how it ended, and if that is a failure, what the log would say.
    pub(crate) fn end(&mut self, code: Code, message: impl FnOnce() -> String) {
        if self.ended {
            return;
        }
        self.ended = true;
        let Some(batch) = self.batch else { return };
        let now = Instant::now();
        let code_name = names::code(code);
        let is_error = code != Code::Ok;
        let mut attributes = [
            KeyValue::new(names::RPC_SYSTEM, names::GRPC),
            KeyValue::new(names::RPC_METHOD, names::CALL_TOOL),
            KeyValue::new(names::SERVER_ADDRESS, Arc::clone(&self.target.address)),
            KeyValue::new(names::SERVER_PORT, self.target.port),
            KeyValue::new(names::STATUS_CODE, code_name),
            KeyValue::new(
                names::TOOL_NAME,
                Arc::clone(&batch.state(self.invocation.index()).gauges.name),
            ),
            KeyValue::new(names::ERROR_TYPE, code_name),
        ];
        let count = if is_error { 7 } else { 6 };
        if let Some(metrics) = &batch.record.telemetry.0.metrics {
            let duration = now.duration_since(self.start).as_secs_f64();
            metrics
                .client_duration
                .record(duration, &attributes[..count]);
        }
        let (Some(spans), Some(place)) =
            (&batch.record.telemetry.0.spans, &batch.record.trace.place)
        else {
            return;
        };
        if !batch.record.trace.sampled {
            return;
        }
        // The parent says which tool it is.
        attributes[5] = KeyValue::new(names::ATTEMPT, i64::from(self.number));
        spans.take(Span {
            place: Place {
                span: self.span,
                parent: batch.state(self.invocation.index()).span,
                parent_is_remote: false,
                ..place.clone()
            },
            kind: SpanKind::Client,
            name: names::CALL_TOOL.into(),
            start: batch.record.wall(self.start),
            end: batch.record.wall(now),
            attributes: attributes[..count].to_vec(),
            status: if is_error {
                SpanStatus::error(message())
            } else {
                SpanStatus::Unset
            },
        });
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let remaining = self.invocation.deadline().remaining(Instant::now());
        if remaining.is_zero() {
            self.end(Code::DeadlineExceeded, || "ran out of time".to_owned());
        } else {
            self.end(Code::Cancelled, || "cancelled".to_owned());
        }
    }
}
