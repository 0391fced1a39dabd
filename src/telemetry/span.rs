//! One finished span, written as OTLP has it on the wire
//! (<https://github.com/open-telemetry/opentelemetry-proto>, `trace/v1/trace.proto`).
//!
//! A span is written once, when it has ended: all that it says is known then, and
//! a span that is not sampled costs nothing. Going through the SDK's records and
//! its exporter was measured at 3 us a span, tracing's spans on top of that at 5;
//! a whole call takes 8.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{BufMut as _, Bytes, BytesMut};
use opentelemetry::trace::{SpanId, TraceId};
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

/// What most spans need.
const USUAL_BYTES: usize = 448;
/// Sampled, and it is known whether the parent is in another process.
const FLAGS: u32 = 1 | HAS_IS_REMOTE;
const HAS_IS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;
const STATUS_ERROR: u64 = 2;

/// A span's place in its trace.
#[derive(Clone, Copy, Debug)]
pub(super) struct SpanIds<'a> {
    pub(super) trace: TraceId,
    pub(super) span: SpanId,
    /// Invalid if it is the first.
    pub(super) parent: SpanId,
    pub(super) parent_is_remote: bool,
    /// The `tracestate`.
    pub(super) state: &'a str,
}

/// Whose side a span tells of.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Internal = 1,
    Server = 2,
    Client = 3,
}

/// A span that is being written.
#[derive(Debug)]
pub(super) struct Writer(BytesMut);

impl Writer {
    pub(super) fn new(
        place: SpanIds<'_>,
        kind: Kind,
        name: &str,
        start: SystemTime,
        end: SystemTime,
    ) -> Self {
        let mut writer = Self(BytesMut::with_capacity(USUAL_BYTES));
        writer.bytes(1, &place.trace.to_bytes());
        writer.bytes(2, &place.span.to_bytes());
        if !place.state.is_empty() {
            writer.bytes(3, place.state.as_bytes());
        }
        let mut flags = FLAGS;
        if place.parent != SpanId::INVALID {
            writer.bytes(4, &place.parent.to_bytes());
            flags |= if place.parent_is_remote { IS_REMOTE } else { 0 };
        }
        writer.bytes(5, name.as_bytes());
        writer.varint(6, kind as u64);
        for (field, time) in [(7, start), (8, end)] {
            encode_key(field, WireType::SixtyFourBit, &mut writer.0);
            writer.0.put_u64_le(nanos(time));
        }
        encode_key(16, WireType::ThirtyTwoBit, &mut writer.0);
        writer.0.put_u32_le(flags);
        writer
    }

    pub(super) fn text(&mut self, key: &str, value: &str) {
        self.attribute(key, length_of_bytes(value.len()), |writer| {
            writer.bytes(1, value.as_bytes());
        });
    }

    pub(super) fn int(&mut self, key: &str, value: i64) {
        let value = value.cast_unsigned();
        self.attribute(key, 1 + encoded_len_varint(value), |writer| {
            writer.varint(3, value);
        });
    }

    pub(super) fn float(&mut self, key: &str, value: f64) {
        self.attribute(key, 9, |writer| {
            encode_key(4, WireType::SixtyFourBit, &mut writer.0);
            writer.0.put_f64_le(value);
        });
    }

    /// The span tells of a failure.
    pub(super) fn error(&mut self, message: &str) {
        let code_length = 2;
        self.message(15, length_of_bytes(message.len()) + code_length, |writer| {
            writer.bytes(2, message.as_bytes());
            writer.varint(3, STATUS_ERROR);
        });
    }

    pub(super) fn finish(self) -> Bytes {
        self.0.freeze()
    }

    /// A `KeyValue` with an `AnyValue` of that length.
    fn attribute(&mut self, key: &str, length: usize, value: impl FnOnce(&mut Self)) {
        let length_of_value = length_of_bytes(length);
        self.message(9, length_of_bytes(key.len()) + length_of_value, |writer| {
            writer.bytes(1, key.as_bytes());
            writer.message(2, length, value);
        });
    }

    fn message(&mut self, field: u32, length: usize, content: impl FnOnce(&mut Self)) {
        encode_key(field, WireType::LengthDelimited, &mut self.0);
        encode_varint(length as u64, &mut self.0);
        content(self);
    }

    fn bytes(&mut self, field: u32, value: &[u8]) {
        self.message(field, value.len(), |writer| writer.0.put_slice(value));
    }

    fn varint(&mut self, field: u32, value: u64) {
        encode_key(field, WireType::Varint, &mut self.0);
        encode_varint(value, &mut self.0);
    }
}

/// Of a field below 16 with so many bytes.
fn length_of_bytes(length: usize) -> usize {
    1 + encoded_len_varint(length as u64) + length
}

fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use opentelemetry_proto::tonic::{
        common::v1::any_value::Value,
        trace::v1::{Span, span::SpanKind, status::StatusCode},
    };
    use prost::Message as _;

    use super::*;

    fn place(parent: SpanId) -> SpanIds<'static> {
        SpanIds {
            trace: TraceId::from_bytes([7; 16]),
            span: SpanId::from_bytes([8; 8]),
            parent,
            parent_is_remote: true,
            state: "a=1",
        }
    }

    #[test]
    fn what_is_written_is_what_the_collector_reads() {
        let start = UNIX_EPOCH + Duration::from_nanos(1_234_567_890);
        let end = start + Duration::from_secs(2);
        let parent = SpanId::from_bytes([9; 8]);
        let long = "x".repeat(100_000);
        let mut writer = Writer::new(place(parent), Kind::Client, "name", start, end);
        writer.text("text", "é");
        writer.text("long", &long);
        writer.text("empty", "");
        writer.int("int", -5);
        writer.int("zero", 0);
        writer.float("float", 0.25);
        writer.error("broken");
        let span = Span::decode(writer.finish()).expect("a span");

        assert_eq!(span.trace_id, [7; 16]);
        assert_eq!(span.span_id, [8; 8]);
        assert_eq!(span.parent_span_id, [9; 8]);
        assert_eq!(span.trace_state, "a=1");
        assert_eq!(span.flags, 0x301);
        assert_eq!(span.name, "name");
        assert_eq!(span.kind(), SpanKind::Client);
        assert_eq!(span.start_time_unix_nano, 1_234_567_890);
        assert_eq!(span.end_time_unix_nano, 3_234_567_890);
        let status = span.status.expect("a status");
        assert_eq!(status.code(), StatusCode::Error);
        assert_eq!(status.message, "broken");
        let attributes: Vec<_> = span
            .attributes
            .into_iter()
            .map(|attribute| {
                let value = attribute.value.expect("a value").value.expect("a value");
                (attribute.key, value)
            })
            .collect();
        let text = |value: &str| Value::StringValue(value.to_owned());
        let expected = [
            ("text", text("é")),
            ("long", text(&long)),
            ("empty", text("")),
            ("int", Value::IntValue(-5)),
            ("zero", Value::IntValue(0)),
            ("float", Value::DoubleValue(0.25)),
        ];
        assert_eq!(
            attributes,
            expected.map(|(key, value)| (key.to_owned(), value))
        );
    }

    #[test]
    fn the_first_span_has_no_parent() {
        let writer = Writer::new(
            place(SpanId::INVALID),
            Kind::Server,
            "name",
            UNIX_EPOCH,
            UNIX_EPOCH,
        );
        let span = Span::decode(writer.finish()).expect("a span");
        assert!(span.parent_span_id.is_empty());
        assert_eq!(span.flags, 0x101);
        assert_eq!(span.status, None);
    }
}
