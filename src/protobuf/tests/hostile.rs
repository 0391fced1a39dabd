//! Answers that are not what they should be.

use prost::Message as _;
use serde_json::json;

use super::support::{decode, encoded, message, pool};
use crate::{json::wire, protobuf::Unreadable};

const SOURCE: &str = r#"
    syntax = "proto3";
    package test;
    import "google/protobuf/struct.proto";
    message Node {
      int32 number = 1; string text = 2; Node next = 3; repeated Node nodes = 4; repeated int32 numbers = 5;
      oneof choice { Node left = 6; string word = 7; Node right = 8; }
      map<string, Node> by_name = 9; google.protobuf.Value value = 10; bool flag = 11; repeated string texts = 12;
      map<int32, int32> map = 13;
    }
"#;

fn put(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    wire::put_bytes(out, number, bytes);
}

#[test]
fn nesting_is_bounded() {
    let node = message(SOURCE, "Node");
    for number in [3, 4, 9, 6] {
        let mut wire = Vec::new();
        let mut deepest = 0;
        for level in 0..20_000 {
            if level < 40 || level == 19_999 {
                match decode(&node, &wire) {
                    Ok(_) => deepest = level,
                    Err(error) => assert_eq!(
                        error,
                        Unreadable::Invalid("its answer is nested too deeply".into())
                    ),
                }
            }
            let mut outer = Vec::new();
            if number == 9 {
                let mut entry = Vec::new();
                put(&mut entry, 2, &wire);
                wire = entry;
            }
            put(&mut outer, number, &wire);
            wire = outer;
        }
        assert!((14..=31).contains(&deepest), "{number}: {deepest}");
    }
    let mut value = prost_types::Value::from(1.0);
    for _ in 0..200 {
        value = vec![value].into();
        let mut wire = Vec::new();
        put(&mut wire, 10, &encoded(&value));
        drop(decode(&node, &wire));
    }
    assert_eq!(
        decode(&node, &[0x1b; 100_000]),
        Err(Unreadable::Invalid("its answer is no test.Node".into()))
    );
}

#[test]
fn bytes_are_counted_while_they_are_written() {
    let node = message(SOURCE, "Node");
    let mut wire = Vec::new();
    put(&mut wire, 5, &vec![1; 100_000]);
    assert_eq!(node.decode(&wire, 100_000), Err(Unreadable::TooLarge));
    let exact = node.decode(&wire, 10 << 20).unwrap().len();
    assert!(node.decode(&wire, exact).is_ok());
    assert_eq!(node.decode(&wire, exact - 1), Err(Unreadable::TooLarge));
    // Small messages with long names; and fields that count once, again and again.
    let wire = [0x22, 0].repeat(100_000);
    assert_eq!(node.decode(&wire, 1000), Err(Unreadable::TooLarge));
    let wire = [0x08, 1, 0x58, 1].repeat(1_000_000);
    assert_eq!(node.decode(&wire, 1000), Err(Unreadable::TooLarge));
    let wire = [0x08, 1].repeat(1_000_000);
    assert!(node.decode(&wire, 1000).is_ok());
    for size in 0..200 {
        let value = node.decode(&[0x08, 1, 0x12, 1, b'x'], size);
        assert!(value.map_or(true, |value| value.len() <= size));
    }
}

#[test]
fn fields_count_as_other_decoders_count_them() {
    #[derive(Clone, PartialEq, prost::Message)]
    struct Known {
        #[prost(int32, tag = "1")]
        number: i32,
        #[prost(string, tag = "2")]
        text: String,
        #[prost(message, optional, boxed, tag = "3")]
        next: Option<Box<Known>>,
        #[prost(int32, repeated, tag = "5")]
        numbers: Vec<i32>,
    }
    let inner = |number, numbers: &[i32]| {
        let inner = Known {
            number,
            numbers: numbers.to_vec(),
            ..Known::default()
        };
        Known {
            next: Some(Box::new(inner)),
            ..Known::default()
        }
        .encode_to_vec()
    };
    // The last of a value; what came in pieces is put together.
    let wire = [
        &[0x28, 7][..],
        &inner(1, &[1, 2]),
        &[0x08, 5],
        &inner(0, &[3]),
        &[0x12, 1, b'a'],
        &[0x08, 6],
        &[0x2a, 1, 8],
        &[0x12, 1, b'b'],
        &[0x28, 9],
    ]
    .concat();
    let known = Known::decode(wire.as_slice()).unwrap();
    assert_eq!(
        (known.number, &*known.text, &*known.numbers),
        (6, "b", &[7, 8, 9][..])
    );
    let json = decode(&message(SOURCE, "Node"), &wire).unwrap();
    let expected = json!({"number": 6, "text": "b", "next": {"number": 1, "numbers": [1, 2, 3]}, "numbers": [7, 8, 9]});
    assert_eq!(json, expected);
}

#[test]
fn of_a_oneof_the_last_member_counts_and_clears_the_others() {
    let node = message(SOURCE, "Node");
    let (left, word, right) = (
        |number: u8| vec![0x32, 2, 8, number],
        [0x3a, 1, b'w'],
        [0x42, 0],
    );
    let text = [0x32, 3, 0x12, 1, b't'];
    for (wire, expected) in [
        ([&left(1)[..], &word].concat(), json!({"word": "w"})),
        (
            [&word[..], &left(1)].concat(),
            json!({"left": {"number": 1}}),
        ),
        (
            [&left(1)[..], &text].concat(),
            json!({"left": {"number": 1, "text": "t"}}),
        ),
        (
            [&left(1)[..], &word, &text].concat(),
            json!({"left": {"text": "t"}}),
        ),
        (
            [&left(1)[..], &right, &left(2), &right].concat(),
            json!({"right": {}}),
        ),
        (
            [&word[..], &[8, 3], &left(1), &[8, 4], &right].concat(),
            json!({"number": 4, "right": {}}),
        ),
    ] {
        assert_eq!(decode(&node, &wire), Ok(expected), "{wire:?}");
    }
    let wire = [&word[..], &left(1)].concat().repeat(50_000);
    assert_eq!(decode(&node, &wire), Ok(json!({"left": {"number": 1}})));
}

#[test]
fn what_nobody_knows_is_dropped_and_what_is_malformed_is_told() {
    let node = message(SOURCE, "Node");
    // Unknown numbers of every wire type; known ones of a wrong type.
    let unknown = [
        0xf8, 1, 5, 0xf9, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0xfa, 1, 1, 0, 0xfb, 1, 0x08, 1, 0xfc, 1,
        0xfd, 1, 0, 0, 0, 0,
    ];
    assert_eq!(decode(&node, &unknown), Ok(json!({})));
    assert_eq!(
        decode(&node, &[0x0a, 1, 5, 0x10, 5, 0x08, 3, 0x5d, 0, 0, 0, 0]),
        Ok(json!({"number": 3}))
    );
    // Zero without presence is the default, also on the wire.
    assert_eq!(decode(&node, &[0x08, 0, 0x12, 0, 0x58, 0]), Ok(json!({})));
    assert_eq!(decode(&node, &[0x58, 2]), Ok(json!({"flag": true})));
    for malformed in [
        &[0x08][..],
        &[0x00, 1],
        &[0x12, 5, 1],
        &[0x0c],
        &[0x0e],
        &[0x1a, 1, 0x08],
        &[0x2a, 1, 0x80],
        &[0x4a, 1, 0xff],
        &[0x52, 1, 0xff],
    ] {
        assert!(
            matches!(decode(&node, malformed), Err(Unreadable::Invalid(_))),
            "{malformed:?}"
        );
    }
    let told = decode(&node, &[0x12, 1, 0xff]);
    assert_eq!(
        told,
        Err(Unreadable::Invalid(
            "its answer has no UTF-8 in text of test.Node".into()
        ))
    );
    assert!(decode(&node, &[0x4a, 3, 0x0a, 1, 0xff]).is_err());
}

#[test]
fn maps_are_sorted_and_the_last_of_a_key_counts() {
    let node = message(SOURCE, "Node");
    let entry =
        |key: &[u8], value: &[u8]| [&[0x6a, (key.len() + value.len()) as u8], key, value].concat();
    let wire = [
        entry(&[8, 10], &[16, 1]),
        entry(&[8, 9], &[16, 2]),
        entry(&[8, 10], &[16, 3]),
        entry(&[], &[16, 4]),
        entry(&[8, 1], &[]),
        entry(&[], &[16, 5, 8, 2]),
        entry(
            &[8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
            &[16, 6],
        ),
    ]
    .concat();
    let value = node.decode(&wire, 1000).unwrap();
    let shown = prost_types::Value::decode(value.clone()).unwrap();
    assert_eq!(
        crate::json::value_to_json(&shown),
        json!({"map": {"-1": 6, "0": 4, "1": 0, "2": 5, "9": 2, "10": 3}})
    );
    let mut keys = Vec::new();
    let mut last = 0;
    for key in ["-1", "0", "1", "2", "9", "10"] {
        let needle = [&[0x0a, key.len() as u8], key.as_bytes()].concat();
        let at = value
            .windows(needle.len())
            .skip(last)
            .position(|window| *window == *needle);
        last += at.expect(key);
        keys.push(last);
    }
    assert!(keys.is_sorted());
    // A message in an entry that came in pieces.
    let mut entry = Vec::new();
    put(&mut entry, 2, &[8, 1]);
    put(&mut entry, 1, b"k");
    put(&mut entry, 2, &[0x12, 1, b'x']);
    let mut wire = Vec::new();
    put(&mut wire, 9, &entry);
    assert_eq!(
        decode(&node, &wire),
        Ok(json!({"byName": {"k": {"number": 1, "text": "x"}}}))
    );
}

/// What a type has in thousands is no cost of each message of that type.
#[test]
fn wide_types_are_no_cost_of_small_messages() {
    let wide = |n: usize| {
        let oneofs = (1..=n).map(|n| {
            format!(
                "oneof o{n} {{ int32 a{n} = {n}; int32 b{n} = {}; }}",
                20_000 + n
            )
        });
        format!(
            "message Wide {{ {} repeated Wide more = 18999; }}",
            oneofs.collect::<String>()
        )
    };
    let one = |n: usize| {
        let members = (20_001..20_000 + n).map(|n| format!("int32 m{n} = {n};"));
        format!(
            "message One {{ oneof o {{ {} }} repeated One more = 1; }}",
            members.collect::<String>()
        )
    };
    let source = format!(
        "syntax = \"proto3\"; package test; {} {}",
        wide(15_000),
        one(15_000)
    );
    let pool = pool(&source);
    for (name, member) in [
        ("Wide", "a14999"),
        ("Wide", "b14999"),
        ("One", "m34998"),
        ("Wide", "a1"),
    ] {
        let message = pool.message(&format!("test.{name}")).unwrap();
        let items = vec![format!("{{\"{member}\": 1}}"); 20_000];
        let wire =
            super::support::encode(&message, &format!("{{\"more\": [{}]}}", items.join(",")));
        let value = message.decode(&wire, 10 << 20).unwrap();
        assert!(value.len() > 20_000 * 10);
    }
    let wide = pool.message("test.Wide").unwrap();
    let told = super::support::refused(&wide, r#"{"a14999": 1, "b14999": 2}"#);
    assert_eq!(
        told[0].1,
        "can't be set together with `a14999`: at most one of `o14999` may be"
    );
    let both = super::support::encode(&wide, r#"{"b14999": 2}"#);
    let both = [super::support::encode(&wide, r#"{"a14999": 1}"#), both].concat();
    assert_eq!(decode(&wide, &both), Ok(json!({"b14999": 2})));
}

#[test]
fn one_type_that_is_many_fields_wide_is_no_slower_for_it() {
    let fields: Vec<_> = (1..=20_000)
        .map(|n| format!("int32 field_{n} = {n};"))
        .filter(|it| !it.contains("= 19"))
        .collect();
    let source = format!(
        "syntax = \"proto3\"; package test; message Wide {{ {} }}",
        fields.concat()
    );
    let wide = pool(&source).message("test.Wide").unwrap();
    let members: Vec<_> = (1..=20_000)
        .filter(|n| !format!("= {n}").contains("= 19"))
        .map(|n| format!("\"field_{n}\": {n}"))
        .collect();
    let wire = super::support::encode(&wide, &format!("{{{}}}", members.join(",")));
    let json = decode(&wide, &wire).unwrap();
    assert_eq!(json.as_object().unwrap().len(), members.len());
    assert_eq!(json["field18000"], 18_000);
}
