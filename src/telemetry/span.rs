//! One span of a request that is sampled: a span of `tracing`, with its parent given,
//! which `tracing-opentelemetry` turns into one of OpenTelemetry.
//!
//! What a span says is known when it ends. It is then set on the OpenTelemetry span
//! itself: a field of a `tracing` span would be copied into a new `String` each.
//!
//! Times are ours: a span begins when its request arrived or its call was accepted, not
//! when the layer sees it, and lasts as long as the monotonic clock says. Neither the
//! layer nor the SDK has a parameter for that, nor for the id of a trace that was sampled
//! before its first span was made; [`Tracer`] and [`Ids`] are told of both in passing.

use std::{borrow::Cow, cell::Cell, mem, time::SystemTime};

use opentelemetry::{
    Context, KeyValue,
    trace::{self, SpanBuilder, SpanId, Status, TraceContextExt as _, TraceId},
};
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator, SdkTracer};
use tracing::{Dispatch, Id, Level, dispatcher};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// Of all spans.
pub(super) const TARGET: &str = "fanfare::span";
/// More attributes than a span usually has.
const USUAL_ATTRIBUTES: usize = 16;

thread_local! {
    /// The span that is just being started in this thread.
    static STARTING: Cell<Option<Start>> = const { Cell::new(None) };
}

#[derive(Clone, Copy)]
struct Start {
    at: SystemTime,
    /// Of the first span of a trace.
    trace: Option<TraceId>,
}

/// A running span. Whoever has it must [end](Self::end) it.
#[derive(Debug)]
pub(super) struct Span {
    /// Closed when dropped.
    span: tracing::Span,
    context: Context,
}

impl Drop for Span {
    fn drop(&mut self) {
        let span = mem::replace(&mut self.span, tracing::Span::none());
        // The registry closes the parent's handle through the default subscriber, whichever
        // that is (tracing-subscriber 0.3.23, `DataInner::clear`).
        let dispatch = span.with_subscriber(|(_, dispatch)| dispatch.clone());
        if let Some(dispatch) = dispatch {
            dispatcher::with_default(&dispatch, || drop(span));
        }
    }
}

/// Whose side a span tells of.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Server,
    Internal,
    Client,
}

impl Span {
    /// The span of an RPC that arrived `at` that time, below the span that `caller` has or,
    /// without one, the first of the new trace `trace`. `None` once telemetry has ended.
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

    /// The span of a call, below that of its request.
    pub(super) fn internal(&self, name: &str, at: SystemTime) -> Option<Self> {
        self.child(Kind::Internal, name, at)
    }

    /// The span of an attempt, below that of its call.
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
            // Only spans that have begun refuse it, and those that nobody records.
            let _ = span.set_parent(caller);
        }
        // The layer begins it now: whatever is below it needs its id.
        let context = span.context();
        STARTING.set(None);
        let is_recorded = context.span().span_context().is_valid();
        is_recorded.then_some(Self { span, context })
    }

    /// For what is below it, and for lines of the log.
    pub(super) fn context(&self) -> &Context {
        &self.context
    }

    /// Trace and id, for who is told of them.
    pub(super) fn ids(&self) -> (TraceId, SpanId) {
        let span = self.context.span();
        let ids = span.span_context();
        (ids.trace_id(), ids.span_id())
    }

    /// Ends it `at` that time, with what it says; if it failed, with the message.
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

/// Starts spans as the SDK does, at the time that they were given.
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

/// Random ids, but for a trace that was sampled by its own.
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
