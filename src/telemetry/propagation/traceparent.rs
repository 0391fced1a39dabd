//! The header `traceparent` (<https://www.w3.org/TR/trace-context/#traceparent-header>).
//!
//! The SDK reads it, too, for 3,500 instructions of the 250,000 that a request with one call
//! takes. Here only the form is read that nearly all have; any other is left to the SDK.

use bytes::Bytes;
use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

/// The span of a `traceparent` of version 00
/// (<https://www.w3.org/TR/trace-context/#version-format>).
pub(super) fn read(traceparent: &[u8]) -> Option<SpanContext> {
    let rest = traceparent.strip_prefix(b"00-")?;
    let (trace, rest) = rest.split_first_chunk::<32>()?;
    let (span, rest) = rest.strip_prefix(b"-")?.split_first_chunk::<16>()?;
    let flags: &[u8; 2] = rest.strip_prefix(b"-")?.try_into().ok()?;
    let span = SpanContext::new(
        TraceId::from_bytes(bytes(trace)?),
        SpanId::from_bytes(bytes(span)?),
        TraceFlags::new(bytes::<1>(flags)?[0]) & TraceFlags::SAMPLED,
        true,
        TraceState::NONE,
    );
    span.is_valid().then_some(span)
}

/// The bytes that two lowercase hexadecimal digits each stand for.
fn bytes<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let digit = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, digits) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(digits[0])? << 4 | digit(digits[1])?;
    }
    Some(bytes)
}

/// The `traceparent` of a span.
pub(in crate::telemetry) fn traceparent(trace: TraceId, span: SpanId, sampled: bool) -> Bytes {
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
    Bytes::copy_from_slice(&text)
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use opentelemetry::{
        Context, propagation::TextMapPropagator as _, trace::TraceContextExt as _,
    };
    use opentelemetry_sdk::propagation::TraceContextPropagator;

    use super::*;
    use crate::telemetry::{propagation::Fields, settings::Propagators};

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    const BOTH: Propagators = Propagators {
        trace_context: true,
        baggage: true,
    };

    /// What is read here is what the SDK reads, and the SDK reads all of it.
    #[test]
    fn a_parent_is_read_as_the_sdk_reads_it() {
        let mut parents = vec![
            PARENT.to_owned(),
            PARENT.replace("-01", "-00"),
            PARENT.replace("-01", "-ff"),
            PARENT.replace("-01", "-02"),
            PARENT.replace("-01", "-1"),
            PARENT.replace("-01", "-01-"),
            PARENT.replace("-01", "-01-01"),
            PARENT.replacen("00-", "01-", 1),
            PARENT.replacen("00-", "01-", 1) + "-more",
            format!(" {PARENT} "),
            PARENT.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            PARENT.replace("b7ad6b7169203331", &"0".repeat(16)),
        ];
        // Each character of it replaced.
        for (at, _) in PARENT.char_indices() {
            for other in ["-", "A", "g", "0", "+", " ", "/", ":", "`"] {
                let mut parent = PARENT.to_owned();
                parent.replace_range(at..=at, other);
                parents.push(parent);
            }
        }
        let mut fast = 0;
        for parent in &parents {
            let mut headers = HeaderMap::new();
            headers.insert("traceparent", parent.parse().unwrap());
            let sdk = TraceContextPropagator::new()
                .extract_with_context(&Context::new(), &Fields(&headers));
            let ours = BOTH.extract(&headers).caller;
            let of = |context: &Context| context.span().span_context().clone();
            assert_eq!(of(&ours), of(&sdk), "{parent:?}");
            fast += usize::from(read(parent.as_bytes()).is_some());
        }
        assert!(fast > 4 && fast < parents.len(), "{fast}");
    }

    #[test]
    fn a_span_is_written_as_it_would_be_read() {
        let span = read(PARENT.as_bytes()).unwrap();
        assert_eq!(traceparent(span.trace_id(), span.span_id(), true), PARENT);
    }
}
