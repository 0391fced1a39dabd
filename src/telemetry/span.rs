//! A span of a sampled request: a `tracing` span with an explicit parent, from which
//! `tracing-opentelemetry` makes an OpenTelemetry span.
//!
//! Attributes are known when a span ends, and are set on the OpenTelemetry span itself:
//! `tracing-opentelemetry` copies each text of a `tracing` field into a new `String`.
//!
//! The start time and the trace id are chosen here, but neither the layer nor the SDK takes
//! them as parameters. A span starts when its request arrived or its call was accepted, not
//! when the layer sees it, and its length is that of the monotonic clock. A trace id is
//! sampled before its first span exists. So both wait in a thread-local variable, from which
//! [`Tracer`] and [`Ids`] take them.

use std::{borrow::Cow, cell::Cell, mem, time::SystemTime};

use opentelemetry::{
    Context, KeyValue,
    trace::{self, SpanBuilder, SpanId, Status, TraceContextExt as _, TraceId},
};
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator, SdkTracer};
use tracing::{Dispatch, Id, Level, dispatcher};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// The target of all spans.
pub(super) const TARGET: &str = "fanfare::span";
/// More attributes than most spans have.
const USUAL_ATTRIBUTES: usize = 16;

thread_local! {
    /// The span that this thread is just starting.
    static STARTING: Cell<Option<Start>> = const { Cell::new(None) };
}

#[derive(Clone, Copy)]
struct Start {
    at: SystemTime,
    /// Set for the first span of a trace.
    trace: Option<TraceId>,
}

/// A span that has started. It must be [ended](Self::end).
#[derive(Debug)]
pub(super) struct Span {
    /// For its children. It closes when it is dropped.
    span: tracing::Span,
    context: Context,
}

impl Drop for Span {
    fn drop(&mut self) {
        let span = mem::replace(&mut self.span, tracing::Span::none());
        // A registry releases the parent of a closed span through the thread's default
        // subscriber, even if that is another one (tracing-subscriber 0.3.23,
        // `DataInner::clear`).
        let dispatch = span.with_subscriber(|(_, dispatch)| dispatch.clone());
        if let Some(dispatch) = dispatch {
            dispatcher::with_default(&dispatch, || drop(span));
        }
    }
}

/// The kind of a span.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Server,
    Internal,
    Client,
}

impl Span {
    /// Starts the span of an RPC that arrived at `at`: a child of the span in `caller`, or
    /// without one, the root of the trace `trace`. `None` after telemetry was shut down.
    pub(super) fn server(
        dispatch: &Dispatch,
        caller: Context,
        trace: TraceId,
        name: &str,
        at: SystemTime,
    ) -> Option<Self> {
        let trace = Some(trace);
        Self::start(
            dispatch,
            None,
            Some(caller),
            Kind::Server,
            name,
            Start { at, trace },
        )
    }

    /// Starts the span of a call, a child of this one of its request.
    pub(super) fn internal(&self, name: &str, at: SystemTime) -> Option<Self> {
        self.child(Kind::Internal, name, at)
    }

    /// Starts the span of an attempt, a child of this one of its call.
    pub(super) fn client(&self, name: &str, at: SystemTime) -> Option<Self> {
        self.child(Kind::Client, name, at)
    }

    fn child(&self, kind: Kind, name: &str, at: SystemTime) -> Option<Self> {
        let start = Start { at, trace: None };
        let below = |(id, dispatch): (&Id, &Dispatch)| {
            Self::start(dispatch, Some(id), None, kind, name, start)
        };
        self.span.with_subscriber(below).flatten()
    }

    fn start(
        dispatch: &Dispatch,
        parent: Option<&Id>,
        caller: Option<Context>,
        kind: Kind,
        name: &str,
        start: Start,
    ) -> Option<Self> {
        STARTING.set(Some(start));
        let span = dispatcher::with_default(dispatch, || {
            tracing::span!(
                target: TARGET,
                parent: parent.cloned(),
                Level::INFO,
                "span",
                otel.name = name,
                otel.kind = kind.as_str(),
            )
        });
        if let Some(caller) = caller {
            // It fails only for a span that has started, or that nobody records.
            let _ = span.set_parent(caller);
        }
        // This makes the layer start the span now: its children and tools need its id.
        let context = span.context();
        STARTING.set(None);
        let is_recorded = context.span().span_context().is_valid();
        is_recorded.then_some(Self { span, context })
    }

    /// The OpenTelemetry context with the span, for lines of the log.
    pub(super) fn context(&self) -> &Context {
        &self.context
    }

    /// Its trace id and its own id.
    pub(super) fn ids(&self) -> (TraceId, SpanId) {
        let span = self.context.span();
        let ids = span.span_context();
        (ids.trace_id(), ids.span_id())
    }

    /// Ends the span at `at`, with these attributes; as an error if there is a message.
    pub(super) fn end(
        &self,
        at: SystemTime,
        attributes: impl IntoIterator<Item = KeyValue>,
        error: Option<Cow<'static, str>>,
    ) {
        let span = self.context.span();
        span.set_attributes(attributes);
        if let Some(description) = error {
            span.set_status(Status::Error { description });
        }
        span.end_with_timestamp(at);
    }
}

impl Kind {
    /// As `tracing-opentelemetry` reads it.
    fn as_str(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Internal => "internal",
            Self::Client => "client",
        }
    }
}

/// The SDK's tracer, except that spans start at the time that was chosen here.
#[derive(Debug)]
pub(super) struct Tracer(pub(super) SdkTracer);

impl trace::Tracer for Tracer {
    type Span = <SdkTracer as trace::Tracer>::Span;

    fn build_with_context(&self, mut builder: SpanBuilder, parent: &Context) -> Self::Span {
        if let Some(start) = STARTING.get() {
            builder.start_time = Some(start.at);
        }
        builder.attributes = Some(Vec::with_capacity(USUAL_ATTRIBUTES));
        self.0.build_with_context(builder, parent)
    }
}

/// Random ids, except for a trace id that was already sampled.
#[derive(Debug, Default)]
pub(super) struct Ids(RandomIdGenerator);

impl IdGenerator for Ids {
    fn new_trace_id(&self) -> TraceId {
        let sampled = STARTING.get().and_then(|start| start.trace);
        sampled.unwrap_or_else(|| self.0.new_trace_id())
    }

    fn new_span_id(&self) -> SpanId {
        self.0.new_span_id()
    }
}
