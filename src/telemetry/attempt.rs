//! One attempt at a tool, as its client sees it: a CLIENT span and a metric, and
//! the trace context that the tool gets. An attempt that is dropped was cancelled
//! or ran out of time, and says so.

use std::{net::SocketAddr, sync::Arc};

use http::HeaderMap;
use opentelemetry::KeyValue;
use tokio::time::Instant;
use tonic::Code;
use tracing::Level;

use super::{batch::BatchTrace, names, propagation::traceparent, span::Span};
use crate::core::fanout::Invocation;

/// An endpoint of a tool service as telemetry names it: by what is configured, not
/// by the addresses that it resolves to.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    address: Arc<str>,
    port: i64,
}

impl Target {
    /// The endpoint at that port of `host`.
    pub(crate) fn new(host: &str, port: u16) -> Self {
        Self {
            address: Arc::from(host),
            port: i64::from(port),
        }
    }
}

/// One address behind a target.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    target: Target,
    address: Arc<str>,
    port: i64,
}

impl Peer {
    /// The address `socket` of `target`.
    pub(crate) fn new(target: &Target, socket: SocketAddr) -> Self {
        Self {
            target: target.clone(),
            address: Arc::from(socket.ip().to_string()),
            port: i64::from(socket.port()),
        }
    }
}

/// A running attempt. Ends when dropped, if not before.
#[derive(Debug)]
pub(crate) struct Attempt<'a> {
    batch: Option<&'a BatchTrace>,
    invocation: &'a Invocation,
    target: &'a Target,
    /// Where it went, once it has.
    peer: Option<Peer>,
    number: u32,
    /// `None` if the request is not sampled.
    span: Option<Span>,
    start: Instant,
    ended: bool,
}

impl<'a> Attempt<'a> {
    /// The next attempt at a call, at `target` or one of its siblings.
    pub(crate) fn start(invocation: &'a Invocation, target: &'a Target) -> Self {
        let batch = BatchTrace::of(invocation);
        let start = Instant::now();
        let span = batch.and_then(|batch| {
            let call = batch.state(invocation.index()).span.as_ref();
            call?.client(names::CALL_TOOL, batch.record.wall(start))
        });
        Self {
            batch,
            invocation,
            target,
            peer: None,
            number: invocation.next_attempt(),
            span,
            start,
            ended: false,
        }
    }

    /// When it began.
    pub(crate) fn began(&self) -> Instant {
        self.start
    }

    /// Whether there is context for the tool.
    pub(crate) fn has_context(&self) -> bool {
        self.span.is_some()
            || self
                .batch
                .is_some_and(|batch| batch.record.trace.headers.is_something())
    }

    /// Writes the context that the tool gets, for which there is so much `room`.
    pub(crate) fn inject(&self, headers: &mut HeaderMap, room: usize) {
        let Some(batch) = self.batch else { return };
        let own = self
            .span
            .as_ref()
            .filter(|_| batch.record.telemetry.0.propagators.trace_context)
            .map(|span| {
                let (trace, id) = span.ids();
                traceparent(trace, id, true)
            });
        let left_out = batch.record.trace.headers.inject(own, room, headers);
        if let Some(metrics) = &batch.record.telemetry.0.metrics {
            for header in left_out.names() {
                let header = KeyValue::new(names::CONTEXT_HEADER, header);
                metrics.context_left_out.add(1, &[header]);
            }
        }
    }

    /// Notes where it went.
    pub(crate) fn sent_to(&mut self, peer: &Peer) {
        self.peer = Some(peer.clone());
    }

    /// Notes how it ended, and if that is a failure, what the log would say.
    pub(crate) fn end(&mut self, code: Code, message: impl FnOnce() -> String) {
        if self.ended {
            return;
        }
        self.ended = true;
        let Some(batch) = self.batch else { return };
        let first_start = (self.number == 1).then_some(self.start);
        let asked = self.invocation.next_attempt() - 1;
        batch.attempted(self.invocation.index(), first_start, asked);
        let now = Instant::now();
        let code_name = names::code(code);
        self.measure(batch, now, code_name);
        let failed = code != Code::Ok;
        let logged = failed && tracing::enabled!(target: "fanfare::access", Level::DEBUG);
        let message = (logged || failed && self.span.is_some()).then(message);
        if let Some(message) = message.as_ref().filter(|_| logged) {
            self.log(batch, now, code_name, message);
        }
        let Some(span) = &self.span else { return };
        let target = self.target();
        let address = Arc::clone(&target.address);
        let peer = self.peer.as_ref();
        let peer_address = peer.map(|peer| Arc::clone(&peer.address));
        let attributes = [
            Some(KeyValue::new(names::RPC_SYSTEM, names::GRPC)),
            Some(KeyValue::new(names::RPC_METHOD, names::CALL_TOOL)),
            Some(KeyValue::new(names::SERVER_ADDRESS, address)),
            Some(KeyValue::new(names::SERVER_PORT, target.port)),
            peer_address.map(|address| KeyValue::new(names::PEER_ADDRESS, address)),
            peer.map(|peer| KeyValue::new(names::PEER_PORT, peer.port)),
            Some(KeyValue::new(names::ATTEMPT, i64::from(self.number))),
            Some(KeyValue::new(names::STATUS_CODE, code_name)),
            failed.then(|| KeyValue::new(names::ERROR_TYPE, code_name)),
        ];
        let attributes = attributes.into_iter().flatten();
        span.end(batch.record.wall(now), attributes, message.map(Into::into));
    }

    fn log(&self, batch: &BatchTrace, now: Instant, code: &str, error: &str) {
        let peer = self.peer.as_ref();
        let address = peer.map(|peer| format!("{}:{}", peer.address, peer.port));
        let _about = batch.record.context().clone().attach();
        tracing::debug!(
            target: "fanfare::access",
            tool = &*batch.state(self.invocation.index()).gauges.name,
            index = self.invocation.index(),
            attempt = self.number,
            code,
            address,
            duration = now.duration_since(self.start).as_secs_f64(),
            error,
            "an attempt failed"
        );
    }

    fn target(&self) -> &Target {
        self.peer.as_ref().map_or(self.target, |peer| &peer.target)
    }

    fn measure(&self, batch: &BatchTrace, now: Instant, code: &'static str) {
        let Some(metrics) = &batch.record.telemetry.0.metrics else {
            return;
        };
        let target = self.target();
        let tool = &batch.state(self.invocation.index()).gauges.name;
        let attributes = [
            KeyValue::new(names::RPC_SYSTEM, names::GRPC),
            KeyValue::new(names::RPC_METHOD, names::CALL_TOOL),
            KeyValue::new(names::SERVER_ADDRESS, Arc::clone(&target.address)),
            KeyValue::new(names::SERVER_PORT, target.port),
            KeyValue::new(names::TOOL_NAME, Arc::clone(tool)),
            KeyValue::new(names::STATUS_CODE, code),
            KeyValue::new(names::ERROR_TYPE, code),
        ];
        let count = if code == "OK" { 6 } else { 7 };
        let duration = now.duration_since(self.start).as_secs_f64();
        metrics
            .client_duration
            .record(duration, &attributes[..count]);
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
