//! The calls of one request: an INTERNAL span, metrics and for a failure a line in
//! the log for each, when it has ended.

mod line;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use opentelemetry::KeyValue;
use tokio::time::Instant;

use super::{attempt, content, metrics::tool::ToolGauges, names, rpc::Record, span::Span};
use crate::core::{
    call::{Completion, ToolCall},
    error::Reason,
    observer::{AttemptObserver, AttemptReport, CallReport, Context, Observer, Outlasting},
};

/// Calls that waited less did not wait for each other.
const LEAST_WAIT: Duration = Duration::from_micros(100);

/// The calls of a running request.
#[derive(Debug)]
pub(crate) struct BatchTelemetry {
    record: Arc<Record>,
    calls: Arc<[ToolCall]>,
    states: Box<[CallState]>,
    started: Instant,
    /// How long the calls took that have ended, one after the other, in nanoseconds.
    sum: AtomicU64,
}

#[derive(Debug)]
struct CallState {
    gauges: Arc<ToolGauges>,
    /// `None` if the request is not sampled.
    span: Option<Span>,
}

impl CallState {
    /// The name of the tool, whatever `call` calls it by; if there is none, what that is.
    fn tool<'a>(&'a self, call: &'a ToolCall) -> &'a str {
        match &**self.gauges.name() {
            names::OTHER => &call.name,
            name => name,
        }
    }
}

/// A stream that is with its tool although its call has ended. Counted until this is
/// dropped.
struct StillActive(Arc<ToolGauges>);

impl BatchTelemetry {
    /// Of `calls`, which belong to the RPC of `record` and are queued from now on, each
    /// counted in the `gauges` at its place, if its name is that of a tool.
    pub(crate) fn start(
        record: &Arc<Record>,
        calls: &Arc<[ToolCall]>,
        gauges: Vec<Option<Arc<ToolGauges>>>,
    ) -> Self {
        let telemetry = &record.telemetry.0;
        let _ = record.batch_size.set(calls.len());
        let request = record.trace.span.as_ref();
        let started = Instant::now();
        let begins = record.wall(started);
        let state = |gauges: Option<Arc<ToolGauges>>| {
            let gauges = gauges.unwrap_or_else(|| Arc::clone(&telemetry.other_tools));
            gauges.begin();
            CallState {
                span: request.and_then(|span| span.internal(gauges.span_name(), begins)),
                gauges,
            }
        };
        if let Some(metrics) = &telemetry.metrics {
            metrics.batch_started(record.method, calls.len());
        }
        Self {
            record: Arc::clone(record),
            calls: Arc::clone(calls),
            states: gauges.into_iter().map(state).collect(),
            started,
            sum: AtomicU64::new(0),
        }
    }

    fn measure(&self, gauges: &ToolGauges, completion: &Completion) {
        let telemetry = &self.record.telemetry.0;
        let Some(metrics) = &telemetry.metrics else {
            return;
        };
        let duration = completion.end.saturating_duration_since(self.started);
        let reason = completion.outcome.as_ref().err().map(|error| &error.reason);
        let error_type = reason.map(Reason::as_str);
        metrics.call_ended(gauges, error_type, duration.as_secs_f64());
        if completion.queued >= LEAST_WAIT {
            let waited = completion.queued.as_secs_f64();
            metrics.queue_wait.record(waited, &[gauges.label()]);
        }
        if completion.attempts > 1 {
            let retries = u64::from(completion.attempts - 1);
            metrics.retries.add(retries, &[gauges.label()]);
        }
        match reason {
            Some(
                reason @ (Reason::UnknownTool(_)
                | Reason::InvalidArguments(_)
                | Reason::Overloaded
                | Reason::CircuitOpen),
            ) => {
                let reason = KeyValue::new(names::ERROR_TYPE, reason.as_str());
                metrics.tool_rejections.add(1, &[gauges.label(), reason]);
            }
            Some(Reason::DeadlineExceeded(limit)) => {
                let limit = KeyValue::new(names::CALL_LIMIT, limit.as_str());
                metrics.timeouts.add(1, &[gauges.label(), limit]);
            }
            _ => {}
        }
    }

    fn trace_end(&self, state: &CallState, completion: &Completion) {
        let Some(span) = &state.span else { return };
        let call = &self.calls[completion.index];
        let error = completion.outcome.as_ref().err();
        let limit = match error.map(|error| &error.reason) {
            Some(Reason::DeadlineExceeded(limit)) => Some(limit.as_str()),
            _ => None,
        };
        let attributes = [
            Some(KeyValue::new(names::OPERATION, names::EXECUTE_TOOL)),
            Some(KeyValue::new(names::TOOL_NAME, state.tool(call).to_owned())),
            Some(KeyValue::new(names::TOOL_TYPE, names::EXTENSION)),
            (!call.id.is_empty()).then(|| KeyValue::new(names::CALL_ID, call.id.clone())),
            Some(KeyValue::new(names::CALL_INDEX, completion.index as i64)),
            Some(KeyValue::new(
                names::CALL_ATTEMPTS,
                i64::from(completion.attempts),
            )),
            Some(KeyValue::new(
                names::CALL_QUEUED,
                completion.queued.as_secs_f64(),
            )),
            error.map(|error| KeyValue::new(names::ERROR_TYPE, error.reason.as_str())),
            error.map(|error| KeyValue::new(names::CALL_EFFECT, error.effect.as_str())),
            limit.map(|limit| KeyValue::new(names::CALL_LIMIT, limit)),
        ];
        let content = self.record.telemetry.0.capture_content;
        let content =
            content.map(|max_bytes| content::attributes(call, &completion.outcome, max_bytes));
        let attributes = attributes.into_iter().flatten();
        let attributes = attributes.chain(content.into_iter().flatten());
        let error = error.map(|error| error.message.clone().into());
        span.end(self.record.wall(completion.end), attributes, error);
    }
}

impl Observer for BatchTelemetry {
    fn call_started(&self, call: usize) {
        let gauges = &self.states[call].gauges;
        gauges.add_queued(-1);
        gauges.add_active(1);
    }

    fn call_ended(&self, call: &CallReport<'_>) {
        let completion = call.completion;
        let state = &self.states[completion.index];
        if call.was_started {
            state.gauges.add_active(-1);
        } else {
            state.gauges.add_queued(-1);
        }
        if !call.is_abandoned {
            if completion.outcome.is_ok() {
                self.record.succeeded.fetch_add(1, Ordering::Relaxed);
            }
            let duration = completion.end.saturating_duration_since(self.started);
            let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
            self.sum.fetch_add(nanos, Ordering::Relaxed);
        }
        self.measure(&state.gauges, completion);
        line::write(self, completion, call.is_abandoned);
        self.trace_end(state, completion);
    }

    fn batch_ended(&self) {
        if let Some(metrics) = &self.record.telemetry.0.metrics {
            let sum = Duration::from_nanos(self.sum.load(Ordering::Relaxed));
            let saved = sum.saturating_sub(self.started.elapsed()).as_secs_f64();
            metrics.time_saved(self.record.method, saved);
        }
    }

    fn attempt_started(&self, call: usize, start: Instant) -> Option<Box<dyn AttemptObserver>> {
        let call = self.states[call].span.as_ref()?;
        let span = call.client(names::CALL_TOOL, self.record.wall(start))?;
        let record = Arc::clone(&self.record);
        Some(Box::new(attempt::AttemptSpan { span, record }))
    }

    fn attempt_ended(&self, attempt: &AttemptReport<'_>) {
        let tool = &self.states[attempt.call].gauges;
        attempt::ended(&self.record, tool, attempt);
    }

    fn context(&self) -> Option<&dyn Context> {
        let is_something = self.record.trace.headers.is_something();
        is_something.then_some(&*self.record as &dyn Context)
    }

    fn stream_outlasts_call(&self, call: usize) -> Option<Outlasting> {
        let gauges = &self.states[call].gauges;
        gauges.add_active(1);
        Some(Outlasting::new(StillActive(Arc::clone(gauges))))
    }
}

impl Drop for StillActive {
    fn drop(&mut self) {
        self.0.add_active(-1);
    }
}
