//! Descriptors that are wrong, or too much.

use bytes::Bytes;
use prost::Message as _;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
    FileDescriptorSet, MessageOptions, MethodDescriptorProto, ServiceDescriptorProto,
    field_descriptor_proto::{Label, Type},
};
use serde_json::json;

use super::{Pool, field, file, message, of_type, pool, why};
use crate::protobuf::tests::support::{both_ways, compiled};

#[test]
fn a_descriptor_that_is_wrong_costs_its_type_and_those_that_need_it() {
    let repeated = |mut it: FieldDescriptorProto| {
        it.label = Some(Label::Repeated.into());
        it
    };
    let entry = |name: &str, fields| DescriptorProto {
        options: Some(MessageOptions {
            map_entry: Some(true),
            ..MessageOptions::default()
        }),
        ..message(name, fields)
    };
    let key = || field("key", 1, Type::String);
    let in_oneof = FieldDescriptorProto {
        oneof_index: Some(3),
        ..field("a", 1, Type::Int32)
    };
    let cases = vec![
        (
            message(
                "Numbers",
                vec![field("a", 1, Type::Int32), field("b", 1, Type::Int64)],
            ),
            "has two fields with the number 1",
        ),
        (
            message(
                "Names",
                vec![field("a", 1, Type::Int32), field("a", 2, Type::Int64)],
            ),
            "has two fields with the name a",
        ),
        (
            message("Zero", vec![field("a", 0, Type::Int32)]),
            "has the field a, which has no number",
        ),
        (
            message("Negative", vec![field("a", -5, Type::Int32)]),
            "has the field a, which has no number",
        ),
        (
            message("Large", vec![field("a", 1 << 29, Type::Int32)]),
            "has the field a, which has no number",
        ),
        (
            message("Typeless", vec![field("a", 1, Type::Message)]),
            "has the field a, which has no type",
        ),
        (
            message("Enum", vec![of_type("a", 1, ".test.E")]),
            "has the field a, which has no type",
        ),
        (
            message(
                "Strange",
                vec![FieldDescriptorProto {
                    r#type: Some(99),
                    ..field("a", 1, Type::Int32)
                }],
            ),
            "has the field a, which has no type",
        ),
        (
            message("Spaces", vec![field("a b", 1, Type::Int32)]),
            "has a field whose name can't be one",
        ),
        (
            message("Empty", vec![field("", 1, Type::Int32)]),
            "has a field whose name can't be one",
        ),
        (
            message("Long", vec![field(&"x".repeat(1 << 20), 1, Type::Int32)]),
            "has a field whose name can't be one",
        ),
        (
            message("Oneof", vec![in_oneof]),
            "has the field a of no oneof",
        ),
        (entry("NoValue", vec![key()]), "is no entry of a map"),
        (
            entry(
                "FloatKey",
                vec![field("key", 1, Type::Float), field("value", 2, Type::Int32)],
            ),
            "is no entry of a map",
        ),
        (
            entry(
                "Lists",
                vec![key(), repeated(field("value", 2, Type::Int32))],
            ),
            "is no entry of a map",
        ),
    ];
    let names: Vec<_> = cases
        .iter()
        .map(|(it, why)| (it.name().to_owned(), *why))
        .collect();
    let mut messages = vec![message("Good", vec![field("a", 1, Type::Int32)])];
    for (case, _) in &cases {
        let user = of_type("a", 1, &format!(".test.{}", case.name()));
        messages.push(message(
            &format!("User{}", case.name()),
            vec![repeated(user)],
        ));
    }
    messages.extend(cases.into_iter().map(|(case, _)| case));
    let mut file = super::file("wrong.proto", messages);
    file.enum_type.push(EnumDescriptorProto {
        name: Some("E".into()),
        ..EnumDescriptorProto::default()
    });
    let (pool, problems) = pool(&[file]);
    assert_eq!(problems.len(), names.len());
    assert!(pool.message("test.Good").is_ok());
    for (name, expected) in names {
        let expected = format!("test.{name} {expected}");
        assert_eq!(why(&pool, &format!("test.{name}")), expected);
        assert_eq!(why(&pool, &format!("test.User{name}")), expected);
        assert!(
            problems.contains(&format!(
                "{}, so it can't be used",
                expected.replacen(' ', ": ", 1)
            )),
            "{problems:#?}"
        );
    }
}

#[test]
fn entries_of_maps_are_nothing_else() {
    let set = compiled(&[(
        "m.proto",
        r#"syntax = "proto3"; package test; message M { map<string, int32> m = 1; }"#,
    )]);
    let mut set = FileDescriptorSet::decode(set).unwrap();
    set.file[0].message_type[0].field[0].label = Some(Label::Optional.into());
    let (pool, _) = pool(&set.file);
    assert_eq!(
        why(&pool, "test.M"),
        "test.M has the field m, which has the type of an entry and is no map"
    );
}

#[test]
fn files_that_can_not_be_read_are_left_out() {
    let good = file("good.proto", vec![message("Good", vec![])]);
    let mut future = file("future.proto", vec![message("Future", vec![])]).encode_to_vec();
    future.extend([0x62, 8]);
    future.extend(b"editions");
    future.extend([0x70, 0xff, 0x7f]);
    let mut deep = message("Deep", vec![]);
    for _ in 0..40 {
        deep = DescriptorProto {
            nested_type: vec![deep],
            ..message("Deep", vec![])
        };
    }
    let deep = file("deep.proto", vec![deep]).encode_to_vec();
    let files = [
        b"\xff\xff".to_vec(),
        future,
        deep,
        good.encode_to_vec(),
        vec![0x0a, 1, 0xff],
    ];
    let (pool, problems) = Pool::new(files.into_iter().map(Bytes::from));
    let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        problems,
        [
            "file 0: is left out: is no encoded google.protobuf.FileDescriptorProto",
            "future.proto: is left out: its syntax or edition is not known",
            "file 2: is left out: has message types nested deeper than 32 levels",
            "file 4: is left out: is no encoded google.protobuf.FileDescriptorProto",
        ]
    );
    assert!(pool.message("test.Good").is_ok());
    assert!(pool.message("test.Future").is_err());
    for no_set in [b"".as_slice(), b"\xff", b"{}"] {
        assert!(Pool::from_set(no_set).is_err(), "{no_set:?}");
    }
}

#[test]
fn everything_is_bounded() {
    // Many small elements in few bytes.
    let mut tiny = file("tiny.proto", vec![]).encode_to_vec();
    tiny.extend([0x22, 0].repeat(2_000_000));
    let (_, problems) = Pool::new([Bytes::from(tiny)]);
    assert!(
        problems[0].description.contains("too many elements"),
        "{problems:?}"
    );
    let many = (0..3000).map(|n| {
        Bytes::from(
            file(
                &format!("{n}.proto"),
                vec![message(&format!("M{n}"), vec![])],
            )
            .encode_to_vec(),
        )
    });
    let (pool, problems) = Pool::new(many);
    assert_eq!(problems.len(), 1);
    assert!(pool.message("test.M1999").is_ok() && pool.message("test.M2000").is_err());
    let large = [file(
        "large.proto",
        vec![message(&"M".repeat(17 << 20), vec![])],
    )];
    let (_, problems) = super::pool(&large);
    assert!(problems[0].contains("the limit is"), "{problems:?}");
    let named = [file(
        &"n".repeat(1 << 20),
        vec![
            message(&"M".repeat(1 << 20), vec![]),
            message("a b", vec![]),
        ],
    )];
    let (pool, problems) = super::pool(&named);
    assert!(problems.len() == 2 && problems.iter().all(|it| it.len() < 1000));
    assert_eq!(pool.services().count(), 0);
    let nameless = ServiceDescriptorProto {
        name: Some("a/b".into()),
        ..ServiceDescriptorProto::default()
    };
    let (pool, problems) = super::pool(&[FileDescriptorProto {
        service: vec![nameless],
        ..file("s.proto", vec![])
    }]);
    assert_eq!((pool.services().count(), problems.len()), (0, 1));
}

#[test]
fn a_hundred_thousand_fields_are_many_and_work() {
    let fields = (1..=100_000).map(|n| FieldDescriptorProto {
        label: Some(
            if n % 2 == 0 {
                Label::Repeated
            } else {
                Label::Optional
            }
            .into(),
        ),
        ..of_type(&format!("f{n}"), n, ".test.M")
    });
    let (pool, problems) = pool(&[file("m.proto", vec![message("M", fields.collect())])]);
    assert_eq!(problems, [""; 0]);
    let message = pool.message("test.M").unwrap();
    let json = json!({"f1": {"f3": {}}, "f99999": {}, "f100000": [{}, {"f1": {}}]});
    assert_eq!(both_ways(&message, &json.to_string()), json);
}

#[test]
fn a_method_whose_name_can_not_be_one_is_told() {
    let method = |name: &str| MethodDescriptorProto {
        name: Some(name.to_owned()),
        input_type: Some(".test.M".to_owned()),
        output_type: Some(".test.M".to_owned()),
        ..MethodDescriptorProto::default()
    };
    let mut file = file("a.proto", vec![message("M", vec![])]);
    file.service = vec![ServiceDescriptorProto {
        name: Some("S".to_owned()),
        method: vec![method("Good"), method(&"x".repeat(100_000)), method("a/b")],
        ..ServiceDescriptorProto::default()
    }];
    let (pool, problems) = pool(&[file]);
    assert_eq!(pool.methods().len(), 1);
    let problem = "test.S: has a method whose name can't be one, so it is left out";
    assert_eq!(problems, [problem; 2]);
}
