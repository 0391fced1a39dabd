//! Every kind of field, to the wire and back.

use serde_json::json;

use super::support::{both_ways, decode, encode, message, of_struct, pool};
use crate::{json::tree::Node, protobuf::Message};

const KINDS: &str = r#"
    syntax = "proto3";
    package test;
    enum Color { COLOR_UNSPECIFIED = 0; COLOR_RED = 1; COLOR_BLUE = -2; }
    message Kinds {
      double a_double = 1; float a_float = 2; int64 an_int64 = 3; uint64 a_uint64 = 4;
      int32 an_int32 = 5; fixed64 a_fixed64 = 6; fixed32 a_fixed32 = 7; bool a_bool = 8;
      string a_string = 9; bytes some_bytes = 10; uint32 a_uint32 = 11; Color a_color = 12;
      sfixed32 an_sfixed32 = 13; sfixed64 an_sfixed64 = 14; sint32 an_sint32 = 15;
      sint64 an_sint64 = 16; Kinds a_message = 17;
      repeated int32 numbers = 20; repeated string texts = 21; repeated Kinds messages = 22;
      repeated Color colors = 23; repeated double doubles = 24; repeated int64 longs = 25;
      repeated fixed32 fixed = 26; repeated bool flags = 27; repeated bytes blobs = 28;
      repeated int32 unpacked = 29 [packed = false];
      map<string, int32> counts = 30; map<int64, string> names = 31; map<bool, Kinds> by_flag = 32;
      map<string, Color> colors_by_name = 33; map<sint32, double> by_sint = 34;
      oneof choice { string one = 40; int32 two = 41; Kinds three = 42; }
      optional int32 maybe = 50;
      int32 renamed = 51 [json_name = "other-name"];
    }
"#;

const PROTO2: &str = r#"
    syntax = "proto2";
    package test;
    enum Closed { A = 1; B = 2; }
    message Old {
      required int32 id = 1;
      optional string name = 2 [default = "nobody"];
      repeated int32 numbers = 3;
      repeated int32 packed = 4 [packed = true];
      optional group Inner = 5 { optional int32 x = 1; optional Old old = 2; }
      repeated group Item = 6 { optional string y = 1; }
      optional Closed closed = 7;
      extensions 100 to 200;
    }
    extend Old { optional int32 age = 100; repeated Old more = 101; }
    message Scope { extend Old { optional string nick = 102; } }
"#;

fn kinds() -> Message {
    message(KINDS, "Kinds")
}

#[test]
fn every_kind_survives() {
    let json = json!({
        "aDouble": 0.1, "aFloat": 0.1, "anInt64": "-9223372036854775808", "aUint64": "18446744073709551615",
        "anInt32": -2147483648, "aFixed64": "9007199254740993", "aFixed32": 4294967295u32, "aBool": true,
        "aString": "grüß\u{0}", "someBytes": "AP8+", "aUint32": 4294967295u32, "aColor": "COLOR_BLUE",
        "anSfixed32": -1, "anSfixed64": "-1", "anSint32": -2147483648, "anSint64": "-9223372036854775808",
        "aMessage": {"aMessage": {"anInt32": 7}, "numbers": [1]},
        "numbers": [0, -1, 2147483647], "texts": ["", "x"], "messages": [{}, {"aBool": true}],
        "colors": ["COLOR_RED", "COLOR_UNSPECIFIED", 77], "doubles": [1, 0.5, "NaN", "Infinity", "-Infinity"],
        "longs": ["0", "9223372036854775807"], "fixed": [1, 2], "flags": [true, false], "blobs": ["", "AA=="],
        "unpacked": [3, 4],
        "counts": {"": 0, "a": 1, "b": -1}, "names": {"-9223372036854775808": "x", "2": "y", "10": "z"},
        "byFlag": {"false": {}, "true": {"aBool": true}}, "colorsByName": {"r": "COLOR_RED", "u": "COLOR_UNSPECIFIED"},
        "bySint": {"-5": 1.5}, "two": 0, "maybe": 0, "other-name": 3,
    });
    assert_eq!(both_ways(&kinds(), &json.to_string()), json);
    // The same out of a `Struct`, whose numbers are doubles.
    let arguments = of_struct(&json);
    let node = Node::from_struct(&arguments).unwrap();
    let wire = kinds().encode(&node).unwrap();
    assert_eq!(decode(&kinds(), &wire), Ok(json));
}

#[test]
fn input_is_taken_in_other_forms_and_written_in_one() {
    for (input, output) in [
        (
            r#"{"a_double": 1, "an_int32": "5"}"#,
            json!({"aDouble": 1, "anInt32": 5}),
        ),
        (
            r#"{"anInt32": 5.0, "aUint32": 1e2}"#,
            json!({"anInt32": 5, "aUint32": 100}),
        ),
        (
            r#"{"anInt64": 9007199254740993}"#,
            json!({"anInt64": "9007199254740993"}),
        ),
        (
            r#"{"anInt64": "1e3", "aUint64": 18446744073709551615}"#,
            json!({"anInt64": "1000", "aUint64": "18446744073709551615"}),
        ),
        (
            r#"{"aDouble": "1.5", "aFloat": "-2e0"}"#,
            json!({"aDouble": 1.5, "aFloat": -2}),
        ),
        (r#"{"someBytes": "-_8"}"#, json!({"someBytes": "+/8="})),
        (r#"{"someBytes": "-_8="}"#, json!({"someBytes": "+/8="})),
        (r#"{"someBytes": "+/8"}"#, json!({"someBytes": "+/8="})),
        (
            r#"{"aColor": "color_red", "colors": [1, -2.0, "Color_Blue"]}"#,
            json!({"aColor": "COLOR_RED", "colors": ["COLOR_RED", "COLOR_BLUE", "COLOR_BLUE"]}),
        ),
        (
            r#"{"aColor": 1, "anInt32": null, "aMessage": null, "one": null, "two": 1, "numbers": null, "counts": null}"#,
            json!({"aColor": "COLOR_RED", "two": 1}),
        ),
        (r#"{"renamed": 4}"#, json!({"other-name": 4})),
        (
            r#"{"aFloat": 3.4028235e38, "aDouble": 1e308}"#,
            json!({"aFloat": 3.4028235e38, "aDouble": 1e308}),
        ),
        // What is the default need not be said, unless its presence is seen.
        (
            r#"{"anInt32": 0, "aString": "", "aBool": false, "aColor": 0, "someBytes": "", "aDouble": 0, "numbers": [], "counts": {}}"#,
            json!({}),
        ),
        (
            r#"{"one": "", "maybe": 0, "aMessage": {}}"#,
            json!({"one": "", "maybe": 0, "aMessage": {}}),
        ),
        (r#"{"aDouble": -0.0}"#, json!({"aDouble": 0})),
    ] {
        assert_eq!(both_ways(&kinds(), input), output, "{input}");
    }
    let empty = encode(&kinds(), r#"{"anInt32": 0, "aString": "", "numbers": []}"#);
    assert!(empty.is_empty());
}

#[test]
fn floats_are_the_shortest_that_are_the_same() {
    #[derive(Clone, PartialEq, prost::Message)]
    struct Floats {
        #[prost(float, tag = "2")]
        a_float: f32,
    }
    for number in [0.1, -1.1, 16_777_217.0, 3.4e38, 1e-45, 1.0 / 3.0, 123_456.7] {
        let wire = super::support::encoded(&Floats { a_float: number });
        let json = decode(&kinds(), &wire).unwrap();
        let shown = json["aFloat"].to_string().parse::<f64>().unwrap();
        assert_eq!(shown, number.to_string().parse::<f64>().unwrap());
        assert_eq!(shown as f32, number);
    }
}

#[test]
fn proto2_has_groups_extensions_and_required_fields() {
    let pool = pool(PROTO2);
    let old = pool.message("test.Old").unwrap();
    let json = json!({
        "id": 0, "name": "", "numbers": [1, 2], "packed": [3, 4],
        "inner": {"x": 1, "old": {"id": 2}}, "item": [{"y": "a"}, {}], "closed": "B",
        "[test.age]": 9, "[test.more]": [{"id": 3}], "[test.Scope.nick]": "x",
    });
    assert_eq!(both_ways(&old, &json.to_string()), json);
    // Defaults are what is meant when nothing is there, and are not said.
    assert_eq!(decode(&old, &[]), Ok(json!({})));
    let wire = encode(&old, r#"{"id": 1, "numbers": [1, 2], "packed": [1, 2]}"#);
    assert_eq!(*wire, [8, 1, 0x18, 1, 0x18, 2, 0x22, 2, 1, 2]);
}

/// `editions.binpb` and `editions2024.binpb` are made by `data/make.sh`.
#[test]
fn editions_are_what_their_features_say() {
    use crate::protobuf::Pool;
    for (set, package) in [
        (
            include_bytes!("data/editions2023.binpb").as_slice(),
            "e2023",
        ),
        (
            include_bytes!("data/editions2024.binpb").as_slice(),
            "e2024",
        ),
    ] {
        let (pool, problems) = Pool::from_set(set).unwrap();
        assert_eq!(problems, []);
        let message = pool.message(&format!("{package}.Edition")).unwrap();
        let json = json!({
            "explicit": 0, "required": 1, "packed": [1, 2], "expanded": [3, 4], "delimited": {"delimited": {}, "required": 5},
            "lengthPrefixed": {"required": 6}, "open": 9, "closed": "CLOSED_B", "items": [{"required": 1}],
            "byName": {"a": {"required": 2}}, "text": "x",
        });
        assert_eq!(
            both_ways(
                &message,
                &json
                    .to_string()
                    .replace(r#""delimited":{}"#, r#""delimited":{"required":0}"#)
            ),
            serde_json::from_str::<serde_json::Value>(
                &json
                    .to_string()
                    .replace(r#""delimited":{}"#, r#""delimited":{"required":0}"#)
            )
            .unwrap()
        );
        let wire = |json: &str| encode(&message, json).to_vec();
        assert_eq!(wire(r#"{"required": 1, "implicit": 0}"#), [16, 1]);
        assert_eq!(
            wire(r#"{"required": 1, "explicit": 0}"#),
            [16, 1, 8, 0][..].to_vec()
        );
        assert_eq!(
            wire(r#"{"required": 1, "packed": [1], "expanded": [1]}"#),
            [16, 1, 0x22, 1, 1, 0x28, 1]
        );
        assert_eq!(
            wire(r#"{"required": 1, "delimited": {"required": 2}}"#),
            [16, 1, 0x33, 16, 2, 0x34]
        );
        assert_eq!(
            wire(r#"{"required": 1, "lengthPrefixed": {"required": 2}}"#),
            [16, 1, 0x3a, 2, 16, 2]
        );
        let told = super::support::refused(&message, r#"{"closed": 7, "open": 7}"#);
        let told: Vec<_> = told
            .iter()
            .map(|(field, what)| (&**field, &**what))
            .collect();
        let of = format!("is no number of {package}.Closed");
        assert_eq!(
            told,
            [
                ("arguments.closed", &*of),
                ("arguments.required", "is required")
            ]
        );
    }
}

#[test]
fn names_that_fall_together_stay_apart() {
    let source = r#"
        syntax = "proto2"; package test;
        message Names {
          optional int32 foo_bar = 1; optional int32 fooBar = 2;
          optional int32 a = 3 [json_name = "x"]; optional int32 b = 4 [json_name = "y"];
        }"#;
    // The compiler refuses it, but other compilers did not always.
    let mut set = prost_types::FileDescriptorSet::decode(super::support::compiled(&[(
        "test.proto",
        &source.replace("fooBar", "fooBaz"),
    )]))
    .unwrap();
    use prost::Message as _;
    let fields = &mut set.file[0].message_type[0].field;
    fields[1].name = Some("fooBar".into());
    fields[1].json_name = None;
    fields[3].json_name = Some("x".into());
    let (pool, problems) = crate::protobuf::Pool::from_set(&set.encode_to_vec()).unwrap();
    assert_eq!(problems, []);
    let names = pool.message("test.Names").unwrap();
    let json = both_ways(&names, r#"{"foo_bar": 1, "fooBar": 2, "x": 3, "b": 4}"#);
    assert_eq!(json, json!({"foo_bar": 1, "fooBar": 2, "x": 3, "b": 4}));
}
