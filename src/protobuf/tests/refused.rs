//! Arguments that don't fit: all that is wrong with them, and where.

use super::support::{message, of_struct, refused};
use crate::json::tree::Node;

const SOURCE: &str = r#"
    syntax = "proto3";
    package test;
    enum Size { SIZE_UNSPECIFIED = 0; SIZE_SMALL = 1; SIZE_LARGE = 2; }
    message Item { string title = 1; int32 price_cents = 2; Size size = 3; }
    message Order {
      repeated Item items = 1; map<int32, string> notes = 2; map<bool, Item> flags = 3;
      oneof payment { string card = 4; string invoice = 5; }
      float weight = 6; uint32 count = 7; int64 total = 8; uint64 serial = 9; bytes blob = 10;
      Order parent = 11; bool gift = 12; double ratio = 13;
    }
"#;

fn told(json: &str) -> Vec<String> {
    let told = refused(&message(SOURCE, "Order"), json);
    told.iter()
        .map(|(field, what)| format!("{field} {what}"))
        .collect()
}

#[test]
fn all_that_is_wrong_is_told_with_its_path() {
    let json = r#"{
        "items": [{"titel": "x"}, {"title": 5, "priceCents": 1.5}, 7, {"size": "SIZE_LARG"}],
        "notes": {"x": "a", "1": 2, "1.0": ""}, "flags": {"yes": {}},
        "weight": 1e300, "count": -1, "total": "9223372036854775808", "blob": "!", "gift": 1, "ratio": "fast"
    }"#;
    assert_eq!(
        told(json),
        [
            "arguments.items[0].titel is not known, did you mean `title`?",
            "arguments.items[1].title must be a string, is a number",
            "arguments.items[1].priceCents must be a whole number of 32 bits, is 1.5",
            "arguments.items[2] must be an object, is a number",
            "arguments.items[3].size must be one of SIZE_UNSPECIFIED, SIZE_SMALL, SIZE_LARGE, did you mean `SIZE_LARGE`?",
            "arguments.notes.x must be a whole number of 32 bits, is \"x\"",
            "arguments.notes[\"1\"] must be a string, is a number",
            "arguments.notes[\"1.0\"] must be the key of a map: a whole number",
            "arguments.flags.yes must be the key \"true\" or \"false\"",
            "arguments.weight must be within the range of a float of 32 bits",
            "arguments.count must be a whole number of 32 bits, not negative, is -1",
            "arguments.total must be a whole number of 64 bits, is \"9223372036854775808\"",
            "arguments.blob must be base64",
            "arguments.gift must be a boolean, is a number",
            "arguments.ratio must be a number, or \"NaN\", \"Infinity\" or \"-Infinity\"",
        ]
    );
}

#[test]
fn at_most_sixteen_are_told() {
    let items = vec!["1"; 1000].join(",");
    assert_eq!(told(&format!("{{\"items\": [{items}]}}")).len(), 16);
}

/// Guessing what was meant takes time: not for what is not told.
#[test]
fn many_unknown_names_take_no_time() {
    let fields: Vec<_> = (1..2000)
        .map(|n| format!("int32 {}_{n} = {n};", "f".repeat(60)))
        .collect();
    let source = format!(
        "syntax = \"proto3\"; package test; message M {{ {} }}",
        fields.concat()
    );
    let message = message(&source, "M");
    let members: Vec<_> = (0..5_000)
        .map(|n| format!("\"{}_{n}\": 1", "g".repeat(60)))
        .collect();
    let told = refused(&message, &format!("{{{}}}", members.join(",")));
    assert_eq!(told.len(), 16);
}

#[test]
fn a_field_is_there_once_and_one_of_a_oneof() {
    assert_eq!(
        told(r#"{"items": [{"priceCents": 1, "price_cents": 1}]}"#),
        ["arguments.items[0].price_cents is there twice, as `priceCents` and `price_cents`"]
    );
    assert_eq!(
        told(r#"{"card": "a", "invoice": "b"}"#),
        ["arguments.invoice can't be set together with `card`: at most one of `payment` may be"]
    );
}

#[test]
fn integers_that_a_double_may_have_lost_are_refused() {
    let order = message(SOURCE, "Order");
    let told = |json: serde_json::Value| {
        let arguments = of_struct(&json);
        let node = Node::from_struct(&arguments).unwrap();
        let violations = order.encode(&node).map_err(|it| it[0].clone());
        violations
            .err()
            .map(|it| format!("{} {}", it.field, it.description))
    };
    let lost = "is beyond 2^53, where doubles are not exact: write it as a string";
    assert_eq!(
        told(serde_json::json!({"total": 9007199254740994u64})),
        Some(format!("arguments.total {lost}"))
    );
    assert_eq!(
        told(serde_json::json!({"serial": 1e19})),
        Some(format!("arguments.serial {lost}"))
    );
    assert_eq!(
        told(serde_json::json!({"total": 9007199254740991u64})),
        None
    );
    assert_eq!(told(serde_json::json!({"total": "9007199254740993"})), None);
}

#[test]
fn names_that_are_not_known_lead_to_those_that_are() {
    assert_eq!(
        told(r#"{"zzzzzzzzz": 1}"#),
        [
            "arguments.zzzzzzzzz is not known, there are items, notes, flags, card, invoice, weight, count, total, serial, blob, parent, gift, ratio"
        ]
    );
    assert_eq!(
        told(r#"{"Items": []}"#),
        ["arguments.Items is not known, did you mean `items`?"]
    );
    assert_eq!(
        told(r#"{"items": [{"size": "HUGE"}]}"#),
        ["arguments.items[0].size must be one of SIZE_UNSPECIFIED, SIZE_SMALL, SIZE_LARGE"]
    );
    let long = "x".repeat(100_000);
    let told = told(&format!(
        "{{\"{long}\": 1, \"items\": [{{\"size\": \"{long}\"}}]}}"
    ));
    assert!(told.iter().all(|it| it.len() < 1000), "{told:?}");
    // Names of a hostile source are bounded as well.
    let values: Vec<_> = (0..500)
        .map(|n| format!("VALUE_{n}_{} = {n};", "X".repeat(90)))
        .collect();
    let source = format!(
        "syntax = \"proto3\"; package test; enum E {{ {} }} message M {{ E e = 1; }}",
        values.concat()
    );
    let told = refused(&message(&source, "M"), r#"{"e": "VALUE"}"#);
    assert!(told[0].1.len() <= crate::core::error::MAX_DESCRIPTION_BYTES);
}

#[test]
fn numbers_are_of_their_kind() {
    for (json, wrong) in [
        (r#"{"count": 4294967296}"#, true),
        (r#"{"count": 4294967295}"#, false),
        (r#"{"count": "4294967295"}"#, false),
        (r#"{"count": " 1"}"#, true),
        (r#"{"count": "01"}"#, true),
        (r#"{"count": "+1"}"#, true),
        (r#"{"count": ""}"#, true),
        (r#"{"count": "0x10"}"#, true),
        (r#"{"count": true}"#, true),
        (r#"{"count": "1e2"}"#, false),
        (r#"{"count": 1e100}"#, true),
        (r#"{"total": 9223372036854775807}"#, false),
        (r#"{"total": 9223372036854775808}"#, true),
        (r#"{"total": 9.223372036854775808e18}"#, true),
        (r#"{"total": -9223372036854775808}"#, false),
        (r#"{"serial": 18446744073709551615}"#, false),
        (r#"{"serial": 18446744073709551616}"#, true),
        (r#"{"serial": -0}"#, false),
        (r#"{"weight": "inf"}"#, true),
        (r#"{"weight": "nan"}"#, true),
        (r#"{"weight": "Infinity"}"#, false),
        (r#"{"weight": "1e999"}"#, true),
        (r#"{"weight": "0x1p3"}"#, true),
        (r#"{"weight": 3.5e38}"#, true),
        (r#"{"weight": -3.4028234663852886e38}"#, false),
        (r#"{"ratio": "1."}"#, true),
        (r#"{"ratio": ".5"}"#, true),
        (r#"{"ratio": "-1.5e-3"}"#, false),
        (r#"{"ratio": [1]}"#, true),
    ] {
        let order = message(SOURCE, "Order");
        let node = Node::from_json(json.as_bytes()).unwrap();
        assert_eq!(order.encode(&node).is_err(), wrong, "{json}");
    }
}
