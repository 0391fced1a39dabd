//! One attempt at a tool: a metric, a CLIENT span, and the trace context that the tool
//! gets.

use std::sync::Arc;

use opentelemetry::KeyValue;
use tracing::Level;

use super::{names, propagation::traceparent, rpc::Record, span::Span};
use crate::core::{
    observer::{AttemptObserver, AttemptReport, Carrier, Context},
    status::Code,
};

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
pub(super) fn ended(record: &Record, tool: &Arc<str>, attempt: &AttemptReport<'_>) {
    measure(record, tool, attempt);
    if let Some(message) = attempt.failure
        && tracing::enabled!(target: "fanfare::access", Level::DEBUG)
    {
        log(record, tool, attempt, &message());
    }
}

fn measure(record: &Record, tool: &Arc<str>, attempt: &AttemptReport<'_>) {
    let Some(metrics) = &record.telemetry.0.metrics else {
        return;
    };
    let (target, code) = (attempt.target(), attempt.code.name());
    let attributes = [
        KeyValue::new(names::RPC_SYSTEM, names::GRPC),
        KeyValue::new(names::RPC_METHOD, names::CALL_TOOL),
        KeyValue::new(names::SERVER_ADDRESS, Arc::clone(target.host())),
        KeyValue::new(names::SERVER_PORT, i64::from(target.port())),
        KeyValue::new(names::TOOL_NAME, Arc::clone(tool)),
        KeyValue::new(names::STATUS_CODE, code),
        KeyValue::new(names::ERROR_TYPE, code),
    ];
    let count = if attempt.code == Code::Ok { 6 } else { 7 };
    let duration = attempt.end.duration_since(attempt.start).as_secs_f64();
    metrics
        .client_duration
        .record(duration, &attributes[..count]);
}

fn log(record: &Record, tool: &Arc<str>, attempt: &AttemptReport<'_>, error: &str) {
    let peer = attempt.peer;
    let address = peer.map(|peer| format!("{}:{}", peer.ip(), peer.port()));
    let _about = record.context().clone().attach();
    tracing::debug!(
        target: "fanfare::access",
        tool = &**tool,
        index = attempt.call,
        attempt = attempt.number,
        code = attempt.code.name(),
        address,
        duration = attempt.end.duration_since(attempt.start).as_secs_f64(),
        error,
        "an attempt failed"
    );
}
