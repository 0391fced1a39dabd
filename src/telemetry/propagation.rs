//! W3C trace context and baggage: read once from a request, written to every attempt.
//!
//! What is only passed on is never parsed and written anew: it stays the header that came.
//!
//! Calls share connections, and some services close a connection when headers are too large
//! (Netty above 10 KiB): one caller's context would then fail the calls of others. So a
//! header that exceeds W3C's limits, or what the service accepts, is left out.

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::{
    Context,
    propagation::{Extractor, TextMapPropagator as _},
    trace::{SpanId, TraceContextExt as _, TraceId, TraceState},
};
use opentelemetry_sdk::propagation::TraceContextPropagator;

use super::settings::Propagators;
use crate::transport::frames::FIELD_BYTES;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const BAGGAGE: HeaderName = HeaderName::from_static("baggage");

/// As much must be propagated; more need not be (<https://www.w3.org/TR/baggage/#limits>).
const BAGGAGE_LIMITS: Limits = Limits {
    bytes: 8192,
    members: 64,
};
/// The same of `tracestate`, where more than 32 members are forbidden
/// (<https://www.w3.org/TR/trace-context/#tracestate-limits>).
const TRACESTATE_LIMITS: Limits = Limits {
    bytes: 512,
    members: 32,
};

struct Limits {
    bytes: usize,
    members: usize,
}

/// The context that a caller sent.
#[derive(Debug)]
pub(super) struct Incoming {
    /// The context with the caller's span, if there is one.
    pub(super) caller: Context,
    pub(super) headers: Headers,
}

/// The context as headers.
#[derive(Clone, Debug, Default)]
pub(super) struct Headers {
    pub(super) traceparent: Option<HeaderValue>,
    tracestate: Option<HeaderValue>,
    baggage: Option<HeaderValue>,
    over_limits: LeftOut,
}

/// The headers that an attempt goes without, because they are too large.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LeftOut {
    traceparent: bool,
    tracestate: bool,
    baggage: bool,
}

impl LeftOut {
    /// Their names.
    pub(super) fn names(self) -> impl Iterator<Item = &'static str> {
        let headers = [
            (self.traceparent, "traceparent"),
            (self.tracestate, "tracestate"),
            (self.baggage, "baggage"),
        ];
        headers
            .into_iter()
            .filter_map(|(is_left_out, name)| is_left_out.then_some(name))
    }
}

impl Limits {
    /// The header, unless it exceeds them; `over` says whether it does.
    fn hold(&self, header: Option<HeaderValue>, over: &mut bool) -> Option<HeaderValue> {
        header.filter(|list| {
            let members = || list.as_bytes().iter().filter(|&&b| b == b',').count() + 1;
            *over = list.len() > self.bytes || members() > self.members;
            !*over
        })
    }
}

impl Propagators {
    pub(super) fn extract(self, headers: &HeaderMap) -> Incoming {
        let mut incoming = Incoming {
            caller: Context::new(),
            headers: Headers::default(),
        };
        // A trace context that can't be read is ignored, with its state.
        if self.trace_context && headers.contains_key(TRACEPARENT) {
            let caller = TraceContextPropagator::new()
                .extract_with_context(&Context::new(), &Fields(headers));
            if caller.has_active_span() {
                incoming.caller = caller;
                incoming.headers.traceparent = headers.get(TRACEPARENT).cloned();
                incoming.headers.tracestate = TRACESTATE_LIMITS.hold(
                    joined(headers, &TRACESTATE),
                    &mut incoming.headers.over_limits.tracestate,
                );
            }
        }
        if self.baggage {
            incoming.headers.baggage = BAGGAGE_LIMITS.hold(
                joined(headers, &BAGGAGE),
                &mut incoming.headers.over_limits.baggage,
            );
        }
        incoming
    }
}

impl Headers {
    /// Whether there is a header to write, or one that is left out.
    pub(super) fn is_something(&self) -> bool {
        self.traceparent.is_some()
            || self.tracestate.is_some()
            || self.baggage.is_some()
            || self.over_limits != LeftOut::default()
    }

    /// The `tracestate` as spans have it. One that breaks its own rules is passed on, but
    /// no part of a span.
    pub(super) fn state(&self) -> TraceState {
        let state = self.tracestate.as_ref();
        let members = state
            .and_then(|state| state.to_str().ok())
            .unwrap_or_default();
        let members = members
            .split(',')
            .filter_map(|one| one.trim().split_once('='));
        TraceState::from_key_value(members).unwrap_or_default()
    }

    /// Writes them, with `traceparent` instead of the caller's if given, as far as there is
    /// `room`: first the ids of the trace, then what goes with them. Returns what is left out.
    pub(super) fn inject(
        &self,
        traceparent: Option<HeaderValue>,
        mut room: usize,
        into: &mut HeaderMap,
    ) -> LeftOut {
        let traceparent = traceparent.or_else(|| self.traceparent.clone());
        let mut left_out = self.over_limits;
        for (name, value, is_left_out) in [
            (TRACEPARENT, traceparent, &mut left_out.traceparent),
            (
                TRACESTATE,
                self.tracestate.clone(),
                &mut left_out.tracestate,
            ),
            (BAGGAGE, self.baggage.clone(), &mut left_out.baggage),
        ] {
            let Some(value) = value else { continue };
            let size = name.as_str().len() + value.len() + FIELD_BYTES;
            if size > room {
                *is_left_out = true;
                continue;
            }
            room -= size;
            into.insert(name, value);
        }
        left_out
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

/// A list may be spread over several headers: the same as one header with commas.
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
        propagators
            .extract(headers)
            .headers
            .inject(None, usize::MAX, &mut into);
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
        let span = incoming.caller.span();
        let parent = span.span_context();
        assert_eq!(
            traceparent(parent.trace_id(), parent.span_id(), true),
            PARENT
        );
    }

    fn left_out(headers: &Headers, room: usize) -> Vec<&'static str> {
        let mut into = HeaderMap::new();
        let left_out = headers.inject(None, room, &mut into);
        let all = ["traceparent", "tracestate", "baggage"];
        let went = all.into_iter().filter(|name| into.contains_key(*name));
        assert_eq!(went.count() + left_out.names().count(), 3);
        left_out.names().collect()
    }

    #[test]
    fn the_limits_of_w3c_are_exact() {
        let with = |state: String, baggage: String| {
            let mut headers = headers(&[("traceparent", PARENT)]);
            headers.append("tracestate", state.parse().unwrap());
            headers.append("baggage", baggage.parse().unwrap());
            left_out(&BOTH.extract(&headers).headers, usize::MAX)
        };
        let long = |bytes: usize| format!("a={}", "x".repeat(bytes - 2));
        let many = |members: usize| vec!["a=1"; members].join(",");
        assert_eq!(with(long(512), long(8192)), [""; 0]);
        assert_eq!(with(many(32), many(64)), [""; 0]);
        assert_eq!(with(long(513), long(8192)), ["tracestate"]);
        assert_eq!(with(many(33), many(64)), ["tracestate"]);
        assert_eq!(with(long(512), long(8193)), ["baggage"]);
        assert_eq!(with(many(32), many(65)), ["baggage"]);
    }

    #[test]
    fn the_trace_has_the_first_claim_to_the_room() {
        let sent = headers(&[
            ("traceparent", PARENT),
            ("tracestate", "a=1"),
            ("baggage", "user=x"),
        ]);
        let context = BOTH.extract(&sent).headers;
        let left_out = |room| left_out(&context, room);
        let (parent, state, baggage) = (11 + 55 + 32, 10 + 3 + 32, 7 + 6 + 32);
        let all = parent + state + baggage;
        assert_eq!(left_out(all), [""; 0]);
        assert_eq!(left_out(all - 1), ["baggage"]);
        assert_eq!(left_out(parent + state - 1), ["tracestate", "baggage"]);
        assert_eq!(left_out(parent - 1), ["traceparent"]);
        assert_eq!(left_out(0), ["traceparent", "tracestate", "baggage"]);
    }
}
