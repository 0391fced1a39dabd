//! Whether an observation is a `google.protobuf.Value` that a caller can decode.
//!
//! An observation passes through undecoded, inside a response that also holds
//! those of other tools: one that does not decode would cost the caller all of
//! them. So it is walked once, without building anything, which takes some
//! nanoseconds a field.

use std::str::from_utf8;

/// How deep messages may nest. Decoders give up at 100, and the observation lies
/// a few levels deep in the response.
const MAX_DEPTH: usize = 95;

/// The messages of `google/protobuf/struct.proto`.
#[derive(Clone, Copy)]
enum Kind {
    Value,
    Struct,
    /// Of the map `Struct.fields`.
    Field,
    List,
}

/// What a field holds.
enum Content {
    Message(Kind),
    Text,
    Varint,
    Fixed64,
    Unknown,
}

/// Whether `encoded` is a `google.protobuf.Value`.
pub(super) fn is_value(encoded: &[u8]) -> bool {
    walk(Kind::Value, encoded, MAX_DEPTH).is_some()
}

fn walk(kind: Kind, mut left: &[u8], depth: usize) -> Option<()> {
    let depth = depth.checked_sub(1)?;
    while !left.is_empty() {
        let (number, wire_type) = key(&mut left)?;
        match (content(kind, number)?, wire_type) {
            (Content::Message(kind), 2) => walk(kind, delimited(&mut left)?, depth)?,
            (Content::Text, 2) => drop(from_utf8(delimited(&mut left)?).ok()?),
            (Content::Varint, 0) => drop(varint(&mut left)?),
            (Content::Fixed64, 1) => drop(left.split_off(..8)?),
            (Content::Unknown, _) => skip(number, wire_type, &mut left, depth)?,
            // The wrong type for the field.
            _ => return None,
        }
    }
    Some(())
}

fn skip(number: u32, wire_type: u32, left: &mut &[u8], depth: usize) -> Option<()> {
    match wire_type {
        0 => drop(varint(left)?),
        1 => drop(left.split_off(..8)?),
        2 => drop(delimited(left)?),
        // A group: fields up to the end that has its number.
        3 => loop {
            let (inner, wire_type) = key(left)?;
            if inner == 0 {
                return None;
            }
            if wire_type == 4 {
                return (inner == number).then_some(());
            }
            skip(inner, wire_type, left, depth.checked_sub(1)?)?;
        },
        5 => drop(left.split_off(..4)?),
        _ => return None,
    }
    Some(())
}

fn content(kind: Kind, number: u32) -> Option<Content> {
    Some(match (kind, number) {
        (_, 0) => return None,
        (Kind::Value, 1 | 4) => Content::Varint,
        (Kind::Value, 2) => Content::Fixed64,
        (Kind::Value, 3) | (Kind::Field, 1) => Content::Text,
        (Kind::Value, 5) => Content::Message(Kind::Struct),
        (Kind::Value, 6) => Content::Message(Kind::List),
        (Kind::Struct, 1) => Content::Message(Kind::Field),
        (Kind::Field, 2) | (Kind::List, 1) => Content::Message(Kind::Value),
        _ => Content::Unknown,
    })
}

/// A field's number and wire type, which together have 32 bits at most.
fn key(left: &mut &[u8]) -> Option<(u32, u32)> {
    let key = u32::try_from(varint(left)?).ok()?;
    Some((key >> 3, key & 7))
}

fn delimited<'a>(left: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(varint(left)?).ok()?;
    left.split_off(..length)
}

fn varint(left: &mut &[u8]) -> Option<u64> {
    if let Some(&byte) = left.first()
        && byte < 0x80
    {
        left.split_off(..1)?;
        return Some(byte.into());
    }
    prost::encoding::decode_varint(left).ok()
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};
    use prost::Message as _;
    use prost_types::{ListValue, Struct, Value, value::Kind as Json};

    use super::*;

    fn value(kind: Json) -> Value {
        Value { kind: Some(kind) }
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(value(Json::NullValue(0))),
            any::<f64>().prop_map(|n| value(Json::NumberValue(n))),
            ".{0,9}".prop_map(|s| value(Json::StringValue(s))),
            any::<bool>().prop_map(|b| value(Json::BoolValue(b))),
            Just(Value { kind: None }),
        ];
        leaf.prop_recursive(5, 40, 6, |inner| {
            prop_oneof![
                vec(inner.clone(), 0..6)
                    .prop_map(|values| value(Json::ListValue(ListValue { values }))),
                vec((".{0,5}", inner), 0..6).prop_map(|fields| {
                    let fields = fields.into_iter().collect();
                    value(Json::StructValue(Struct { fields }))
                }),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn every_value_is_one(value in any_value()) {
            prop_assert!(is_value(&value.encode_to_vec()));
        }

        #[test]
        fn what_passes_can_be_decoded(
            value in any_value(),
            changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = value.encode_to_vec();
            for (place, byte) in changes {
                if !bytes.is_empty() {
                    let place = place.index(bytes.len());
                    bytes[place] = byte;
                }
            }
            bytes.truncate(bytes.len() - cut.index(bytes.len() + 1) % 3 % (bytes.len() + 1));
            if is_value(&bytes) {
                prop_assert!(Value::decode(bytes.as_slice()).is_ok());
            }
        }
    }

    #[test]
    fn a_key_has_32_bits() {
        // Field 15 of wire type 0, with a bit set that decoders do not take.
        assert!(is_value(&[0xf8, 0x80, 0x80, 0x80, 0x00, 1]));
        assert!(!is_value(&[0xf8, 0x80, 0x80, 0x80, 0x10, 1]));
    }

    #[test]
    fn nesting_has_a_bound() {
        let mut nested = value(Json::BoolValue(true));
        for _ in 0..47 {
            let values = vec![nested];
            nested = value(Json::ListValue(ListValue { values }));
        }
        assert!(is_value(&nested.encode_to_vec()));
        let values = vec![nested];
        let deeper = value(Json::ListValue(ListValue { values }));
        assert!(!is_value(&deeper.encode_to_vec()));
    }
}
