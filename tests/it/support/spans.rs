//! Spans as a test reads them: trees, built from what a collector received, and
//! built by hand to compare them with. What every span of a kind has is there
//! already; what differs is said in the test.

use std::{collections::BTreeMap, time::Duration};

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{KeyValue, any_value},
    trace::v1::{Span, span::SpanKind, status::StatusCode},
};
use serde_json::Value;

/// A span with those below it.
#[derive(Clone, Debug, PartialEq)]
pub struct Tree {
    pub kind: Kind,
    pub name: String,
    /// After the start of the tree's first span.
    pub start: Duration,
    pub duration: Duration,
    /// The status' message, if it is an error.
    pub error: Option<String>,
    pub attributes: BTreeMap<String, Value>,
    /// In the order of the calls, or of the attempts.
    pub children: Vec<Tree>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Server,
    Internal,
    Client,
}

impl Kind {
    fn of(span: &Span) -> Self {
        match span.kind() {
            SpanKind::Server => Self::Server,
            SpanKind::Internal => Self::Internal,
            SpanKind::Client => Self::Client,
            other => panic!("a span of kind {other:?}"),
        }
    }

    /// As the table of attributes calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Server => "SERVER",
            Self::Internal => "INTERNAL",
            Self::Client => "CLIENT",
        }
    }
}

/// All spans in these exports.
pub fn flat(exports: &[ExportTraceServiceRequest]) -> Vec<Span> {
    let resources = exports.iter().flat_map(|export| &export.resource_spans);
    let scopes = resources.flat_map(|resource| &resource.scope_spans);
    scopes.flat_map(|scope| scope.spans.clone()).collect()
}

/// All spans in these exports, as trees by start. A span whose parent is not here
/// is the root of one.
pub fn trees(exports: &[ExportTraceServiceRequest]) -> Vec<Tree> {
    let mut spans = flat(exports);
    spans.sort_by_key(|span| (span.start_time_unix_nano, order(span)));
    let ids: Vec<_> = spans.iter().map(|span| span.span_id.clone()).collect();
    let roots = spans
        .iter()
        .filter(|span| !ids.contains(&span.parent_span_id));
    roots.map(|root| tree(root, root, &spans)).collect()
}

/// Siblings start at the same time.
fn order(span: &Span) -> Option<i64> {
    let number = |name| match attributes(&span.attributes).get(name) {
        Some(Value::Number(number)) => number.as_i64(),
        _ => None,
    };
    number("fanfare.call.index").or_else(|| number("fanfare.attempt"))
}

fn tree(span: &Span, root: &Span, spans: &[Span]) -> Tree {
    assert_eq!(span.trace_id, root.trace_id, "one trace");
    assert_eq!(span.trace_state, root.trace_state, "one state");
    let is_remote = if span.parent_span_id.is_empty() {
        0x100
    } else if span.span_id == root.span_id {
        0x300
    } else {
        0x100
    };
    assert_eq!(
        span.flags,
        is_remote | 1,
        "sampled, and whose parent is remote"
    );
    let nanos = |from: u64, to: u64| Duration::from_nanos(to.checked_sub(from).expect("in order"));
    let children = spans
        .iter()
        .filter(|child| child.parent_span_id == span.span_id);
    Tree {
        kind: Kind::of(span),
        name: span.name.clone(),
        start: nanos(root.start_time_unix_nano, span.start_time_unix_nano),
        duration: nanos(span.start_time_unix_nano, span.end_time_unix_nano),
        error: error(span),
        attributes: attributes(&span.attributes),
        children: children.map(|child| tree(child, root, spans)).collect(),
    }
}

/// The message, if the status is an error.
fn error(span: &Span) -> Option<String> {
    let status = span.status.as_ref()?;
    match status.code() {
        StatusCode::Unset => assert_eq!(status.message, "", "of no error"),
        StatusCode::Error => return Some(status.message.clone()),
        StatusCode::Ok => panic!("unset or an error"),
    }
    None
}

/// Attributes by name; none twice.
pub fn attributes(attributes: &[KeyValue]) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    for KeyValue { key, value, .. } in attributes {
        let value = value.as_ref().and_then(|value| value.value.clone());
        let value = match value.expect("a value") {
            any_value::Value::StringValue(text) => text.into(),
            any_value::Value::IntValue(number) => number.into(),
            any_value::Value::DoubleValue(number) => number.into(),
            other => panic!("{key} is {other:?}"),
        };
        assert!(found.insert(key.clone(), value).is_none(), "{key} twice");
    }
    found
}

/// An RPC of the orchestrator that ended in `code`, with the server's own limit.
/// It is an error, with that type, if [`fails`](Tree::fails) says so.
pub fn rpc(method: &str, code: &str) -> Tree {
    let method = format!("fanfare.v1.OrchestratorService/{method}");
    Tree::new(Kind::Server, &method)
        .with("rpc.system.name", "grpc")
        .with("rpc.method", method)
        .with("rpc.response.status_code", code)
        .with("fanfare.request.timeout", 300.0)
}

/// A call of `tool` that went to it once and at once.
pub fn call(index: usize, tool: &str) -> Tree {
    Tree::new(Kind::Internal, &format!("execute_tool {tool}"))
        .with("gen_ai.operation.name", "execute_tool")
        .with("gen_ai.tool.name", tool)
        .with("gen_ai.tool.type", "extension")
        .with("fanfare.call.index", index)
        .with("fanfare.call.attempts", 1)
        .with("fanfare.call.queue_duration", 0.0)
}

/// The first attempt at a tool behind pipes; an error unless it is `OK`.
pub fn attempt(code: &str) -> Tree {
    let attempt = Tree::new(Kind::Client, "fanfare.v1.ToolService/CallTool")
        .with("rpc.system.name", "grpc")
        .with("rpc.method", "fanfare.v1.ToolService/CallTool")
        .with("rpc.response.status_code", code)
        .with("server.address", "tools")
        .with("server.port", 80)
        // What the name resolves to over pipes.
        .with("network.peer.address", "0.0.0.0")
        .with("network.peer.port", 80)
        .with("fanfare.attempt", 1);
    if code == "OK" {
        attempt
    } else {
        attempt.with("error.type", code)
    }
}

impl Tree {
    fn new(kind: Kind, name: &str) -> Self {
        Self {
            kind,
            name: name.to_owned(),
            start: Duration::ZERO,
            duration: Duration::ZERO,
            error: None,
            attributes: BTreeMap::new(),
            children: Vec::new(),
        }
    }

    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.attributes.insert(name.to_owned(), value.into());
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.attributes.remove(name).expect(name);
        self
    }

    /// Of a request of so many calls, of which so many failed.
    pub fn of_calls(self, count: usize, failed: usize) -> Self {
        self.with("fanfare.batch.size", count)
            .with("fanfare.batch.failed", failed)
    }

    pub fn starts(mut self, start: Duration) -> Self {
        self.start = start;
        self
    }

    pub fn lasts(mut self, duration: Duration) -> Self {
        self.duration = duration;
        self
    }

    /// Its status is an error with this message.
    pub fn says(mut self, message: &str) -> Self {
        self.error = Some(message.to_owned());
        self
    }

    /// A call that failed for this reason.
    pub fn fails(self, reason: &str, effect: &str, message: &str) -> Self {
        self.with("error.type", reason)
            .with("fanfare.call.effect", effect)
            .says(message)
    }

    /// A call that this limit ended.
    pub fn expires(self, limit: &str, effect: &str, message: &str) -> Self {
        self.fails("DEADLINE_EXCEEDED", effect, message)
            .with("fanfare.call.limit", limit)
    }

    pub fn has(mut self, children: impl IntoIterator<Item = Self>) -> Self {
        self.children.extend(children);
        self
    }

    /// Without times, for clocks that can't be paused.
    pub fn timeless(mut self) -> Self {
        (self.start, self.duration) = (Duration::ZERO, Duration::ZERO);
        for name in ["fanfare.call.queue_duration", "fanfare.request.timeout"] {
            self.attributes.remove(name);
        }
        self.children = self.children.into_iter().map(Self::timeless).collect();
        self
    }

    /// Of an attempt that got nowhere.
    pub fn without_peer(mut self) -> Self {
        for name in ["network.peer.address", "network.peer.port"] {
            self.attributes.remove(name);
        }
        self
    }

    /// With this in place of every message, for those of third parties.
    pub fn saying(mut self, message: &str) -> Self {
        self.error = self.error.map(|_| message.to_owned());
        let children = self.children.into_iter();
        self.children = children.map(|child| child.saying(message)).collect();
        self
    }

    /// It and those below it.
    pub fn all(&self) -> Vec<&Self> {
        let below = self.children.iter().flat_map(Self::all);
        std::iter::once(self).chain(below).collect()
    }
}
