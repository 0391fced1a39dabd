//! The calls of one request: an INTERNAL span, metrics and for a failure a line in
//! the log for each, when its outcome is known. Those that have none when the
//! request is dropped were cancelled with it.

mod line;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use opentelemetry::{KeyValue, trace::SpanId};
use tokio::time::Instant;

use super::{
    content,
    metrics::ToolGauges,
    names,
    rpc::Record,
    span::{Kind, SpanIds, Writer},
    spans::Spans,
};
use crate::core::{
    call::{Attachment, Completion, ToolCall},
    error::{CallError, Effect, Reason},
    fanout::Invocation,
};

/// Calls that waited less did not wait for each other.
const LEAST_WAIT: Duration = Duration::from_micros(100);

/// How far a call is.
const QUEUED: u8 = 0;
const ACTIVE: u8 = 1;
const ENDED: u8 = 2;

/// The calls of a running request.
#[derive(Debug)]
pub(crate) struct BatchTelemetry {
    trace: Option<Arc<BatchTrace>>,
    sum: Duration,
}

/// What travels with the calls to where their tools are called.
#[derive(Debug)]
pub(crate) struct BatchTrace {
    pub(super) record: Arc<Record>,
    calls: Arc<[ToolCall]>,
    states: Box<[CallState]>,
    started: Instant,
}

#[derive(Debug)]
pub(super) struct CallState {
    pub(super) gauges: Arc<ToolGauges>,
    /// Invalid if the request is not sampled.
    pub(super) span: SpanId,
    stage: AtomicU8,
    /// Of a call that nobody will report: its attempts, and the nanoseconds that
    /// it waited for its turn.
    attempts: AtomicU32,
    queued: AtomicU64,
}

impl BatchTelemetry {
    /// Of `calls`, which belong to the RPC of `record`; of nothing without.
    pub(crate) fn start(record: Option<&Arc<Record>>, calls: &Arc<[ToolCall]>) -> Self {
        let trace = record.map(|record| {
            let telemetry = &record.telemetry.0;
            let _ = record.batch_size.set(calls.len());
            let spans = record.traced().map(|(spans, _)| spans);
            let state = |call: &ToolCall| {
                let gauges = Arc::clone(telemetry.tools.get(&call.name));
                gauges.queued.fetch_add(1, Ordering::Relaxed);
                CallState {
                    gauges,
                    span: spans.map_or(SpanId::INVALID, Spans::new_id),
                    stage: AtomicU8::new(QUEUED),
                    attempts: AtomicU32::new(0),
                    queued: AtomicU64::new(0),
                }
            };
            if let Some(metrics) = &telemetry.metrics {
                let method = [KeyValue::new(names::RPC_METHOD, record.method())];
                metrics.batch_size.record(calls.len() as u64, &method);
            }
            Arc::new(BatchTrace {
                record: Arc::clone(record),
                calls: Arc::clone(calls),
                states: calls.iter().map(state).collect(),
                started: Instant::now(),
            })
        });
        Self {
            trace,
            sum: Duration::ZERO,
        }
    }

    /// What is to travel with the calls.
    pub(crate) fn attachment(&self) -> Attachment {
        match &self.trace {
            Some(trace) => Attachment::new(Arc::clone(trace)),
            None => Attachment::default(),
        }
    }

    /// Notes that a call has ended.
    pub(crate) fn completed(&mut self, completion: &Completion) {
        let Some(trace) = &self.trace else { return };
        if completion.outcome.is_ok() {
            trace.record.succeeded.fetch_add(1, Ordering::Relaxed);
        }
        self.sum += completion.end.saturating_duration_since(trace.started);
        trace.end(completion, false);
    }
}

impl Drop for BatchTelemetry {
    fn drop(&mut self) {
        let Some(trace) = self.trace.take() else {
            return;
        };
        let now = Instant::now();
        for (index, state) in trace.states.iter().enumerate() {
            let queued = match state.stage.load(Ordering::Relaxed) {
                QUEUED => now.saturating_duration_since(trace.started),
                ACTIVE => Duration::from_nanos(state.queued.load(Ordering::Relaxed)),
                _ => continue,
            };
            let attempts = state.attempts.load(Ordering::Relaxed);
            let effect = match attempts {
                0 => Effect::NotStarted,
                _ => Effect::Maybe,
            };
            let message = "the caller is gone";
            let error = CallError::new(Reason::Cancelled, effect, false, message);
            let completion = Completion {
                index,
                outcome: Err(error),
                end: now,
                queued,
                attempts,
            };
            trace.end(&completion, true);
        }
        let record = &trace.record;
        if let Some(metrics) = &record.telemetry.0.metrics {
            let wall = now.duration_since(trace.started);
            let saved = self.sum.saturating_sub(wall).as_secs_f64();
            let method = [KeyValue::new(names::RPC_METHOD, record.method())];
            metrics.saved_time.add(saved, &method);
        }
    }
}

impl BatchTrace {
    /// Of the batch that a call belongs to.
    pub(super) fn of(invocation: &Invocation) -> Option<&Self> {
        invocation.attachment().get()
    }

    pub(super) fn state(&self, index: usize) -> &CallState {
        &self.states[index]
    }

    /// Notes that an attempt has ended, and how often the tool was asked by now.
    pub(super) fn attempted(&self, index: usize, first_start: Option<Instant>, attempts: u32) {
        let state = self.state(index);
        state.attempts.store(attempts, Ordering::Relaxed);
        if let Some(start) = first_start {
            let queued = start.saturating_duration_since(self.started).as_nanos();
            let queued = u64::try_from(queued).unwrap_or(u64::MAX);
            state.queued.store(queued, Ordering::Relaxed);
        }
    }

    fn end(&self, completion: &Completion, caller_is_gone: bool) {
        let state = &self.states[completion.index];
        let gauges = &state.gauges;
        match state.stage.swap(ENDED, Ordering::Relaxed) {
            QUEUED => gauges.queued.fetch_sub(1, Ordering::Relaxed),
            ACTIVE => gauges.active.fetch_sub(1, Ordering::Relaxed),
            _ => 0,
        };
        self.measure(gauges, completion);
        line::write(self, completion, caller_is_gone);
        self.trace_end(state, completion);
    }

    fn measure(&self, gauges: &ToolGauges, completion: &Completion) {
        let telemetry = &self.record.telemetry.0;
        let Some(metrics) = &telemetry.metrics else {
            return;
        };
        let duration = completion.end.saturating_duration_since(self.started);
        let error = completion.outcome.as_ref().err();
        let name = || KeyValue::new(names::TOOL_NAME, Arc::clone(&gauges.name));
        let error_type = error.map_or("", |error| error.reason.as_str());
        let attributes = [
            name(),
            KeyValue::new(names::TOOL_TYPE, names::EXTENSION),
            KeyValue::new(names::ERROR_TYPE, error_type),
        ];
        let count = if error.is_some() { 3 } else { 2 };
        metrics
            .tool_duration
            .record(duration.as_secs_f64(), &attributes[..count]);
        if completion.queued >= LEAST_WAIT {
            let waited = completion.queued.as_secs_f64();
            metrics.queue_wait.record(waited, &attributes[..1]);
        }
        if completion.attempts > 1 {
            let retries = u64::from(completion.attempts - 1);
            metrics.retries.add(retries, &attributes[..1]);
        }
        if let Some(error) = error
            && matches!(
                error.reason,
                Reason::UnknownTool
                    | Reason::InvalidArguments(_)
                    | Reason::Overloaded
                    | Reason::CircuitOpen
            )
        {
            let reason = KeyValue::new(names::ERROR_TYPE, error_type);
            metrics.tool_rejections.add(1, &[name(), reason]);
        }
        if let Some(Reason::DeadlineExceeded(limit)) = error.map(|error| &error.reason) {
            let limit = KeyValue::new(names::CALL_LIMIT, limit.as_str());
            metrics.timeouts.add(1, &[name(), limit]);
        }
    }

    fn trace_end(&self, state: &CallState, completion: &Completion) {
        let Some((spans, place)) = self.record.traced() else {
            return;
        };
        let call = &self.calls[completion.index];
        let place = SpanIds {
            span: state.span,
            parent: place.span,
            parent_is_remote: false,
            ..place
        };
        let start = self.record.wall(self.started);
        let end = self.record.wall(completion.end);
        let name = &state.gauges.span_name;
        let mut span = Writer::new(place, Kind::Internal, name, start, end);
        span.text(names::OPERATION, names::EXECUTE_TOOL);
        span.text(names::TOOL_NAME, &call.name);
        span.text(names::TOOL_TYPE, names::EXTENSION);
        if !call.id.is_empty() {
            span.text(names::CALL_ID, &call.id);
        }
        span.int(names::CALL_INDEX, completion.index as i64);
        span.int(names::CALL_ATTEMPTS, i64::from(completion.attempts));
        span.float(names::CALL_QUEUED, completion.queued.as_secs_f64());
        if let Some(max_bytes) = self.record.telemetry.0.capture_content {
            content::add(&mut span, call, &completion.outcome, max_bytes);
        }
        if let Err(error) = &completion.outcome {
            span.text(names::ERROR_TYPE, error.reason.as_str());
            span.text(names::CALL_EFFECT, error.effect.as_str());
            if let Reason::DeadlineExceeded(limit) = error.reason {
                span.text(names::CALL_LIMIT, limit.as_str());
            }
            span.error(&error.message);
        }
        spans.take(span);
    }
}

/// Notes that a call's turn has come: it is with its tool from here on.
pub(crate) fn started(invocation: &Invocation) {
    if let Some(trace) = BatchTrace::of(invocation) {
        let state = trace.state(invocation.index());
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        if state
            .stage
            .compare_exchange(QUEUED, ACTIVE, set, fetch)
            .is_ok()
        {
            state.gauges.queued.fetch_sub(1, Ordering::Relaxed);
            state.gauges.active.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A stream that is with its tool although its call has ended. Counted until this is
/// dropped.
#[derive(Debug)]
pub(crate) struct StillActive(Arc<ToolGauges>);

impl StillActive {
    /// Of a call whose stream is still to be reset.
    pub(crate) fn of(invocation: &Invocation) -> Option<Self> {
        let gauges = &BatchTrace::of(invocation)?.state(invocation.index()).gauges;
        gauges.active.fetch_add(1, Ordering::Relaxed);
        Some(Self(Arc::clone(gauges)))
    }
}

impl Drop for StillActive {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::Relaxed);
    }
}
