//! Well-known types.

use prost::Message as _;
use serde_json::{Value as Json, json};

use super::support::{both_ways, decode, encode, encoded, message, pool, refused};
use crate::protobuf::Message;

const SOURCE: &str = r#"
    syntax = "proto3";
    package test;
    import "google/protobuf/any.proto";
    import "google/protobuf/duration.proto";
    import "google/protobuf/empty.proto";
    import "google/protobuf/field_mask.proto";
    import "google/protobuf/struct.proto";
    import "google/protobuf/timestamp.proto";
    import "google/protobuf/wrappers.proto";
    message Special {
      google.protobuf.Timestamp time = 1; google.protobuf.Duration duration = 2;
      google.protobuf.FieldMask mask = 3; google.protobuf.Struct a_struct = 4;
      google.protobuf.Value value = 5; google.protobuf.ListValue list = 6;
      google.protobuf.Any any = 7; google.protobuf.Empty empty = 8;
      google.protobuf.DoubleValue double = 9; google.protobuf.FloatValue float = 10;
      google.protobuf.Int64Value int64 = 11; google.protobuf.UInt64Value uint64 = 12;
      google.protobuf.Int32Value int32 = 13; google.protobuf.UInt32Value uint32 = 14;
      google.protobuf.BoolValue bool = 15; google.protobuf.StringValue string = 16;
      google.protobuf.BytesValue bytes = 17; google.protobuf.NullValue null = 18;
      repeated google.protobuf.Value values = 19; map<string, google.protobuf.Timestamp> times = 20;
      repeated google.protobuf.Any anys = 21; map<string, google.protobuf.Value> by_name = 22;
      oneof choice { google.protobuf.NullValue nothing = 30; google.protobuf.Value something = 31; string text = 32; }
      repeated google.protobuf.Int64Value longs = 33; repeated google.protobuf.NullValue nulls = 34;
    }
"#;

fn special() -> Message {
    message(SOURCE, "Special")
}

#[test]
fn well_known_types_are_as_the_mapping_has_them() {
    let json = json!({
        "time": "2024-02-29T12:30:45.120Z", "duration": "-1.500s", "mask": "title,author.firstName",
        "aStruct": {"": [1, null, {"x": "y"}], "a": true}, "value": {"b": [0.5]}, "list": [1, "x", null, []],
        "empty": {}, "double": 0.5, "float": 0.1, "int64": "-9007199254740993", "uint64": "18446744073709551615",
        "int32": 0, "uint32": 7, "bool": false, "string": "", "bytes": "AA==",
        "values": [null, 1, {"a": []}], "times": {"a": "1970-01-01T00:00:00Z"}, "byName": {"n": null},
        "longs": ["0", "5"], "nulls": [null, null],
        "any": {"@type": "type.googleapis.com/test.Special", "int32": 5, "any": {"@type": "x/google.protobuf.Duration", "value": "3s"}},
        "anys": [{}, {"@type": "type.googleapis.com/google.protobuf.Empty", "value": {}}],
        "something": null,
    });
    let mut expected = json.clone();
    // A message without a mapping of its own is its fields beside its type.
    expected["anys"][1] = json!({"@type": "type.googleapis.com/google.protobuf.Empty"});
    let mut input = json;
    input["anys"][1] = expected["anys"][1].clone();
    assert_eq!(both_ways(&special(), &input.to_string()), expected);
}

#[test]
fn null_is_a_value_where_null_is_one() {
    let both = |json: &str| both_ways(&special(), json);
    assert_eq!(both(r#"{"value": null}"#), json!({"value": null}));
    // Without presence, its default.
    assert_eq!(both(r#"{"null": null}"#), json!({}));
    assert_eq!(both(r#"{"nothing": null}"#), json!({"nothing": null}));
    assert_eq!(
        both(r#"{"nothing": "NULL_VALUE"}"#),
        json!({"nothing": null})
    );
    assert_eq!(
        both(r#"{"string": null, "time": null, "aStruct": null, "list": null}"#),
        json!({})
    );
    let told = refused(
        &special(),
        r#"{"longs": [null], "times": {"a": null}, "anys": [null]}"#,
    );
    let told: Vec<_> = told
        .iter()
        .map(|(field, what)| format!("{field} {what}"))
        .collect();
    assert_eq!(
        told,
        [
            "arguments.longs[0] must be a whole number of 64 bits, is null",
            "arguments.times.a must be a string with a time, such as 2025-01-31T09:30:00Z, is null",
            "arguments.anys[0] must be an object, is null",
        ]
    );
}

#[test]
fn what_a_well_known_type_can_not_say_does_not_cost_the_answer() {
    let time = prost_types::Timestamp {
        seconds: i64::MAX,
        nanos: -1,
    };
    let duration = prost_types::Duration {
        seconds: 1,
        nanos: -1,
    };
    let value = prost_types::Value { kind: None };
    let list = prost_types::ListValue {
        values: vec![f64::NAN.into(), value.clone()],
    };
    let mut wire = Vec::new();
    for (number, part) in [
        (1, encoded(&time)),
        (2, encoded(&duration)),
        (5, encoded(&value)),
        (6, encoded(&list)),
    ] {
        prost::encoding::bytes::encode(number, &part, &mut wire);
    }
    prost::encoding::bytes::encode(3, &b"\x0a\x04a__b\x0a\x03x_y".to_vec(), &mut wire);
    let expected = json!({
        "time": {"seconds": "9223372036854775807", "nanos": -1}, "duration": {"seconds": "1", "nanos": -1},
        "value": null, "list": ["NaN", null], "mask": "a__b,xY",
    });
    assert_eq!(decode(&special(), &wire), Ok(expected));
}

#[test]
fn any_of_a_type_that_nobody_knows_stays_as_it_is() {
    let unknown = json!({"any": {"@type": "x/y.Z", "value": "AQID"}});
    assert_eq!(both_ways(&special(), &unknown.to_string()), unknown);
    let told = |json: &str| {
        let told = refused(&special(), json);
        format!("{} {}", told[0].0, told[0].1)
    };
    assert_eq!(
        told(r#"{"any": {"@type": "x/y.Z", "a": 1}}"#),
        r#"arguments.any["@type"] the descriptors have no message type y.Z"#
    );
    assert_eq!(
        told(r#"{"any": {"a": 1}}"#),
        r#"arguments.any["@type"] is required"#
    );
    assert!(
        told(r#"{"any": {"@type": "test.Special"}}"#)
            .starts_with(r#"arguments.any["@type"] must be a URL"#)
    );
    assert_eq!(
        told(r#"{"any": {"@type": "x/test.Special", "nope": 1}}"#)
            .split(' ')
            .next(),
        Some("arguments.any.nope")
    );
    assert_eq!(
        told(r#"{"any": {"@type": "x/google.protobuf.Duration"}}"#),
        "arguments.any.value is required"
    );
    assert_eq!(
        told(r#"{"any": {"@type": "x/google.protobuf.Duration", "value": "3s", "b": 1}}"#)
            .split(' ')
            .next(),
        Some("arguments.any.b")
    );
    assert_eq!(
        told(r#"{"any": {"@type": 1}}"#),
        r#"arguments.any["@type"] must be a string, is a number"#
    );
}

/// A decoder that gives each one a new stack overflows it, and with it the process.
#[test]
fn any_within_any_is_decoded_some_levels_deep() {
    let mut wire = Vec::new();
    let mut depths = Vec::new();
    for levels in 1..=10_000 {
        let any = prost_types::Any {
            type_url: "x/google.protobuf.Any".to_owned(),
            value: wire,
        };
        wire = any.encode_to_vec();
        if levels > 20 && levels < 10_000 {
            continue;
        }
        let mut outer = Vec::new();
        prost::encoding::bytes::encode(7, &wire, &mut outer);
        let json = decode(&special(), &outer).unwrap();
        let mut depth = 0;
        let mut at = &json["any"];
        while let Json::Object(_) = at["value"] {
            at = &at["value"];
            depth += 1;
        }
        depths.push(depth);
        if levels > 8 {
            assert!(at["value"].is_string(), "{json}");
        }
    }
    assert_eq!(depths[..4], [1, 2, 3, 4]);
    assert_eq!(depths[depths.len() - 1], 8);
}

#[test]
fn arguments_of_a_type_that_is_no_object_are_its_value() {
    let pool = pool(SOURCE);
    for (name, json) in [
        ("StringValue", json!("x")),
        ("Int64Value", json!("5")),
        ("Timestamp", json!("1970-01-01T00:00:00Z")),
        ("Duration", json!("3s")),
        ("FieldMask", json!("aB")),
        ("ListValue", json!([1])),
    ] {
        let message = pool.message(&format!("google.protobuf.{name}")).unwrap();
        let arguments = json!({"value": json});
        assert_eq!(both_ways(&message, &arguments.to_string()), json, "{name}");
        assert!(encode(&message, "{}").is_empty());
        let told = refused(&message, r#"{"valeu": 1}"#);
        assert_eq!(
            told,
            [(
                "arguments.valeu".into(),
                "is not known, there is value".into()
            )]
        );
    }
    for (name, json) in [
        ("Struct", json!({"a": 1})),
        ("Value", json!({"a": 1})),
        ("Empty", json!({})),
        ("Any", json!({})),
    ] {
        let message = pool.message(&format!("google.protobuf.{name}")).unwrap();
        assert_eq!(both_ways(&message, &json.to_string()), json, "{name}");
    }
    let told = refused(
        &pool.message("google.protobuf.Empty").unwrap(),
        r#"{"a": 1}"#,
    );
    assert_eq!(
        told[0].1,
        "is not known: google.protobuf.Empty has no fields"
    );
}

#[test]
fn special_values_that_are_wrong_are_told() {
    let json = r#"{
        "time": "yesterday", "duration": "3", "mask": "a,,b", "aStruct": [], "list": {}, "empty": 1,
        "value": 9007199254740993, "int64": 9.5, "bool": "true", "bytes": "?", "values": [1, [18446744073709551615]],
        "null": "x"
    }"#;
    let told = refused(&special(), json);
    let told: Vec<_> = told
        .iter()
        .map(|(field, what)| format!("{} {what}", &field[10..]))
        .collect();
    assert_eq!(
        told,
        [
            "time must be a time as in RFC 3339, such as 2025-01-31T09:30:00Z",
            "duration must be seconds such as 3s or 1.500s",
            "mask must be paths between commas, such as title,author.name",
            "aStruct must be an object, is a list",
            "list must be a list, is an object",
            "empty must be an object, is a number",
            "value must be an integer that a double holds exactly: write it as a string",
            "int64 must be a whole number of 64 bits, is 9.5",
            "bool must be a boolean, is a string",
            "bytes must be base64",
            "values[1][0] must be an integer that a double holds exactly: write it as a string",
            "null must be one of NULL_VALUE",
        ]
    );
}
