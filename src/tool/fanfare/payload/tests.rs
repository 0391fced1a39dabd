//! Values of all kinds, decoded beside.

use proptest::{collection::vec, prelude::*};
use prost::Message as _;
use prost_types::{ListValue, Struct, Value, value::Kind as Json};

use super::*;

fn value(kind: Json) -> Value {
    Value { kind: Some(kind) }
}

fn list(values: Vec<Value>) -> Value {
    value(Json::ListValue(ListValue { values }))
}

fn number(number: f64) -> Value {
    value(Json::NumberValue(number))
}

fn is_value(encoded: &[u8]) -> bool {
    check(encoded).is_ok()
}

/// Some value; if not `odd` one that JSON can say.
fn any_value(odd: bool) -> impl Strategy<Value = Value> {
    let number = proptest::num::f64::ANY
        .prop_map(move |n| number(if odd || n.is_finite() { n } else { 0.0 }));
    let no_kind = if odd {
        None
    } else {
        Some(Json::BoolValue(true))
    };
    let leaf = prop_oneof![
        Just(value(Json::NullValue(0))),
        number,
        ".{0,9}".prop_map(|s| value(Json::StringValue(s))),
        any::<bool>().prop_map(|b| value(Json::BoolValue(b))),
        Just(Value { kind: no_kind }),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(list),
            vec((".{0,5}", inner), 0..6).prop_map(|fields| {
                let fields = fields.into_iter().collect();
                value(Json::StructValue(Struct { fields }))
            }),
        ]
    })
}

fn has_json(value: &Value) -> bool {
    match &value.kind {
        None => false,
        Some(Json::NumberValue(number)) => number.is_finite(),
        Some(Json::ListValue(list)) => list.values.iter().all(has_json),
        Some(Json::StructValue(object)) => object.fields.values().all(has_json),
        Some(Json::NullValue(_) | Json::BoolValue(_) | Json::StringValue(_)) => true,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_value_is_one_if_json_can_say_it(value in any_value(true)) {
        let checked = check(&value.encode_to_vec());
        prop_assert_eq!(checked.is_ok(), has_json(&value));
        if let Err(problem) = checked {
            prop_assert!(problem.contains("JSON"));
        }
    }

    /// Two encodings, one after the other, are the two merged: what decoders see then
    /// is what is judged. (Not with objects: two entries of one key both count.)
    #[test]
    fn what_is_merged_is_judged_as_decoders_merge_it(
        values in vec(any_value(true), 1..4),
    ) {
        let encoded: Vec<u8> = values.iter().flat_map(|value| value.encode_to_vec()).collect();
        let merged = Value::decode(encoded.as_slice()).unwrap();
        if is_value(&encoded) {
            prop_assert!(has_json(&merged));
        } else if !format!("{values:?}").contains("Struct") {
            prop_assert!(!has_json(&merged));
        }
    }

    #[test]
    fn what_passes_can_be_decoded(
        value in any_value(false),
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
            let decoded = Value::decode(bytes.as_slice());
            prop_assert!(decoded.is_ok_and(|value| has_json(&value)));
        }
    }
}

#[test]
fn what_json_can_not_say_is_told_in_any_depth() {
    for odd in [
        number(f64::NAN),
        number(f64::INFINITY),
        number(f64::NEG_INFINITY),
        Value { kind: None },
    ] {
        let mut nested = odd;
        for depth in 0..30 {
            let problem = check(&nested.encode_to_vec()).unwrap_err();
            assert!(problem.contains("JSON"), "{depth}");
            nested = if depth % 2 == 0 {
                list(vec![number(1.0), nested, number(2.0)])
            } else {
                let fields = [("a".to_owned(), nested)].into_iter().collect();
                value(Json::StructValue(Struct { fields }))
            };
        }
    }
    for fine in [f64::MAX, f64::MIN_POSITIVE, -0.0] {
        assert!(is_value(&number(fine).encode_to_vec()));
    }
    assert_eq!(Value::decode(&NULL[..]), Ok(value(Json::NullValue(0))));
    assert!(is_value(&NULL));
}

#[test]
fn the_last_member_of_a_oneof_counts() {
    let nan = number(f64::NAN).encode_to_vec();
    let fine = number(1.0).encode_to_vec();
    let null = value(Json::NullValue(0)).encode_to_vec();
    let odd_list = list(vec![number(f64::NAN)]).encode_to_vec();
    let fine_list = list(vec![number(1.0)]).encode_to_vec();
    for (parts, fits) in [
        ([&nan, &fine, &fine], true),
        ([&fine, &null, &nan], false),
        ([&nan, &null, &null], true),
        ([&odd_list, &null, &fine_list], true),
        // The two lists are one, unless something comes between.
        ([&null, &odd_list, &fine_list], false),
        ([&null, &fine_list, &odd_list], false),
        ([&fine_list, &fine_list, &fine_list], true),
    ] {
        assert_eq!(
            is_value(&parts.map(Vec::as_slice).concat()),
            fits,
            "{parts:?}"
        );
    }
    // An unknown field sets nothing.
    assert!(!is_value(&[0x78, 1]));
    assert!(is_value(&[&[0x78, 1][..], &fine, &[0x78, 1]].concat()));
}

#[test]
fn an_entry_without_a_value_has_one_of_no_kind() {
    let object = |entry: &[u8]| {
        let entry = [&[0x0a, u8::try_from(entry.len()).unwrap()], entry].concat();
        [&[0x2a, u8::try_from(entry.len()).unwrap()], &entry[..]].concat()
    };
    assert!(is_value(&object(&[0x0a, 1, b'a', 0x12, 2, 0x08, 0])));
    assert!(!is_value(&object(&[0x0a, 1, b'a'])));
    assert!(!is_value(&object(&[0x0a, 1, b'a', 0x12, 0])));
    assert!(!is_value(&object(&[])));
    // Its values are merged, too; an absent key is the empty one.
    assert!(is_value(&object(&[0x12, 0, 0x12, 2, 0x08, 0, 0x12, 0])));
    assert!(is_value(&[0x2a, 0]), "an object without entries");
    assert!(is_value(&[0x32, 0]), "a list without items");
    assert!(!is_value(&[]));
}

#[test]
fn a_key_has_32_bits() {
    // Field 15 of wire type 0, with a bit set that decoders do not take.
    let with = |field: &[u8]| [&NULL[..], field].concat();
    assert!(is_value(&with(&[0xf8, 0x80, 0x80, 0x80, 0x00, 1])));
    assert!(!is_value(&with(&[0xf8, 0x80, 0x80, 0x80, 0x10, 1])));
}

#[test]
fn nesting_has_a_bound() {
    let mut nested = value(Json::BoolValue(true));
    for _ in 0..47 {
        nested = list(vec![nested]);
    }
    assert!(is_value(&nested.encode_to_vec()));
    assert!(!is_value(&list(vec![nested]).encode_to_vec()));
}
