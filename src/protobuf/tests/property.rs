//! What holds of every message: what is read is what was written, by whichever side, and
//! nothing that is sent breaks anything.

use std::env;

use proptest::prelude::*;
use prost::Message as _;
use prost_types::{FileDescriptorProto, FileDescriptorSet};
use serde_json::{Map, Value as Json, json};

use super::support::{compiled, decode, of_struct};
use crate::{
    json::tree::Node,
    protobuf::{Message, Pool},
};

const SOURCE: &str = r#"
    syntax = "proto2"; package test;
    import "google/protobuf/any.proto"; import "google/protobuf/duration.proto"; import "google/protobuf/field_mask.proto";
    import "google/protobuf/struct.proto"; import "google/protobuf/timestamp.proto"; import "google/protobuf/wrappers.proto";
    enum E { ZERO = 0; ONE = 1; MINUS = -1; }
    message M {
      optional double double = 1; optional float float = 2; optional int64 int64 = 3; optional uint64 uint64 = 4;
      optional int32 int32 = 5; optional fixed64 fixed64 = 6; optional fixed32 fixed32 = 7; optional bool bool = 8;
      optional string string = 9; optional bytes bytes = 10; optional uint32 uint32 = 11; optional E enum = 12;
      optional sfixed32 sfixed32 = 13; optional sfixed64 sfixed64 = 14; optional sint32 sint32 = 15; optional sint64 sint64 = 16;
      optional M message = 17; optional group Group = 18 { optional M inner = 1; optional string text = 2; }
      repeated double doubles = 21; repeated int64 longs = 22 [packed = true]; repeated string strings = 23; repeated M messages = 24;
      repeated E enums = 25 [packed = true]; repeated bool bools = 26; repeated sint32 sint32s = 27 [packed = true]; repeated fixed64 fixeds = 28;
      repeated group Groups = 29 { optional int32 x = 1; }
      map<string, M> by_string = 30; map<int64, string> by_long = 31; map<bool, sint64> by_bool = 32; map<uint32, E> by_uint = 33;
      oneof choice { string one = 40; int32 two = 41; M three = 42; }
      optional google.protobuf.Timestamp time = 50; optional google.protobuf.Duration duration = 51; optional google.protobuf.Value value = 52;
      optional google.protobuf.Struct struct = 53; optional google.protobuf.ListValue list = 54; optional google.protobuf.Int64Value wrapped = 55;
      optional google.protobuf.StringValue text = 56; optional google.protobuf.Any any = 57; optional google.protobuf.FieldMask mask = 58;
    }
"#;

fn object(members: Vec<(&str, Json)>) -> Json {
    members
        .into_iter()
        .map(|(name, json)| (name.to_owned(), json))
        .collect::<Map<_, _>>()
        .into()
}

fn double() -> impl Strategy<Value = Json> {
    any::<f64>().prop_map(|it| match it {
        it if it.is_nan() => json!("NaN"),
        f64::INFINITY => json!("Infinity"),
        f64::NEG_INFINITY => json!("-Infinity"),
        // As it is printed.
        it => crate::json::value_to_json(&it.into()),
    })
}

fn float() -> impl Strategy<Value = Json> {
    any::<f32>()
        .prop_filter("finite", |it| it.is_finite())
        .prop_map(|it| {
            let shortest: f64 = it.to_string().parse().expect("a number");
            crate::json::value_to_json(&shortest.into())
        })
}

fn plain() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i32>().prop_map(Json::from),
        any::<String>().prop_map(Json::from),
    ];
    leaf.prop_recursive(3, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Json::from),
            prop::collection::btree_map(any::<String>(), inner, 0..3)
                .prop_map(|it| it.into_iter().collect::<Map<_, _>>().into()),
        ]
    })
}

fn time() -> impl Strategy<Value = Json> {
    (-62_135_596_800i64..=253_402_300_799, 0..1_000_000_000).prop_map(|(seconds, nanos)| {
        crate::protobuf::time::format_timestamp(seconds, nanos)
            .expect("a time")
            .into()
    })
}

fn duration() -> impl Strategy<Value = Json> {
    (0..=315_576_000_000i64, 0..1_000_000_000, any::<bool>()).prop_map(
        |(seconds, nanos, negative)| {
            let sign = if negative { -1 } else { 1 };
            crate::protobuf::time::format_duration(i64::from(sign) * seconds, sign * nanos)
                .expect("a duration")
                .into()
        },
    )
}

fn list<S: Strategy<Value = Json>>(items: S) -> impl Strategy<Value = Json> {
    prop::collection::vec(items, 1..4).prop_map(Json::from)
}

fn map<K: ToString>(entries: impl IntoIterator<Item = (K, Json)>) -> Json {
    entries
        .into_iter()
        .map(|(key, json)| (key.to_string(), json))
        .collect::<Map<_, _>>()
        .into()
}

/// A field of `M` with a value as it is printed.
fn member(inner: &BoxedStrategy<Json>) -> BoxedStrategy<(&'static str, Json)> {
    let named = |name: &'static str, value: BoxedStrategy<Json>| {
        value.prop_map(move |json| (name, json)).boxed()
    };
    let text = || any::<String>().prop_map(Json::from).boxed();
    let long = || any::<i64>().prop_map(|it| it.to_string().into()).boxed();
    let ulong = || any::<u64>().prop_map(|it| it.to_string().into()).boxed();
    let int = || any::<i32>().prop_map(Json::from).boxed();
    let uint = || any::<u32>().prop_map(Json::from).boxed();
    let of_enum = || {
        prop_oneof![
            Just(json!("ZERO")),
            Just(json!("ONE")),
            Just(json!("MINUS"))
        ]
        .boxed()
    };
    let base64 = {
        use base64::Engine as _;
        any::<Vec<u8>>()
            .prop_map(|it| base64::engine::general_purpose::STANDARD.encode(it).into())
            .boxed()
    };
    let group = (inner.clone(), any::<String>())
        .prop_map(|(inner, text)| object(vec![("inner", inner), ("text", text.into())]));
    let groups = list(any::<i32>().prop_map(|x| object(vec![("x", x.into())])));
    let expanded = inner.clone().prop_map(|mut json| {
        json["@type"] = json!("type.googleapis.com/test.M");
        json
    });
    let keyed = |value: BoxedStrategy<Json>| {
        prop::collection::btree_map(any::<String>(), value, 1..4)
            .prop_map(map)
            .boxed()
    };
    let long_keys = prop::collection::btree_map(any::<i64>(), text(), 1..4).prop_map(map);
    let bool_keys = prop::collection::btree_map(any::<bool>(), long(), 1..3).prop_map(map);
    let uint_keys = prop::collection::btree_map(any::<u32>(), of_enum(), 1..4).prop_map(map);
    let object_of = prop::collection::btree_map(any::<String>(), plain(), 0..3).prop_map(map);
    let bool = || any::<bool>().prop_map(Json::from).boxed();
    let all = vec![
        named("double", double().boxed()),
        named("float", float().boxed()),
        named("int64", long()),
        named("uint64", ulong()),
        named("int32", int()),
        named("fixed64", ulong()),
        named("fixed32", uint()),
        named("bool", bool()),
        named("string", text()),
        named("bytes", base64),
        named("uint32", uint()),
        named("enum", of_enum()),
        named("sfixed32", int()),
        named("sfixed64", long()),
        named("sint32", int()),
        named("sint64", long()),
        named("message", inner.clone()),
        named("group", group.boxed()),
        named("doubles", list(double()).boxed()),
        named("longs", list(long()).boxed()),
        named("strings", list(text()).boxed()),
        named("messages", list(inner.clone()).boxed()),
        named("enums", list(of_enum()).boxed()),
        named("bools", list(bool()).boxed()),
        named("sint32s", list(int()).boxed()),
        named("fixeds", list(ulong()).boxed()),
        named("groups", groups.boxed()),
        named("byString", keyed(inner.clone())),
        named("byLong", long_keys.boxed()),
        named("byBool", bool_keys.boxed()),
        named("byUint", uint_keys.boxed()),
        named("two", int()),
        named("time", time().boxed()),
        named("duration", duration().boxed()),
        named("value", plain().boxed()),
        named("struct", object_of.boxed()),
        named("list", list(plain()).boxed()),
        named("wrapped", long()),
        named("text", text()),
        named("any", expanded.boxed()),
        named("mask", Just(json!("a,fooBar.baz")).boxed()),
    ];
    proptest::strategy::Union::new(all).boxed()
}

fn any_message() -> impl Strategy<Value = Json> {
    let empty = Just(json!({})).boxed();
    empty.prop_recursive(3, 24, 8, |inner| {
        prop::collection::vec(member(&inner.boxed()), 0..8)
            .prop_map(object)
            .boxed()
    })
}

fn message() -> &'static Message {
    static MESSAGE: std::sync::OnceLock<Message> = std::sync::OnceLock::new();
    MESSAGE.get_or_init(|| super::support::message(SOURCE, "M"))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn what_was_encoded_is_decoded(json in any_message()) {
        let text = json.to_string();
        let wire = message().encode(&Node::from_json(text.as_bytes()).unwrap()).unwrap();
        prop_assert_eq!(&decode(message(), &wire).unwrap(), &json);
        // The same out of a `Struct`.
        let arguments = of_struct(&json);
        let again = message().encode(&Node::from_struct(&arguments).unwrap()).unwrap();
        prop_assert_eq!(decode(message(), &again).unwrap(), json);
    }
}

/// The seconds that the fuzz takes, a few unless `FANFARE_FUZZ_SECONDS` says more.
fn seconds() -> u64 {
    env::var("FANFARE_FUZZ_SECONDS")
        .ok()
        .and_then(|it| it.parse().ok())
        .unwrap_or(2)
}

/// Changes some bytes as a file that was damaged, or made to hurt.
fn damage(random: &mut fastrand::Rng, bytes: &mut Vec<u8>) {
    for _ in 0..random.usize(1..8) {
        let at = random.usize(0..=bytes.len());
        match random.u8(0..6) {
            0 if at < bytes.len() => bytes[at] = random.u8(..),
            1 if at < bytes.len() => bytes[at] ^= 1 << random.u8(0..8),
            2 if at < bytes.len() => drop(bytes.remove(at)),
            3 => bytes.insert(at, random.u8(..)),
            4 if bytes.len() < 1 << 16 => {
                // A piece of it once more, somewhere else.
                let from = random.usize(0..=bytes.len());
                let to = random.usize(from..=bytes.len()).min(from + 300);
                let piece = bytes[from..to].to_vec();
                bytes.splice(at..at, piece);
            }
            5 => bytes.truncate(at.max(1)),
            _ => {}
        }
    }
}

/// Descriptors and bytes that are damaged again and again: whatever becomes of them, no
/// panic, no endless loop, nothing beyond its bounds, and what is decoded is an observation.
#[test]
fn no_descriptor_and_no_answer_does_harm() {
    let editions = include_bytes!("data/editions2023.binpb").as_slice();
    let sets = [
        compiled(&[("test.proto", SOURCE)]).to_vec(),
        editions.to_vec(),
        crate::protobuf::pool::WELL_KNOWN.to_vec(),
    ];
    let files: Vec<FileDescriptorProto> = sets
        .iter()
        .flat_map(|set| FileDescriptorSet::decode(set.as_slice()).unwrap().file)
        .collect();
    let files: Vec<_> = files.iter().map(prost::Message::encode_to_vec).collect();
    let seed = env::var("FANFARE_FUZZ_SEED")
        .ok()
        .and_then(|it| it.parse().ok())
        .unwrap_or(7);
    let mut random = fastrand::Rng::with_seed(seed);
    let started = std::time::SystemTime::now();
    let good = message();
    let mut wires: Vec<Vec<u8>> = vec![Vec::new()];
    let mut rounds = 0u64;
    while started.elapsed().unwrap().as_secs() < seconds() {
        let mut chosen: Vec<_> = files.clone();
        random.shuffle(&mut chosen);
        chosen.truncate(random.usize(1..5));
        for file in &mut chosen {
            if random.u8(0..3) > 0 {
                damage(&mut random, file);
            }
        }
        let (pool, _) = Pool::new(chosen.into_iter().map(Into::into));
        let names = [
            "test.M",
            "e2023.Edition",
            "google.rpc.BadRequest",
            "google.protobuf.DescriptorProto",
            "google.protobuf.Value",
        ];
        let messages: Vec<_> = names
            .iter()
            .filter_map(|name| pool.message(name).ok())
            .collect();
        for message in messages.iter().chain([good]) {
            let mut wire = random.choice(&wires).cloned().unwrap_or_default();
            damage(&mut random, &mut wire);
            let digits = random.u8(4..20);
            let max_bytes = random.usize(0..1 << digits);
            if let Ok(value) = message.decode(&wire, max_bytes) {
                assert!(value.len() <= max_bytes);
                crate::tool::fanfare::payload::check(&value).expect("an observation");
                let json = crate::json::decode_value(&value).expect("a value");
                if let Ok(node) = Node::from_json(json.to_string().as_bytes()) {
                    drop(message.encode(&node));
                }
                if wires.len() < 2000 {
                    wires.push(wire);
                } else {
                    let at = random.usize(0..wires.len());
                    wires[at] = wire;
                }
            }
            if rounds.is_multiple_of(64) {
                drop((message.input_schema(), message.output_schema()));
            }
        }
        rounds += 1;
    }
    assert!(rounds > 3, "{rounds}");
    eprintln!("{rounds} rounds, {} answers", wires.len());
}
