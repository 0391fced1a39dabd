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

use opentelemetry::KeyValue;
use tokio::time::Instant;

use super::{content, metrics::ToolGauges, names, rpc::Record, span::Span};
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
    /// `None` if the request is not sampled.
    pub(super) span: Option<Span>,
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
            let request = record.trace.span.as_ref();
            let started = Instant::now();
            let begins = record.wall(started);
            let state = |call: &ToolCall| {
                let gauges = Arc::clone(telemetry.tools.get(&call.name));
                gauges.queued.fetch_add(1, Ordering::Relaxed);
                CallState {
                    span: request.and_then(|span| span.internal(&gauges.span_name, begins)),
                    stage: AtomicU8::new(QUEUED),
                    attempts: AtomicU32::new(0),
                    queued: AtomicU64::new(0),
                    gauges,
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
                started,
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
        let Some(span) = &state.span else { return };
        let call = &self.calls[completion.index];
        let error = completion.outcome.as_ref().err();
        let limit = match error.map(|error| &error.reason) {
            Some(Reason::DeadlineExceeded(limit)) => Some(limit.as_str()),
            _ => None,
        };
        let attributes = [
            Some(KeyValue::new(names::OPERATION, names::EXECUTE_TOOL)),
            Some(KeyValue::new(names::TOOL_NAME, call.name.clone())),
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
