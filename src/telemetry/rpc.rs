//! One RPC as its server sees it: a SERVER span, the RPC metrics and a line in
//! the log, all written when it has ended, whichever way it ends. It lasts until
//! the last byte of the response is handed over; one that is dropped before that
//! was cancelled, or ran out of time.

mod ending;

use std::{
    net::IpAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::SystemTime,
};

use http::{HeaderMap, Response, request::Parts};
use opentelemetry::{
    KeyValue,
    trace::{SpanContext, SpanId, TraceId},
};
use tokio::time::Instant;
use tonic::{Code, Status};

use super::{
    Telemetry, names,
    propagation::{Headers, traceparent},
    span::{Kind, SpanIds, Writer},
    spans::Spans,
};
use crate::{
    core::{deadline::Deadline, error::Limit},
    logging::correlation::{Ids, within},
};
pub(crate) use ending::Ending;

/// Services whose calls are routine: their lines are for debugging.
const ROUTINE: &str = "grpc.";

/// What is known of an RPC while it runs. Those who learn more of it add that.
#[derive(Debug)]
pub(crate) struct Record {
    pub(super) telemetry: Telemetry,
    /// An index into [`names::METHODS`].
    method: usize,
    pub(super) arrival: Instant,
    wall: SystemTime,
    peer: Option<IpAddr>,
    pub(super) trace: Trace,
    deadline: OnceLock<Deadline>,
    rejection: OnceLock<&'static str>,
    pub(super) batch_size: OnceLock<usize>,
    /// Of the calls. Those that have no outcome when the RPC ends fail with it.
    pub(super) succeeded: AtomicUsize,
}

/// Where an RPC stands in a trace.
#[derive(Debug)]
pub(super) struct Trace {
    /// The trace and the RPC's own span; `None` if no spans are made here.
    own: Option<(TraceId, SpanId)>,
    /// The caller's span, or the invalid one.
    parent: SpanId,
    pub(super) sampled: bool,
    /// What is passed on to tools. With spans, of an RPC that is not sampled.
    pub(super) headers: Headers,
    /// For the log: the own span, or without spans the caller's.
    pub(super) ids: Option<Ids>,
}

/// A running RPC. Ends when dropped, if not before.
#[derive(Debug)]
pub(crate) struct Rpc {
    record: Arc<Record>,
    ended: bool,
}

impl Rpc {
    /// An RPC that arrived just now from `peer`.
    pub(crate) fn start(
        telemetry: &Telemetry,
        request: &Parts,
        arrival: Instant,
        peer: Option<IpAddr>,
    ) -> Self {
        let path = request.uri.path().trim_start_matches('/');
        let last = names::METHODS.len() - 1;
        let method = names::METHODS[..last]
            .iter()
            .position(|name| *name == path)
            .unwrap_or(last);
        telemetry.0.running[method].fetch_add(1, Ordering::Relaxed);
        Self {
            record: Arc::new(Record {
                trace: Trace::of(telemetry, &request.headers, names::METHODS[method]),
                telemetry: telemetry.clone(),
                method,
                arrival,
                wall: SystemTime::now() - arrival.elapsed(),
                peer,
                deadline: OnceLock::new(),
                rejection: OnceLock::new(),
                batch_size: OnceLock::new(),
                succeeded: AtomicUsize::new(0),
            }),
            ended: false,
        }
    }

    /// For those who handle the request.
    pub(crate) fn record(&self) -> &Arc<Record> {
        &self.record
    }

    /// The response, whose end is the RPC's.
    pub(crate) fn ends_with<B>(mut self, response: Response<B>) -> Response<Ending<B>> {
        if let Some(code) = status(response.headers()) {
            self.end(code);
        }
        response.map(|inner| Ending::of(self, inner))
    }

    fn end(&mut self, code: Code) {
        if !self.ended {
            self.ended = true;
            self.record.end(code);
        }
    }
}

impl Drop for Rpc {
    fn drop(&mut self) {
        let deadline = self.record.deadline.get();
        let out_of_time =
            deadline.is_some_and(|deadline| deadline.remaining(Instant::now()).is_zero());
        self.end(if out_of_time {
            Code::DeadlineExceeded
        } else {
            Code::Cancelled
        });
    }
}

impl Trace {
    fn of(telemetry: &Telemetry, headers: &HeaderMap, method: &'static str) -> Self {
        let incoming = telemetry.0.propagators.extract(headers);
        let Some(spans) = &telemetry.0.spans else {
            return Self {
                own: None,
                parent: SpanId::INVALID,
                sampled: false,
                headers: incoming.headers,
                ids: incoming.parent.map(|parent| Ids {
                    trace_id: parent.trace_id().to_bytes(),
                    span_id: parent.span_id().to_bytes(),
                    sampled: parent.is_sampled(),
                }),
            };
        };
        let parent = incoming.parent.as_ref();
        let (trace, sampled) = spans.trace(parent, method);
        let span = spans.new_id();
        let mut headers = incoming.headers;
        // Without trace context, tools begin traces of their own.
        headers.traceparent = (telemetry.0.propagators.trace_context && !sampled)
            .then(|| traceparent(trace, span, false));
        Self {
            own: Some((trace, span)),
            parent: parent.map_or(SpanId::INVALID, SpanContext::span_id),
            sampled,
            headers,
            ids: Some(Ids {
                trace_id: trace.to_bytes(),
                span_id: span.to_bytes(),
                sampled,
            }),
        }
    }
}

impl Record {
    /// For the log.
    pub(crate) fn ids(&self) -> Option<Ids> {
        self.trace.ids
    }

    /// Notes by when it must be answered.
    pub(crate) fn set_deadline(&self, deadline: Deadline) {
        let _ = self.deadline.set(deadline);
    }

    /// Notes why it is not taken on. If that is a bound of the process, it is for
    /// operators to know.
    pub(crate) fn reject(&self, reason: &'static str) {
        let bound = match reason {
            "overloaded" => Some("limits.max_in_flight_calls"),
            "buffers_full" => Some("limits.max_buffered_bytes"),
            _ => None,
        };
        if let (Ok(()), Some(bound)) = (self.rejection.set(reason), bound) {
            tracing::warn!(throttle = bound, bound, "turned a request away: at {bound}");
        }
    }

    pub(super) fn method(&self) -> &'static str {
        names::METHODS[self.method]
    }

    /// The wall time of `at`.
    pub(super) fn wall(&self, at: Instant) -> SystemTime {
        self.wall + at.saturating_duration_since(self.arrival)
    }

    /// Of an RPC that was taken on.
    fn calls_and_failed(&self) -> Option<(usize, usize)> {
        let calls = *self.batch_size.get()?;
        let succeeded = self.succeeded.load(Ordering::Relaxed);
        Some((calls, calls.saturating_sub(succeeded)))
    }

    fn end(&self, code: Code) {
        let now = Instant::now();
        let name = names::code(code);
        let is_error = is_server_error(code);
        self.measure(now, name, is_error);
        self.log(now, name);
        self.trace_end(now, name, is_error);
    }

    fn measure(&self, now: Instant, code: &'static str, is_error: bool) {
        self.telemetry.0.running[self.method].fetch_sub(1, Ordering::Relaxed);
        let Some(metrics) = &self.telemetry.0.metrics else {
            return;
        };
        let method = KeyValue::new(names::RPC_METHOD, self.method());
        let attributes = [
            KeyValue::new(names::RPC_SYSTEM, names::GRPC),
            method.clone(),
            KeyValue::new(names::STATUS_CODE, code),
            KeyValue::new(names::ERROR_TYPE, code),
        ];
        let count = if is_error { 4 } else { 3 };
        let duration = now.duration_since(self.arrival).as_secs_f64();
        metrics
            .server_duration
            .record(duration, &attributes[..count]);
        let method = [method];
        // An answer without results says nothing of how long calls take.
        if self.batch_size.get().is_some()
            && let Some(deadline) = self.deadline.get()
            && deadline.limit == Limit::Request
        {
            let slack = deadline.remaining(now).as_secs_f64();
            metrics.deadline_slack.record(slack, &method);
        }
        if let Some(reason) = self.rejection.get() {
            let [method] = method;
            let reason = KeyValue::new(names::REJECTION_REASON, *reason);
            metrics.request_rejections.add(1, &[method, reason]);
        }
    }

    fn log(&self, now: Instant, code: &'static str) {
        let method = self.method();
        let duration = now.duration_since(self.arrival).as_secs_f64();
        let (calls, failed) = self.calls_and_failed().unzip();
        let peer = self.peer.map(tracing::field::display);
        let rejection = self.rejection.get();
        // What failed costs its caller nothing, and may come at any rate.
        let throttle = (code != names::code(Code::Ok)).then_some(code);
        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(
                    target: "fanfare::access",
                    throttle,
                    method,
                    code,
                    duration,
                    calls,
                    failed,
                    rejection,
                    peer,
                    "{code} {method}"
                )
            };
        }
        // It may end where it does not run: when its connection is dropped.
        within(self.trace.ids, || {
            if method.starts_with(ROUTINE) {
                line!(debug);
            } else {
                line!(info);
            }
        });
    }

    fn trace_end(&self, now: Instant, code: &str, is_error: bool) {
        let Some((spans, place)) = self.traced() else {
            return;
        };
        let method = self.method();
        // As the conventions ask for a method that is not known.
        let name = if method == names::OTHER {
            names::GRPC
        } else {
            method
        };
        let (start, end) = (self.wall, self.wall(now));
        let mut span = Writer::new(place, Kind::Server, name, start, end);
        span.text(names::RPC_SYSTEM, names::GRPC);
        span.text(names::RPC_METHOD, method);
        span.text(names::STATUS_CODE, code);
        if is_error {
            span.text(names::ERROR_TYPE, code);
            span.error("");
        }
        if let Some(peer) = self.peer {
            span.text(names::PEER_ADDRESS, &peer.to_string());
        }
        if let Some(deadline) = self.deadline.get() {
            let timeout = deadline.remaining(self.arrival).as_secs_f64();
            span.float(names::REQUEST_TIMEOUT, timeout);
        }
        if let Some((calls, failed)) = self.calls_and_failed() {
            span.int(names::BATCH_SIZE, calls as i64);
            span.int(names::BATCH_FAILED, failed as i64);
        }
        spans.take(span);
    }

    /// Where spans go, and the place of the RPC's; `None` if it is not sampled.
    pub(super) fn traced(&self) -> Option<(&Spans, SpanIds<'_>)> {
        let spans = self.telemetry.0.spans.as_ref();
        let (spans, (trace, span)) = spans.zip(self.trace.own)?;
        let place = SpanIds {
            trace,
            span,
            parent: self.trace.parent,
            parent_is_remote: true,
            state: self.trace.headers.state(),
        };
        self.trace.sampled.then_some((spans, place))
    }
}

/// The statuses that are the server's failure, by the RPC conventions; the others
/// are the caller's.
fn is_server_error(code: Code) -> bool {
    matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    )
}

fn status(headers: &HeaderMap) -> Option<Code> {
    let code = headers.get(Status::GRPC_STATUS)?;
    Some(Code::from_bytes(code.as_bytes()))
}
