//! One RPC as its server sees it: a SERVER span, the RPC metrics, and a line in the log.
//! It lasts until the last byte of the response has been handed to HTTP/2. An RPC that is
//! dropped before was cancelled, or its deadline had passed.

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
    Context, KeyValue,
    trace::{SpanContext, TraceContextExt as _, TraceFlags, TraceState},
};
use tokio::time::Instant;
use tonic::{Code, Status};

use super::{
    Telemetry, names,
    propagation::{Headers, Incoming, traceparent},
    span::Span,
};
use crate::core::{deadline::Deadline, error::Limit};
pub(crate) use ending::Ending;

/// How the services begin whose RPCs are routine: their lines have level `debug`.
const ROUTINE: &str = "grpc.";

/// What is known of an RPC while it runs. Later stages add what they learn.
#[derive(Debug)]
pub(crate) struct Record {
    pub(super) telemetry: Telemetry,
    /// An index into [`names::METHODS`].
    pub(super) method: usize,
    pub(super) arrival: Instant,
    wall: SystemTime,
    peer: Option<IpAddr>,
    pub(super) trace: Trace,
    deadline: OnceLock<Deadline>,
    rejection: OnceLock<&'static str>,
    pub(super) batch_size: OnceLock<usize>,
    /// How many calls have succeeded. Calls without an outcome fail when the RPC ends.
    pub(super) succeeded: AtomicUsize,
}

/// The place of an RPC in a trace.
#[derive(Debug)]
pub(super) struct Trace {
    /// `None` if it is not sampled, or spans go nowhere.
    pub(super) span: Option<Span>,
    /// What is passed on to tools. Of a sampled RPC, each attempt adds its `traceparent`.
    pub(super) headers: Headers,
    /// For lines of the log: the RPC's own span, even if it is not sampled; without an
    /// exporter of spans, the caller's.
    context: Context,
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
        let wall = SystemTime::now() - arrival.elapsed();
        Self {
            record: Arc::new(Record {
                trace: Trace::of(telemetry, &request.headers, names::METHODS[method], wall),
                telemetry: telemetry.clone(),
                method,
                arrival,
                wall,
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

    /// Makes the end of `response` the end of the RPC.
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
    fn of(
        telemetry: &Telemetry,
        headers: &HeaderMap,
        method: &'static str,
        arrival: SystemTime,
    ) -> Self {
        let Incoming {
            caller,
            mut headers,
        } = telemetry.0.propagators.extract(headers);
        let Some(spans) = &telemetry.0.spans else {
            return Self {
                span: None,
                headers,
                context: caller,
            };
        };
        let (trace, sampled) = spans.trace(&caller, method);
        if sampled {
            // As the conventions ask for a method that is not known.
            let name = match method {
                names::OTHER => names::GRPC,
                known => known,
            };
            let caller = known_by(&caller, &headers);
            if let Some(span) = spans.server(caller, trace, name, arrival) {
                // Each attempt has its own.
                headers.traceparent = None;
                return Self {
                    context: span.context().clone(),
                    span: Some(span),
                    headers,
                };
            }
        }
        let (span, flags) = (spans.new_id(), TraceFlags::default());
        headers.traceparent = telemetry
            .0
            .propagators
            .trace_context
            .then(|| traceparent(trace, span, false));
        let own = SpanContext::new(trace, span, flags, false, TraceState::default());
        Self {
            span: None,
            headers,
            context: Context::new().with_remote_span_context(own),
        }
    }
}

/// The caller's span, with that part of its state that is passed on.
fn known_by(caller: &Context, headers: &Headers) -> Context {
    let span = caller.span();
    let span = span.span_context();
    if !span.is_valid() {
        return Context::new();
    }
    let flags = TraceFlags::SAMPLED;
    let (trace, id, state) = (span.trace_id(), span.span_id(), headers.state());
    Context::new().with_remote_span_context(SpanContext::new(trace, id, flags, true, state))
}

impl Record {
    /// The span that lines of the log belong to.
    pub(crate) fn context(&self) -> &Context {
        &self.trace.context
    }

    /// Sets the deadline.
    pub(crate) fn set_deadline(&self, deadline: Deadline) {
        let _ = self.deadline.set(deadline);
    }

    /// Notes why it is rejected. If a limit of the process is the reason, the log says so, for
    /// operators.
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

    /// Whether it is of health or reflection.
    pub(crate) fn is_routine(&self) -> bool {
        self.method().starts_with(ROUTINE)
    }

    pub(super) fn method(&self) -> &'static str {
        names::METHODS[self.method]
    }

    /// The wall-clock time of `at`.
    pub(super) fn wall(&self, at: Instant) -> SystemTime {
        self.wall + at.saturating_duration_since(self.arrival)
    }

    /// Whether its calls were taken on.
    pub(crate) fn runs_calls(&self) -> bool {
        self.batch_size.get().is_some()
    }

    /// `None` if the RPC was rejected.
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
        let duration = now.duration_since(self.arrival).as_secs_f64();
        metrics.rpc_ended(self.method, code, is_error, duration);
        let method = || KeyValue::new(names::RPC_METHOD, self.method());
        // Rejected requests have no calls that took time.
        if self.runs_calls()
            && let Some(deadline) = self.deadline.get()
            && deadline.limit == Limit::Request
        {
            let slack = deadline.remaining(now).as_secs_f64();
            metrics.deadline_slack.record(slack, &[method()]);
        }
        if let Some(reason) = self.rejection.get() {
            let reason = KeyValue::new(names::REJECTION_REASON, *reason);
            metrics.request_rejections.add(1, &[method(), reason]);
        }
    }

    fn log(&self, now: Instant, code: &'static str) {
        let method = self.method();
        let duration = now.duration_since(self.arrival).as_secs_f64();
        let (calls, failed) = self.calls_and_failed().unzip();
        let peer = self.peer.map(tracing::field::display);
        let rejection = self.rejection.get();
        // Failures cost their callers nothing, and may come at any rate.
        let throttle = (code != "OK").then_some(code);
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
        // An RPC may end outside of its future: when its connection is dropped.
        let _about = self.trace.context.clone().attach();
        if self.is_routine() {
            line!(debug);
        } else {
            line!(info);
        }
    }

    fn trace_end(&self, now: Instant, code: &'static str, is_error: bool) {
        let Some(span) = &self.trace.span else { return };
        let peer = self.peer.map(|peer| peer.to_string());
        let timeout = self.deadline.get();
        let timeout = timeout.map(|deadline| deadline.remaining(self.arrival).as_secs_f64());
        let (calls, failed) = self.calls_and_failed().unzip();
        let attributes = [
            Some(KeyValue::new(names::RPC_SYSTEM, names::GRPC)),
            Some(KeyValue::new(names::RPC_METHOD, self.method())),
            Some(KeyValue::new(names::STATUS_CODE, code)),
            is_error.then(|| KeyValue::new(names::ERROR_TYPE, code)),
            peer.map(|peer| KeyValue::new(names::PEER_ADDRESS, peer)),
            timeout.map(|seconds| KeyValue::new(names::REQUEST_TIMEOUT, seconds)),
            calls.map(|calls| KeyValue::new(names::BATCH_SIZE, calls as i64)),
            failed.map(|failed| KeyValue::new(names::BATCH_FAILED, failed as i64)),
        ];
        let error = is_error.then(|| "".into());
        span.end(self.wall(now), attributes.into_iter().flatten(), error);
    }
}

/// Whether the RPC conventions take the status for a failure of the server, not of the
/// caller.
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
