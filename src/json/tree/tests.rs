//! Trees against what prost and serde_json read.

use proptest::prelude::*;
use prost::Message as _;
use prost_types::{ListValue, Struct, Value, value::Kind};
use serde_json::json;

use super::*;
use crate::json::{encode_struct, value_to_json};

fn refused(text: &str) -> Vec<(String, String)> {
    let violations = Node::from_json(text.as_bytes()).expect_err(text);
    pairs(violations)
}

fn pairs(violations: Vec<Violation>) -> Vec<(String, String)> {
    let pairs = violations.into_iter();
    pairs.map(|it| (it.field, it.description)).collect()
}

fn of(value: Value) -> Struct {
    Struct {
        fields: [("a".to_owned(), value)].into(),
    }
}

#[test]
fn text_is_read_as_it_is_written() {
    let text = r#" { "a" : [ 1 , -2.50, 1e3, 12345678901234567890123, true, false, null ], "" : {},
        "q\"\u00e9\ud83d\ude00" : "\\\"}", "z": [[], [{}]] } "#;
    let digits = |text| Node::Number(Number::Digits(text));
    let expected = Node::Object(vec![
        (
            "a".into(),
            Node::List(vec![
                digits("1"),
                digits("-2.50"),
                digits("1e3"),
                digits("12345678901234567890123"),
                Node::Bool(true),
                Node::Bool(false),
                Node::Null,
            ]),
        ),
        ("".into(), Node::Object(vec![])),
        ("q\"é😀".into(), Node::Text("\\\"}".into())),
        (
            "z".into(),
            Node::List(vec![
                Node::List(vec![]),
                Node::List(vec![Node::Object(vec![])]),
            ]),
        ),
    ]);
    assert_eq!(Node::from_json(text.as_bytes()), Ok(expected));
}

#[test]
fn a_slip_of_the_syntax_is_told_with_its_place() {
    let told = refused("{\n  \"a\": 1,\n}");
    let expected = "must be JSON: key must be a string at line 3 column 1";
    assert_eq!(told, [("arguments_json".into(), expected.into())]);
    for text in [
        "",
        "{",
        "{}{}",
        "{\"a\":01}",
        "{'a':1}",
        "{\"a\":NaN}",
        "{\"a\":\"\u{1}\"}",
        "\u{feff}{}",
    ] {
        assert_eq!(refused(text)[0].0, "arguments_json", "{text}");
    }
    let told = Node::from_json(b"{\"\xff\":1}").expect_err("no UTF-8");
    assert_eq!(told[0].description, "must be UTF-8, is not from byte 2");
    for (text, kind) in [
        ("[1]", "a list"),
        ("\"{}\"", "a string"),
        ("null", "null"),
        ("7", "a number"),
    ] {
        let expected = format!("must be a JSON object, is {kind}");
        assert_eq!(refused(text), [("arguments_json".into(), expected)]);
    }
}

#[test]
fn all_that_is_wrong_in_a_text_is_told_with_its_path() {
    let told = refused(r#"{"a":{"b":[1,2,{"c d":1,"e":3,"c d":2}]},"n":1e999,"s":["\ud800"]}"#);
    let expected = [
        (r#"arguments.a.b[2]["c d"]"#, "must not be there twice"),
        (
            "arguments.n",
            "must be a number within the range of a double",
        ),
        (
            "arguments.s[0]",
            r"must not have half of a surrogate pair (\ud800 to \udfff)",
        ),
    ];
    let expected = expected.map(|(field, description)| (field.into(), description.into()));
    assert_eq!(told, expected);

    let many: Vec<_> = (0..100).map(|index| format!("\"k{index}\":1")).collect();
    let told = refused(&format!("{{{},{}}}", many.join(","), many.join(",")));
    assert_eq!(told.len(), 16);
    assert_eq!(told[1].0, "arguments.k1");
}

#[test]
fn nesting_is_bounded() {
    let nested = |levels: usize| format!("{{\"a\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
    assert!(Node::from_json(nested(MAX_DEPTH - 1).as_bytes()).is_ok());
    for levels in [MAX_DEPTH, 100_000] {
        let told = refused(&nested(levels));
        assert_eq!(
            told[0].0,
            format!("arguments.a{}", "[0]".repeat(MAX_DEPTH - 1))
        );
        assert_eq!(told[0].1, "must not be nested more than 45 levels deep");
    }
    let told = refused(&format!("{}1{}", "{\"a\":".repeat(1000), "}".repeat(1000)));
    assert_eq!(told.len(), 1);

    let mut value = Value::from(1.0);
    for level in 1..200 {
        let list = ListValue {
            values: vec![value],
        };
        value = Value {
            kind: Some(Kind::ListValue(list)),
        };
        let encoded = of(value.clone()).encode_to_vec();
        let read = Node::from_struct(&encoded);
        assert_eq!(read.is_ok(), level < MAX_DEPTH, "{level}");
        if let Ok(node) = read {
            assert_eq!(node.encode_struct().unwrap(), encoded);
        }
    }
}

#[test]
fn structs_that_are_written_are_decodable_by_others() {
    for levels in 1..MAX_DEPTH {
        let text = format!("{}1{}", "{\"a\":".repeat(levels), "}".repeat(levels));
        let node = Node::from_json(text.as_bytes()).unwrap();
        match node.encode_struct() {
            Ok(encoded) => drop(Struct::decode(encoded).unwrap()),
            Err(told) => {
                assert!(levels > 30, "{levels}");
                assert_eq!(told[0].description, "is nested too deeply for protobuf");
            }
        }
    }
}

#[test]
fn of_what_a_struct_has_twice_the_last_counts() {
    let encoded = |text: &str| {
        let json: Json = serde_json::from_str(text).unwrap();
        encode_struct(json.as_object().unwrap())
    };
    let twice = [encoded(r#"{"a":1,"b":2}"#), encoded(r#"{"a":3,"c":4}"#)].concat();
    let node = Node::from_struct(&twice).unwrap();
    assert_eq!(node.to_json(), json!({"a": 3, "b": 2, "c": 4}));
    let Node::Object(members) = &node else {
        panic!("{node:?}")
    };
    assert_eq!(members.len(), 3);

    let many: Vec<u8> = (0..300)
        .rev()
        .flat_map(|n| encoded(&format!("{{\"k{}\":{n}}}", n % 100)))
        .collect();
    let node = Node::from_struct(&many).unwrap();
    let decoded = Struct::decode(many.as_slice()).unwrap();
    assert_eq!(
        node.to_json(),
        Json::Object(crate::json::struct_to_json(&decoded))
    );

    // The same message twice in one `Value`: they are merged.
    let parts = [r#"{"x":1,"y":[1]}"#, r#"{"y":[2],"z":3}"#];
    let parts = parts.map(|text| {
        let json: Json = serde_json::from_str(text).unwrap();
        crate::json::encode_value(&json)
    });
    let mut value = Vec::new();
    wire_entry(&mut value, &parts.concat());
    let node = Node::from_struct(&value).unwrap();
    let decoded = Struct::decode(value.as_slice()).unwrap();
    assert_eq!(
        node.to_json(),
        Json::Object(crate::json::struct_to_json(&decoded))
    );
    assert_eq!(node.to_json(), json!({"a": {"x": 1, "y": [2], "z": 3}}));
}

/// A `Struct` in which `a` is this.
fn wire_entry(out: &mut Vec<u8>, value: &[u8]) {
    use crate::json::wire;
    let entry = wire::begin(out, 1);
    // The value before its key, which is unusual and allowed.
    wire::put_bytes(out, 2, value);
    wire::put_bytes(out, 1, b"a");
    wire::end(out, entry);
}

#[test]
fn what_a_struct_can_hold_and_json_cannot_is_refused() {
    let told = |value: Value| {
        let encoded = of(value).encode_to_vec();
        pairs(Node::from_struct(&encoded).expect_err("no JSON"))
    };
    let expected = [(
        "arguments.a".to_owned(),
        "must be a finite number".to_owned(),
    )];
    assert_eq!(told(f64::NAN.into()), expected);
    assert_eq!(told(f64::NEG_INFINITY.into()), expected);
    let none = told(vec![Value { kind: None }].into());
    let expected = "must have a value, is a Value of no kind";
    assert_eq!(none, [("arguments.a[0]".into(), expected.into())]);
    for malformed in [
        b"\xff".as_slice(),
        &[0x0a, 5],
        &[0x08, 1],
        &[0x0a, 3, 0x0a, 1, 0xff],
    ] {
        let told = pairs(Node::from_struct(malformed).expect_err("malformed"));
        let expected = "must be an encoded google.protobuf.Struct";
        assert_eq!(told, [("arguments".into(), expected.into())]);
    }
}

#[test]
fn integers_that_a_double_cannot_hold_are_refused() {
    let encode = |number: &str| {
        let text = format!("{{\"a\":[{number}]}}");
        Node::from_json(text.as_bytes()).unwrap().encode_struct()
    };
    for number in [
        "0",
        "-0",
        "1.5",
        "0.1",
        "9007199254740992",
        "9007199254740994",
        "1e300",
        "1E2",
        "18446744073709551616",
        "123456789.987654321",
    ] {
        let decoded = Struct::decode(encode(number).expect(number)).unwrap();
        let value: f64 = number.parse().unwrap();
        assert_eq!(
            decoded.fields["a"],
            vec![Value::from(value)].into(),
            "{number}"
        );
    }
    let long = "9".repeat(50);
    for number in [
        "9007199254740993",
        "-9007199254740993",
        "9007199254740993.0",
        "18446744073709551615",
        &long,
    ] {
        let told = pairs(encode(number).expect_err(number));
        let expected = "must be an integer that a double holds exactly: write it as a string";
        assert_eq!(
            told,
            [("arguments.a[0]".into(), expected.into())],
            "{number}"
        );
    }
}

#[test]
fn json_keeps_64_bits() {
    let text =
        br#"{"a":[9007199254740993,-9223372036854775808,18446744073709551615,1.0,0.5,1e2,-0]}"#;
    let node = Node::from_json(text).unwrap();
    let shown = serde_json::to_string(&node.to_json()).unwrap();
    let expected =
        r#"{"a":[9007199254740993,-9223372036854775808,18446744073709551615,1.0,0.5,100.0,-0.0]}"#;
    assert_eq!(shown, expected);
}

fn any_json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i32>().prop_map(Json::from),
        any::<f64>()
            .prop_filter("JSON", |it| it.is_finite())
            .prop_map(Json::from),
        any::<String>().prop_map(Json::from),
    ];
    let nested = leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Json::from),
            prop::collection::btree_map(any::<String>(), inner, 0..6)
                .prop_map(|it| Json::Object(it.into_iter().collect())),
        ]
    });
    prop::collection::btree_map(any::<String>(), nested, 0..16)
        .prop_map(|it| Json::Object(it.into_iter().collect()))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn text_and_structs_are_read_as_others_read_them(json in any_json(), pretty: bool) {
        let text = if pretty { serde_json::to_string_pretty(&json) } else { serde_json::to_string(&json) };
        let text = text.unwrap();
        let node = Node::from_json(text.as_bytes()).unwrap();
        prop_assert_eq!(node.to_json(), json);
        let encoded = node.encode_struct().unwrap();
        let back = Node::from_struct(&encoded).unwrap();
        let shown = value_to_json(&Value { kind: Some(Kind::StructValue(Struct::decode(encoded.clone()).unwrap())) });
        prop_assert_eq!(back.to_json(), shown);
    }

    #[test]
    fn any_text_is_read_or_refused(text in any::<Vec<u8>>(), at in any::<prop::sample::Index>(), byte: u8) {
        drop(Node::from_json(&text));
        let mut text = br#"{"a": [1, -2.5e3, "x\u00e9\n", {"b": null, "c": [true]}], "d": {}}"#.to_vec();
        let at = at.index(text.len());
        text[at] = byte;
        let known = serde_json::from_slice::<Json>(&text);
        let read = Node::from_json(&text);
        prop_assert_eq!(read.as_ref().ok().map(Node::to_json), known.ok().filter(Json::is_object).filter(|_| read.is_ok()));
    }

    #[test]
    fn any_bytes_are_read_or_refused(json in any_json(), at in any::<prop::sample::Index>(), byte: u8) {
        let mut encoded = encode_struct(json.as_object().unwrap()).to_vec();
        if !encoded.is_empty() {
            let at = at.index(encoded.len());
            encoded[at] = byte;
        }
        if let Ok(node) = Node::from_struct(&encoded) {
            let decoded = Struct::decode(encoded.as_slice()).unwrap();
            prop_assert_eq!(node.to_json(), Json::Object(crate::json::struct_to_json(&decoded)));
        }
    }
}
