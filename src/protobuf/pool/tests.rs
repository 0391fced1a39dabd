//! Descriptors that are as they should be, more or less.

mod bad;

use bytes::Bytes;
use prost::Message as _;
use prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet,
    MethodDescriptorProto, ServiceDescriptorProto,
    field_descriptor_proto::{Label, Type},
};
use serde_json::json;

use super::*;
use crate::protobuf::tests::support::{both_ways, compiled, decode, encode};

fn file(name: &str, messages: Vec<DescriptorProto>) -> FileDescriptorProto {
    FileDescriptorProto {
        name: Some(name.to_owned()),
        package: Some("test".to_owned()),
        syntax: Some("proto3".to_owned()),
        message_type: messages,
        ..FileDescriptorProto::default()
    }
}

fn message(name: &str, fields: Vec<FieldDescriptorProto>) -> DescriptorProto {
    DescriptorProto {
        name: Some(name.to_owned()),
        field: fields,
        ..DescriptorProto::default()
    }
}

fn field(name: &str, number: i32, kind: Type) -> FieldDescriptorProto {
    FieldDescriptorProto {
        name: Some(name.to_owned()),
        number: Some(number),
        r#type: Some(kind.into()),
        label: Some(Label::Optional.into()),
        ..FieldDescriptorProto::default()
    }
}

fn of_type(name: &str, number: i32, type_name: &str) -> FieldDescriptorProto {
    FieldDescriptorProto {
        type_name: Some(type_name.to_owned()),
        ..field(name, number, Type::Message)
    }
}

fn pool(files: &[FileDescriptorProto]) -> (Pool, Vec<String>) {
    let files = files.iter().map(|file| Bytes::from(file.encode_to_vec()));
    let (pool, problems) = Pool::new(files);
    (pool, problems.iter().map(ToString::to_string).collect())
}

fn why(pool: &Pool, name: &str) -> String {
    pool.message(name).expect_err(name).to_string()
}

fn missing(pool: &Pool) -> Vec<&str> {
    pool.missing().collect()
}

#[test]
fn files_come_in_any_order_and_more_than_once() {
    let set = compiled(&[
        (
            "c.proto",
            r#"syntax = "proto3"; package test; import "b.proto"; message C { B b = 1; }"#,
        ),
        (
            "b.proto",
            r#"syntax = "proto3"; package test; import public "a.proto"; message B { A a = 1; }"#,
        ),
        (
            "a.proto",
            r#"syntax = "proto3"; package test; message A { int32 x = 1; }"#,
        ),
    ]);
    let files = FileDescriptorSet::decode(set).unwrap().file;
    for turn in 0..3 {
        let mut files = [files.clone(), files.clone()].concat();
        files.rotate_left(turn);
        let (pool, problems) = pool(&files);
        assert_eq!(problems, [""; 0]);
        let json = json!({"b": {"a": {"x": 1}}});
        assert_eq!(
            both_ways(&pool.message("test.C").unwrap(), &json.to_string()),
            json
        );
        assert_eq!(missing(&pool), [""; 0]);
    }
}

#[test]
fn names_without_a_leading_dot_are_those_of_the_innermost_scope() {
    let mut outer = message(
        "Outer",
        vec![of_type("near", 1, "Inner"), of_type("far", 2, "other.Far")],
    );
    outer.nested_type = vec![message(
        "Inner",
        vec![of_type("up", 1, "Outer"), of_type("far", 2, "Far")],
    )];
    let mut file = file(
        "a.proto",
        vec![
            outer,
            message("Inner", vec![]),
            message("Far", vec![field("x", 1, Type::Int32)]),
        ],
    );
    let mut other = self::file(
        "b.proto",
        vec![message("Far", vec![field("y", 1, Type::Int32)])],
    );
    other.package = Some("other".to_owned());
    file.service = vec![ServiceDescriptorProto {
        name: Some("S".to_owned()),
        method: vec![MethodDescriptorProto {
            name: Some("Get".to_owned()),
            input_type: Some("Outer".to_owned()),
            output_type: Some("Outer.Inner".to_owned()),
            ..MethodDescriptorProto::default()
        }],
        ..ServiceDescriptorProto::default()
    }];
    let (pool, problems) = pool(&[file, other]);
    assert_eq!(problems, [""; 0]);
    let json = json!({"near": {"up": {"far": {"y": 5}}, "far": {"x": 6}}});
    let outer = pool.message("test.Outer").unwrap();
    assert_eq!(both_ways(&outer, &json.to_string()), json);
    let method = &pool.methods()[0];
    assert_eq!(
        (&*method.input, &*method.output),
        ("test.Outer", "test.Outer.Inner")
    );
}

#[test]
fn services_have_methods_with_what_is_known_of_them() {
    let set = compiled(&[(
        "s.proto",
        r#"
        syntax = "proto3"; package test;
        import "google/protobuf/empty.proto";
        message Q {}
        // Keeps things.
        service Store {
          // Gets a thing.
          //
          //   Indented.
          rpc Get(Q) returns (google.protobuf.Empty) { option idempotency_level = NO_SIDE_EFFECTS; }
          rpc Put(stream Q) returns (Q) { option idempotency_level = IDEMPOTENT; option deprecated = true; }
          rpc Watch(Q) returns (stream Q); // Watches things.
        }
        service Other {}"#,
    )]);
    let (pool, problems) = Pool::from_set(&set).unwrap();
    assert_eq!(problems, []);
    assert_eq!(
        pool.services().collect::<Vec<_>>(),
        ["test.Store", "test.Other"]
    );
    let method = |name: &str| Method {
        full_name: format!("test.Store/{name}"),
        input: "test.Q".into(),
        output: "test.Q".into(),
        client_streaming: false,
        server_streaming: false,
        idempotent: false,
        read_only: false,
        deprecated: false,
        description: String::new(),
    };
    assert_eq!(
        pool.methods(),
        [
            Method {
                output: "google.protobuf.Empty".into(),
                idempotent: true,
                read_only: true,
                description: "Gets a thing.\n\n  Indented.".into(),
                ..method("Get")
            },
            Method {
                client_streaming: true,
                idempotent: true,
                deprecated: true,
                ..method("Put")
            },
            Method {
                server_streaming: true,
                description: "Watches things.".into(),
                ..method("Watch")
            },
        ]
    );
}

#[test]
fn a_missing_import_costs_the_types_that_need_it() {
    let mut uses = file(
        "uses.proto",
        vec![
            message("Good", vec![field("x", 1, Type::Int32)]),
            message("Needs", vec![of_type("there", 1, ".other.There")]),
            message(
                "Around",
                vec![
                    of_type("needs", 1, ".test.Needs"),
                    of_type("around", 2, ".test.Around"),
                ],
            ),
            message(
                "Farther",
                vec![
                    of_type("around", 1, ".test.Around"),
                    of_type("good", 2, ".test.Good"),
                ],
            ),
        ],
    );
    uses.dependency = vec![
        "other/there.proto".into(),
        "google/api/annotations.proto".into(),
        "google/protobuf/any.proto".into(),
    ];
    let (pool, problems) = pool(&[uses.clone()]);
    assert_eq!(problems, [""; 0]);
    assert!(pool.message("test.Good").is_ok());
    for name in ["Needs", "Around", "Farther"] {
        assert_eq!(
            pool.message(&format!("test.{name}")).unwrap_err(),
            Unusable::Missing("other.There".into())
        );
    }
    assert_eq!(
        why(&pool, "test.Farther"),
        "the descriptors lack the type other.There"
    );
    assert_eq!(
        why(&pool, "test.Nope"),
        "the descriptors have no message type test.Nope"
    );
    assert_eq!(
        missing(&pool),
        ["google/api/annotations.proto", "other/there.proto"]
    );
    assert_eq!(pool.unresolved().collect::<Vec<_>>(), ["other.There"]);

    // A file that has the type, under a name that is not the import's.
    let mut there = file("api/other/there.proto", vec![message("There", vec![])]);
    there.package = Some("other".into());
    let (pool, _) = super::tests::pool(&[uses.clone(), there.clone()]);
    assert!(pool.message("test.Farther").is_ok());
    assert_eq!(missing(&pool), [""; 0]);
    // One that has not, though it is the import by the end of its name.
    there.message_type = vec![];
    let (pool, _) = super::tests::pool(&[uses.clone(), there]);
    assert_eq!(missing(&pool), ["google/api/annotations.proto"]);

    // What grpc-go sends in place of a file that it doesn't have.
    for name in ["", "other/there.proto"] {
        let placeholder = FileDescriptorProto {
            name: Some(name.into()),
            syntax: Some("<unknown:0>".into()),
            ..FileDescriptorProto::default()
        };
        let (pool, problems) = super::tests::pool(&[placeholder, uses.clone()]);
        assert_eq!(problems, [""; 0]);
        assert!(pool.message("test.Good").is_ok());
        assert_eq!(
            missing(&pool),
            ["google/api/annotations.proto", "other/there.proto"]
        );
    }
}

#[test]
fn well_known_types_are_there_and_are_what_they_are() {
    let mut fake = file(
        "google/protobuf/timestamp.proto",
        vec![message("Timestamp", vec![field("evil", 1, Type::String)])],
    );
    fake.package = Some("google.protobuf".into());
    let mut vendored = fake.clone();
    vendored.name = Some("vendor/timestamp.proto".into());
    let uses = file(
        "uses.proto",
        vec![message(
            "M",
            vec![
                of_type("t", 1, ".google.protobuf.Timestamp"),
                of_type("s", 2, ".google.rpc.Status"),
            ],
        )],
    );
    let (pool, problems) = pool(&[uses, fake, vendored]);
    assert_eq!(
        problems,
        ["vendor/timestamp.proto: google.protobuf.Timestamp is left out: another file has it, too"]
    );
    let json = json!({"t": "1970-01-01T00:00:01Z", "s": {"code": 5, "details": [{"@type": "x/google.rpc.RetryInfo", "retryDelay": "1s"}]}});
    assert_eq!(
        both_ways(&pool.message("test.M").unwrap(), &json.to_string()),
        json
    );
    assert_eq!(missing(&pool), [""; 0]);
}

#[test]
fn types_may_go_in_circles() {
    let (pool, problems) = pool(&[file(
        "circle.proto",
        vec![
            message(
                "A",
                vec![of_type("b", 1, ".test.B"), of_type("a", 2, ".test.A")],
            ),
            message("B", vec![of_type("a", 1, "test.A")]),
        ],
    )]);
    assert_eq!(problems, [""; 0]);
    let json = json!({"a": {"b": {"a": {}}}, "b": {"a": {"a": {}}}});
    assert_eq!(
        both_ways(&pool.message("test.A").unwrap(), &json.to_string()),
        json
    );
}

#[test]
fn names_that_descriptors_leave_out_are_made() {
    let without = field("foo_bar", 1, Type::Int32);
    let untyped = FieldDescriptorProto {
        r#type: None,
        ..of_type("the_inner", 2, ".test.M")
    };
    let (pool, _) = pool(&[file("m.proto", vec![message("M", vec![without, untyped])])]);
    let json = json!({"fooBar": 1, "theInner": {"fooBar": 2}});
    assert_eq!(
        both_ways(&pool.message("test.M").unwrap(), &json.to_string()),
        json
    );
}

#[test]
fn extensions_can_not_take_what_a_message_has() {
    let mut base = file(
        "base.proto",
        vec![message("Base", vec![field("a", 1, Type::Int32)])],
    );
    let extension = |name: &str, number| FieldDescriptorProto {
        extendee: Some(".test.Base".into()),
        ..field(name, number, Type::Int32)
    };
    base.extension = vec![
        extension("good", 100),
        extension("taken", 1),
        extension("again", 100),
        FieldDescriptorProto {
            extendee: Some(".test.Base".into()),
            ..of_type("lost", 101, ".test.Nope")
        },
        FieldDescriptorProto {
            extendee: Some(".test.Nope".into()),
            ..field("stray", 102, Type::Int32)
        },
    ];
    let (pool, problems) = pool(&[base]);
    assert_eq!(problems, [""; 0]);
    let base = pool.message("test.Base").unwrap();
    let json = json!({"a": 1, "[test.good]": 0});
    assert_eq!(both_ways(&base, &json.to_string()), json);
    let wire = encode(&base, r#"{"a": 5}"#);
    assert_eq!(decode(&base, &wire), Ok(json!({"a": 5})));
}
