//! W3C trace context and baggage: read once from a request, written to every
//! attempt.
//!
//! What is only passed on stays the header that came in. The text of a
//! `traceparent` is made only for spans that are sampled.

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::{
    Context,
    propagation::{Extractor, TextMapPropagator as _},
    trace::{SpanContext, SpanId, TraceContextExt as _, TraceId},
};
use opentelemetry_sdk::propagation::TraceContextPropagator;

use super::settings::Propagators;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const BAGGAGE: HeaderName = HeaderName::from_static("baggage");

/// The context that a caller sent.
#[derive(Debug)]
pub(super) struct Incoming {
    /// The caller's span.
    pub(super) parent: Option<SpanContext>,
    pub(super) headers: Headers,
}

/// The context as headers.
#[derive(Clone, Debug, Default)]
pub(super) struct Headers {
    pub(super) traceparent: Option<HeaderValue>,
    tracestate: Option<HeaderValue>,
    baggage: Option<HeaderValue>,
}

impl Propagators {
    pub(super) fn extract(self, headers: &HeaderMap) -> Incoming {
        let mut incoming = Incoming {
            parent: None,
            headers: Headers::default(),
        };
        // A trace context that can't be read is as good as none, its state
        // included.
        if self.trace_context && headers.contains_key(TRACEPARENT) {
            let context = TraceContextPropagator::new()
                .extract_with_context(&Context::new(), &Fields(headers));
            let span = context.span().span_context().clone();
            if span.is_valid() {
                incoming.parent = Some(span);
                incoming.headers.traceparent = headers.get(TRACEPARENT).cloned();
                incoming.headers.tracestate = joined(headers, &TRACESTATE);
            }
        }
        if self.baggage {
            incoming.headers.baggage = joined(headers, &BAGGAGE);
        }
        incoming
    }
}

impl Headers {
    pub(super) fn state(&self) -> &str {
        let state = self.tracestate.as_ref();
        state
            .and_then(|state| state.to_str().ok())
            .unwrap_or_default()
    }

    /// Writes them, with `traceparent` instead of the own one if given.
    pub(super) fn inject(&self, traceparent: Option<HeaderValue>, into: &mut HeaderMap) {
        let traceparent = traceparent.or_else(|| self.traceparent.clone());
        let state = self.tracestate.clone();
        let baggage = self.baggage.clone();
        for (name, value) in [
            (TRACEPARENT, traceparent),
            (TRACESTATE, state),
            (BAGGAGE, baggage),
        ] {
            if let Some(value) = value {
                into.insert(name, value);
            }
        }
    }
}

/// The `traceparent` of a span.
pub(super) fn traceparent(trace: TraceId, span: SpanId, sampled: bool) -> HeaderValue {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
    let mut write = |at: usize, bytes: &[u8]| {
        for (i, byte) in bytes.iter().enumerate() {
            text[at + 2 * i] = DIGITS[usize::from(byte >> 4)];
            text[at + 2 * i + 1] = DIGITS[usize::from(byte & 15)];
        }
    };
    write(3, &trace.to_bytes());
    write(36, &span.to_bytes());
    write(53, &[u8::from(sampled)]);
    // Digits and dashes are a valid value.
    HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static(""))
}

/// Lists may come in several headers; they mean the same as one with commas.
fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<HeaderValue> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    let mut all = match values.next() {
        None => return Some(first.clone()),
        Some(second) => [first.as_bytes(), second.as_bytes()].join(&b","[..]),
    };
    for value in values {
        all.push(b',');
        all.extend_from_slice(value.as_bytes());
    }
    HeaderValue::from_bytes(&all).ok()
}

struct Fields<'a>(&'a HeaderMap);

impl Extractor for Fields<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    const BOTH: Propagators = Propagators {
        trace_context: true,
        baggage: true,
    };

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    fn passed_on(propagators: Propagators, headers: &HeaderMap) -> HeaderMap {
        let mut into = HeaderMap::new();
        propagators.extract(headers).headers.inject(None, &mut into);
        into
    }

    #[test]
    fn what_comes_in_goes_out() {
        let sent = headers(&[
            ("traceparent", PARENT),
            ("tracestate", "a=1,b=2"),
            ("baggage", "user=x;p=1"),
        ]);
        assert_eq!(passed_on(BOTH, &sent), sent);
        let none = Propagators {
            trace_context: false,
            baggage: false,
        };
        assert_eq!(passed_on(none, &sent), HeaderMap::new());
    }

    #[test]
    fn lists_in_several_headers_are_one_list() {
        let sent = headers(&[
            ("traceparent", PARENT),
            ("tracestate", "a=1"),
            ("tracestate", "b=2"),
            ("tracestate", "c=3"),
        ]);
        let out = passed_on(BOTH, &sent);
        assert_eq!(out["tracestate"], "a=1,b=2,c=3");
    }

    #[test]
    fn a_context_that_can_not_be_read_is_none() {
        for broken in [
            "",
            "00",
            "00-0-0-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            let sent = headers(&[("traceparent", broken), ("tracestate", "a=1")]);
            assert_eq!(passed_on(BOTH, &sent), HeaderMap::new(), "{broken}");
        }
    }

    #[test]
    fn a_span_is_written_as_it_would_be_read() {
        let incoming = BOTH.extract(&headers(&[("traceparent", PARENT)]));
        let parent = incoming.parent.expect("a parent");
        assert_eq!(
            traceparent(parent.trace_id(), parent.span_id(), true),
            PARENT
        );
    }
}
