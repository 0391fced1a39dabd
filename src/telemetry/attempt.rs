//! One attempt at a tool: a metric, a CLIENT span, and the trace context that the tool
//! gets.

use std::sync::Arc;

use opentelemetry::KeyValue;
use tracing::Level;

use super::{metrics::tool::ToolGauges, names, propagation::traceparent, rpc::Record, span::Span};
use crate::core::observer::{AttemptObserver, AttemptReport, Carrier, Context};

/// The span of an attempt that is under way.
#[derive(Debug)]
pub(super) struct AttemptSpan {
    pub(super) span: Span,
    pub(super) record: Arc<Record>,
}

impl AttemptObserver for AttemptSpan {
    fn ended(self: Box<Self>, attempt: &AttemptReport<'_>) {
        let target = attempt.target();
        let peer = attempt.peer;
        let code = attempt.code.name();
        let failed = attempt.failure.is_some();
        let attributes = [
            Some(KeyValue::new(names::RPC_SYSTEM, names::GRPC)),
            Some(KeyValue::new(names::RPC_METHOD, names::CALL_TOOL)),
            Some(KeyValue::new(
                names::SERVER_ADDRESS,
                Arc::clone(target.host()),
            )),
            Some(KeyValue::new(names::SERVER_PORT, i64::from(target.port()))),
            peer.map(|peer| KeyValue::new(names::PEER_ADDRESS, Arc::clone(peer.ip()))),
            peer.map(|peer| KeyValue::new(names::PEER_PORT, i64::from(peer.port()))),
            Some(KeyValue::new(names::ATTEMPT, i64::from(attempt.number))),
            Some(KeyValue::new(names::STATUS_CODE, code)),
            failed.then(|| KeyValue::new(names::ERROR_TYPE, code)),
        ];
        let attributes = attributes.into_iter().flatten();
        let message = attempt.failure.map(|message| message().into());
        self.span
            .end(self.record.wall(attempt.end), attributes, message);
    }
}

impl Context for AttemptSpan {
    fn inject(&self, carrier: &mut dyn Carrier) {
        self.record.inject(Some(&self.span), carrier);
    }
}

/// What attempts without a span of their own pass on.
impl Context for Record {
    fn inject(&self, carrier: &mut dyn Carrier) {
        Record::inject(self, None, carrier);
    }
}

impl Record {
    fn inject(&self, attempt: Option<&Span>, carrier: &mut dyn Carrier) {
        let own = attempt
            .filter(|_| self.telemetry.0.propagators.trace_context)
            .map(|span| {
                let (trace, id) = span.ids();
                traceparent(trace, id, true)
            });
        let left_out = self.trace.headers.inject(own.as_ref(), carrier);
        if let Some(metrics) = &self.telemetry.0.metrics {
            for header in left_out.names() {
                let header = KeyValue::new(names::CONTEXT_HEADER, header);
                metrics.context_left_out.add(1, &[header]);
            }
        }
    }
}

/// Notes that an attempt at a call of `tool` has ended.
pub(super) fn ended(record: &Record, tool: &ToolGauges, attempt: &AttemptReport<'_>) {
    if let Some(metrics) = &record.telemetry.0.metrics {
        let seconds = attempt.end.duration_since(attempt.start).as_secs_f64();
        metrics.attempt_ended(tool, attempt.target(), attempt.code.name(), seconds);
    }
    if let Some(message) = attempt.failure
        && tracing::enabled!(target: "fanfare::access", Level::DEBUG)
    {
        log(record, tool.name(), attempt, &message());
    }
}

fn log(record: &Record, tool: &str, attempt: &AttemptReport<'_>, error: &str) {
    let peer = attempt.peer;
    let address = peer.map(|peer| format!("{}:{}", peer.ip(), peer.port()));
    let _about = record.context().clone().attach();
    tracing::debug!(
        target: "fanfare::access",
        tool,
        index = attempt.call,
        attempt = attempt.number,
        code = attempt.code.name(),
        address,
        duration = attempt.end.duration_since(attempt.start).as_secs_f64(),
        error,
        "an attempt failed"
    );
}
