//! W3C trace context and baggage: read once from a request, written to every attempt.
//!
//! What is only passed on is never parsed and written anew: it stays the header that came.
//!
//! Calls share connections, and some services close a connection when headers are too large
//! (Netty above 10 KiB): one caller's context would then fail the calls of others. So a
//! header that exceeds W3C's limits, or what the service accepts, is left out.

mod traceparent;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::{
    Context,
    propagation::{Extractor, TextMapPropagator as _},
    trace::{TraceContextExt as _, TraceState},
};
use opentelemetry_sdk::propagation::TraceContextPropagator;

pub(super) use self::traceparent::traceparent;
use super::settings::Propagators;
use crate::core::observer::Carrier;

const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";
const BAGGAGE: &str = "baggage";

/// The names as headers. One that is made of a text is read anew each time.
mod header {
    use http::HeaderName;

    pub(super) const TRACEPARENT: HeaderName = HeaderName::from_static(super::TRACEPARENT);
    pub(super) const TRACESTATE: HeaderName = HeaderName::from_static(super::TRACESTATE);
    pub(super) const BAGGAGE: HeaderName = HeaderName::from_static(super::BAGGAGE);
}

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
    pub(super) traceparent: Option<Bytes>,
    tracestate: Option<Bytes>,
    baggage: Option<Bytes>,
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
            (self.traceparent, TRACEPARENT),
            (self.tracestate, TRACESTATE),
            (self.baggage, BAGGAGE),
        ];
        headers
            .into_iter()
            .filter_map(|(is_left_out, name)| is_left_out.then_some(name))
    }
}

impl Limits {
    /// The header, unless it exceeds them; `over` says whether it does.
    fn hold(&self, header: Option<Bytes>, over: &mut bool) -> Option<Bytes> {
        header.filter(|list| {
            let members = || list.iter().filter(|&&b| b == b',').count() + 1;
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
        if self.trace_context
            && let Some(parent) = headers.get(header::TRACEPARENT)
        {
            let caller = caller(parent, headers);
            if caller.has_active_span() {
                incoming.caller = caller;
                incoming.headers.traceparent = joined(headers, header::TRACEPARENT);
                incoming.headers.tracestate = TRACESTATE_LIMITS.hold(
                    joined(headers, header::TRACESTATE),
                    &mut incoming.headers.over_limits.tracestate,
                );
            }
        }
        if self.baggage {
            incoming.headers.baggage = BAGGAGE_LIMITS.hold(
                joined(headers, header::BAGGAGE),
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
            .and_then(|state| std::str::from_utf8(state).ok())
            .filter(|state| state.is_ascii())
            .unwrap_or_default();
        let members = members
            .split(',')
            .filter_map(|one| one.trim().split_once('='));
        TraceState::from_key_value(members).unwrap_or_default()
    }

    /// Writes them, with `traceparent` instead of the caller's if given, as far as there is
    /// room: first the ids of the trace, then what goes with them. Returns what is left out.
    pub(super) fn inject(&self, traceparent: Option<&Bytes>, carrier: &mut dyn Carrier) -> LeftOut {
        let traceparent = traceparent.or(self.traceparent.as_ref());
        let mut left_out = self.over_limits;
        for (name, value, is_left_out) in [
            (TRACEPARENT, traceparent, &mut left_out.traceparent),
            (
                TRACESTATE,
                self.tracestate.as_ref(),
                &mut left_out.tracestate,
            ),
            (BAGGAGE, self.baggage.as_ref(), &mut left_out.baggage),
        ] {
            if let Some(value) = value {
                *is_left_out |= !carrier.set(name, value);
            }
        }
        left_out
    }
}

/// The caller's span, without its state, which is [passed on](Headers::state) apart. The
/// form that nearly all have is read here, any other by the SDK, which takes five times as
/// long.
fn caller(parent: &HeaderValue, headers: &HeaderMap) -> Context {
    match traceparent::read(parent.as_bytes()) {
        Some(span) => Context::new().with_remote_span_context(span),
        None => {
            TraceContextPropagator::new().extract_with_context(&Context::new(), &Fields(headers))
        }
    }
}

/// A list may be spread over several headers: the same as one header with commas.
fn joined(headers: &HeaderMap, name: HeaderName) -> Option<Bytes> {
    let mut values = headers.get_all(name).iter().map(HeaderValue::as_bytes);
    let mut all = values.next()?.to_vec();
    for value in values {
        all.push(b',');
        all.extend_from_slice(value);
    }
    Some(all.into())
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

    /// Takes fields of so many bytes, each of which has 32 beside name and value.
    struct Room {
        fields: HeaderMap,
        left: usize,
    }

    impl Room {
        fn new(left: usize) -> Self {
            let fields = HeaderMap::new();
            Self { fields, left }
        }
    }

    impl Carrier for Room {
        fn set(&mut self, name: &'static str, value: &Bytes) -> bool {
            let left = self.left.checked_sub(name.len() + value.len() + 32);
            if let Some(left) = left {
                self.left = left;
                let value = HeaderValue::from_bytes(value).unwrap();
                self.fields.insert(name, value);
            }
            left.is_some()
        }
    }

    fn passed_on(propagators: Propagators, headers: &HeaderMap) -> HeaderMap {
        let mut room = Room::new(usize::MAX);
        let context = propagators.extract(headers);
        context.headers.inject(None, &mut room);
        room.fields
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

    fn left_out(headers: &Headers, room: usize) -> Vec<&'static str> {
        let mut room = Room::new(room);
        let left_out = headers.inject(None, &mut room);
        let all = ["traceparent", "tracestate", "baggage"];
        let went = all
            .into_iter()
            .filter(|name| room.fields.contains_key(*name));
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
