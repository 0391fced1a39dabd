use std::{
    future::ready,
    sync::{Arc, Mutex},
};

use fanfare::pb;
use tonic::{Request, metadata::MetadataMap};

use crate::support::{
    call as tool_call, config,
    observed::{Observed, Seen},
    request,
    spans::{Kind, flat},
    tools::ServiceFn,
};

pub(super) const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
pub(super) const SAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
pub(super) const UNSAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
const STATE: &str = "congo=t61rcWkgMzE, rojo=00f067aa0ba902b7";
const BAGGAGE: &str = "user=Am%C3%A9lie;p=1 , session=1234";

/// What a tool got of the context, by header; several values are listed.
#[derive(Debug, PartialEq)]
pub(super) struct Context {
    traceparent: Vec<String>,
    tracestate: Vec<String>,
    baggage: Vec<String>,
}

impl Context {
    fn of(metadata: &MetadataMap) -> Self {
        let all = |name| {
            let values = metadata.get_all(name).iter();
            values
                .map(|value| value.to_str().unwrap().to_owned())
                .collect()
        };
        Self {
            traceparent: all("traceparent"),
            tracestate: all("tracestate"),
            baggage: all("baggage"),
        }
    }

    fn without_parent(&self) -> (&[String], &[String]) {
        (&self.tracestate, &self.baggage)
    }

    /// Trace, span, flags.
    pub(super) fn parent(&self) -> (&str, &str, &str) {
        let [parent] = &self.traceparent[..] else {
            panic!("no parent: {self:?}");
        };
        let parts: Vec<_> = parent.split('-').collect();
        assert_eq!((parts.len(), parts[0]), (4, "00"), "{parent}");
        (parts[1], parts[2], parts[3])
    }
}

/// What a caller sends: `traceparent`, and with it a state and baggage.
pub(super) fn from(traceparent: &str) -> [(&'static str, &str); 3] {
    [
        ("traceparent", traceparent),
        ("tracestate", STATE),
        ("baggage", BAGGAGE),
    ]
}

/// What the tool is told when the caller sends `headers`, and what is seen of it.
pub(super) async fn told(
    variables: &[(&str, &str)],
    headers: &[(&'static str, &str)],
) -> (Context, Seen) {
    let noted = Arc::new(Mutex::new(Vec::new()));
    let notes = Arc::clone(&noted);
    let tools = ServiceFn(move |request: Request<pb::CallToolRequest>| {
        notes.lock().unwrap().push(request.metadata().clone());
        ready(Ok(None))
    });
    let mut observed = Observed::with(config(), tools, variables).await;
    let mut request = Request::new(request(vec![tool_call("", "echo")]));
    for (name, value) in headers {
        request.metadata_mut().append(*name, value.parse().unwrap());
    }

    observed.client.execute_tools(request).await.unwrap();

    let noted = std::mem::take(&mut *noted.lock().unwrap());
    assert_eq!(noted.len(), 1);
    (Context::of(&noted[0]), observed.end().await)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(start_paused = true)]
async fn without_an_exporter_the_context_goes_on_as_it_came() {
    let off = [("OTEL_TRACES_EXPORTER", "none")];
    for parent in [SAMPLED, UNSAMPLED] {
        let (context, seen) = told(&off, &from(parent)).await;
        assert_eq!(
            context,
            Context {
                traceparent: vec![parent.to_owned()],
                tracestate: vec![STATE.to_owned()],
                baggage: vec![BAGGAGE.to_owned()],
            }
        );
        assert!(seen.received.traces.is_empty());
        tokio::time::pause();
    }
    let (context, _) = told(&off, &[]).await;
    assert_eq!(context.traceparent, [""; 0]);
    assert_eq!(context.without_parent(), (&[][..], &[][..]));
}

#[tokio::test(start_paused = true)]
async fn the_tools_parent_is_the_attempt_and_the_callers_span_is_the_requests() {
    let (context, seen) = told(&[], &from(SAMPLED)).await;

    let spans = flat(&seen.received.traces);
    assert_eq!(spans.len(), 3);
    assert!(spans.iter().all(|span| hex(&span.trace_id) == TRACE));
    let state = STATE.replace(", ", ",");
    assert!(spans.iter().all(|span| span.trace_state == state));
    let tree = seen.tree();
    let client = &tree.children[0].children[0];
    assert_eq!((tree.kind, client.kind), (Kind::Server, Kind::Client));
    let find = |kind: i32| spans.iter().find(|span| span.kind == kind).unwrap();
    assert_eq!(hex(&find(2).parent_span_id), "b7ad6b7169203331");
    let attempt = hex(&find(3).span_id);
    assert_eq!(context.parent(), (TRACE, attempt.as_str(), "01"));
    let unchanged = (&[STATE.to_owned()][..], &[BAGGAGE.to_owned()][..]);
    assert_eq!(context.without_parent(), unchanged);
}

#[tokio::test(start_paused = true)]
async fn without_a_caller_that_traces_a_trace_begins_here() {
    let (context, seen) = told(&[], &[("baggage", BAGGAGE), ("tracestate", STATE)]).await;

    let spans = flat(&seen.received.traces);
    let trace = hex(&spans[0].trace_id);
    assert_ne!(trace, "0".repeat(32));
    let attempt = spans.iter().find(|span| span.kind == 3).unwrap();
    let attempt = hex(&attempt.span_id);
    assert_eq!(context.parent(), (trace.as_str(), attempt.as_str(), "01"));
    // A state belongs to a parent.
    let baggage = (&[][..], &[BAGGAGE.to_owned()][..]);
    assert_eq!(context.without_parent(), baggage);
    assert!(seen.tree().error.is_none());
}

#[tokio::test(start_paused = true)]
async fn what_the_caller_does_not_sample_is_not_exported_and_the_tool_is_told() {
    let (context, seen) = told(&[], &from(UNSAMPLED)).await;

    let (trace, _, flags) = context.parent();
    assert_eq!((trace, flags), (TRACE, "00"));
    let unchanged = (&[STATE.to_owned()][..], &[BAGGAGE.to_owned()][..]);
    assert_eq!(context.without_parent(), unchanged);
    assert!(seen.received.traces.is_empty());
}

#[tokio::test(start_paused = true)]
async fn propagators_can_be_chosen() {
    let none = [("OTEL_PROPAGATORS", "none")];
    let (context, seen) = told(&none, &from(SAMPLED)).await;
    assert_eq!(context.traceparent, [""; 0]);
    assert_eq!(context.without_parent(), (&[][..], &[][..]));
    // A trace of its own.
    let spans = flat(&seen.received.traces);
    assert!(spans.iter().all(|span| hex(&span.trace_id) != TRACE));
    assert_eq!(seen.trees.len(), 1);

    tokio::time::pause();
    let only = [("OTEL_PROPAGATORS", "tracecontext")];
    let (context, _) = told(&only, &from(SAMPLED)).await;
    assert_eq!(context.parent().0, TRACE);
    let state = (&[STATE.to_owned()][..], &[][..]);
    assert_eq!(context.without_parent(), state);

    tokio::time::pause();
    let only = [("OTEL_PROPAGATORS", "baggage")];
    let (context, _) = told(&only, &from(SAMPLED)).await;
    assert_eq!(context.traceparent, [""; 0]);
    let baggage = (&[][..], &[BAGGAGE.to_owned()][..]);
    assert_eq!(context.without_parent(), baggage);
}

#[tokio::test(start_paused = true)]
async fn a_parent_that_can_not_be_read_is_none() {
    for parent in [
        "",
        "bogus",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    ] {
        let (context, seen) = told(&[], &from(parent)).await;
        let spans = flat(&seen.received.traces);
        let trace = hex(&spans[0].trace_id);
        assert_eq!(spans.len(), 3, "{parent:?}");
        assert_ne!(trace, TRACE, "{parent:?}");
        assert_eq!(context.parent().0, trace, "{parent:?}");
        let baggage = (&[][..], &[BAGGAGE.to_owned()][..]);
        assert_eq!(context.without_parent(), baggage, "{parent:?}");
        tokio::time::pause();
    }
}
