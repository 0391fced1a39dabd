//! Schemas of messages, in and out.

use serde_json::{Value as Json, json};

use crate::protobuf::{
    Message, Pool,
    tests::support::{compiled, message},
};

/// The parts of the real files that schemas are made of, with their numbers.
const FIELD_BEHAVIOR: &str = r#"
    syntax = "proto3"; package google.api; import "google/protobuf/descriptor.proto";
    enum FieldBehavior { FIELD_BEHAVIOR_UNSPECIFIED = 0; OPTIONAL = 1; REQUIRED = 2; OUTPUT_ONLY = 3; INPUT_ONLY = 4; IMMUTABLE = 5; }
    extend google.protobuf.FieldOptions { repeated FieldBehavior field_behavior = 1052; }
"#;
const VALIDATE: &str = r#"
    syntax = "proto2"; package buf.validate; import "google/protobuf/descriptor.proto";
    extend google.protobuf.FieldOptions { optional FieldRules field = 1159; }
    extend google.protobuf.OneofOptions { optional OneofRules oneof = 1159; }
    message OneofRules { optional bool required = 1; }
    enum Ignore { IGNORE_UNSPECIFIED = 0; IGNORE_IF_ZERO_VALUE = 1; IGNORE_ALWAYS = 3; }
    message Rule { optional string id = 1; optional string message = 2; optional string expression = 3; }
    message FieldRules {
      repeated Rule cel = 23; repeated string cel_expression = 29; optional bool required = 25; optional Ignore ignore = 27;
      oneof type {
        FloatRules float = 1; DoubleRules double = 2; Int32Rules int32 = 3; Int64Rules int64 = 4; SInt32Rules sint32 = 7;
        StringRules string = 14; EnumRules enum = 16; RepeatedRules repeated = 18; MapRules map = 19;
      }
    }
    message FloatRules { optional float lt = 2; optional float gte = 5; repeated float in = 6; }
    message DoubleRules { optional double lt = 2; optional double lte = 3; optional double gt = 4; optional double gte = 5; }
    message Int32Rules { optional int32 const = 1; optional int32 lt = 2; optional int32 lte = 3; optional int32 gt = 4; optional int32 gte = 5; repeated int32 in = 6; repeated int32 not_in = 7; }
    message Int64Rules { optional int64 lte = 3; optional int64 gte = 5; repeated int64 in = 6; }
    message SInt32Rules { optional sint32 lte = 3; optional sint32 gte = 5; }
    message StringRules {
      optional string const = 1; optional uint64 len = 19; optional uint64 min_len = 2; optional uint64 max_len = 3; optional string pattern = 6;
      optional string prefix = 7; repeated string in = 10; oneof well_known { bool email = 12; bool uri = 17; bool uuid = 22; }
    }
    message EnumRules { optional bool defined_only = 2; repeated int32 in = 3; repeated int32 not_in = 4; }
    message RepeatedRules { optional uint64 min_items = 1; optional uint64 max_items = 2; optional bool unique = 3; optional FieldRules items = 4; }
    message MapRules { optional uint64 min_pairs = 1; optional uint64 max_pairs = 2; optional FieldRules keys = 4; optional FieldRules values = 5; }
"#;

fn input(source: &str, name: &str) -> Json {
    Json::Object(message(source, name).input_schema())
}

fn with_rules(body: &str) -> Message {
    let source = format!(
        r#"syntax = "proto3"; package test; import "google/api/field_behavior.proto"; import "buf/validate/validate.proto"; {body}"#
    );
    let set = compiled(&[
        ("test.proto", source.as_str()),
        ("google/api/field_behavior.proto", FIELD_BEHAVIOR),
        ("buf/validate/validate.proto", VALIDATE),
    ]);
    let (pool, problems) = Pool::from_set(&set).unwrap();
    assert_eq!(problems, []);
    pool.message("test.M").unwrap()
}

#[test]
fn every_kind_has_its_schema() {
    let schema = input(
        r#"
        syntax = "proto3"; package test;
        import "google/protobuf/wrappers.proto"; import "google/protobuf/timestamp.proto"; import "google/protobuf/duration.proto";
        import "google/protobuf/struct.proto"; import "google/protobuf/any.proto"; import "google/protobuf/empty.proto"; import "google/protobuf/field_mask.proto";
        enum E { E_UNSPECIFIED = 0; E_ONE = 1; }
        message In { int32 x = 1; }
        message M {
          int32 a = 1; uint32 b = 2; int64 c = 3; fixed64 d = 4; double e = 5; bool f = 6; string g = 7; bytes h = 8; E i = 9; In j = 10;
          repeated string k = 11; map<int32, bool> l = 12; map<string, E> m = 13; map<bool, string> n = 14;
          google.protobuf.StringValue o = 15; google.protobuf.Int64Value p = 16; google.protobuf.Timestamp q = 17; google.protobuf.Duration r = 18;
          google.protobuf.Struct s = 19; google.protobuf.Value t = 20; google.protobuf.ListValue u = 21; google.protobuf.Any v = 22;
          google.protobuf.Empty w = 23; google.protobuf.FieldMask x = 24; repeated google.protobuf.BoolValue y = 25; google.protobuf.NullValue z = 26;
        }"#,
        "M",
    );
    let enumeration = json!({"type": "string", "enum": ["E_UNSPECIFIED", "E_ONE"]});
    let int32 = json!({"type": "integer", "minimum": -2147483648, "maximum": 2147483647});
    let expected = json!({
        "a": int32, "b": {"type": "integer", "minimum": 0, "maximum": 4294967295u32},
        "c": {"type": "string", "pattern": "^-?[0-9]{1,19}$"}, "d": {"type": "string", "pattern": "^[0-9]{1,20}$"},
        "e": {"type": "number"}, "f": {"type": "boolean"}, "g": {"type": "string"},
        "h": {"type": "string", "contentEncoding": "base64"}, "i": enumeration,
        "j": {"type": "object", "properties": {"x": int32}, "additionalProperties": false},
        "k": {"type": "array", "items": {"type": "string"}},
        "l": {"type": "object", "additionalProperties": {"type": "boolean"}, "propertyNames": {"pattern": "^(0|-?[1-9][0-9]*)$"}},
        "m": {"type": "object", "additionalProperties": enumeration},
        "n": {"type": "object", "additionalProperties": {"type": "string"}, "propertyNames": {"enum": ["true", "false"]}},
        "o": {"type": ["string", "null"]}, "p": {"type": ["string", "null"], "pattern": "^-?[0-9]{1,19}$"},
        "q": {"type": "string", "format": "date-time"},
        "r": {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]{1,9})?s$", "description": "Seconds, such as 3s or 1.500s."},
        "s": {"type": "object"}, "t": {"description": "Any JSON value."}, "u": {"type": "array"},
        "v": {
            "type": "object", "required": ["@type"],
            "properties": {"@type": {"type": "string", "description": "A URL that ends with the full name of the message type."}},
            "description": "A message of any type: its fields beside its @type, or its value as `value`.",
        },
        "w": {"type": "object", "properties": {}, "additionalProperties": false},
        "x": {"type": "string", "description": "Names of fields between commas, such as title,author.name."},
        "y": {"type": "array", "items": {"type": "boolean"}}, "z": {"type": "null"},
    });
    for (name, expected) in expected.as_object().unwrap() {
        assert_eq!(&schema["properties"][name], expected, "{name}");
    }
    assert_eq!(schema["properties"].as_object().unwrap().len(), 26);
    assert_eq!(
        (&schema["type"], &schema["additionalProperties"]),
        (&json!("object"), &json!(false))
    );
}

#[test]
fn comments_and_behaviors_are_told() {
    let message = with_rules(
        r#"
        // Of what kind.
        enum Kind {
          KIND_UNSPECIFIED = 0;
          // Bound
          // in leather.
          KIND_HARD = 1;
          KIND_SOFT = 2; // On paper.
        }
        // A book.
        message M {
          // Where it is.
          string name = 1 [(google.api.field_behavior) = REQUIRED, (google.api.field_behavior) = IMMUTABLE];
          // Since when.
          string made = 2 [(google.api.field_behavior) = OUTPUT_ONLY];
          string secret = 3 [(google.api.field_behavior) = INPUT_ONLY];
          // How it is bound.
          Kind kind = 4 [(google.api.field_behavior) = REQUIRED];
          int32 old = 5 [deprecated = true];
          // Who pays.
          oneof payer {
            string card = 6;
            // The bill.
            string bill = 7;
          }
        }"#,
    );
    let input = Json::Object(message.input_schema());
    let kinds = "Of what kind.\nKIND_HARD: Bound in leather.\nKIND_SOFT: On paper.";
    assert_eq!(
        input,
        json!({
            "type": "object",
            "description": "A book.",
            "properties": {
                "name": {"type": "string", "description": "Where it is.\nCan't be changed once it is set."},
                "secret": {"type": "string"},
                "kind": {"type": "string", "enum": ["KIND_HARD", "KIND_SOFT"], "description": format!("How it is bound.\n{kinds}")},
                "old": {"type": "integer", "minimum": i32::MIN, "maximum": i32::MAX, "deprecated": true},
                "card": {"type": "string", "description": "At most one of `card`, `bill` may be set. Who pays."},
                "bill": {"type": "string", "description": "The bill.\nAt most one of `card`, `bill` may be set. Who pays."},
            },
            "required": ["name", "kind"],
            "additionalProperties": false,
        })
    );
    let output = Json::Object(message.output_schema());
    let names: Vec<_> = output["properties"].as_object().unwrap().keys().collect();
    assert_eq!(names, ["bill", "card", "kind", "made", "name", "old"]);
    assert_eq!(
        (output.get("required"), output.get("additionalProperties")),
        (None, None)
    );
    assert_eq!(
        output["properties"]["kind"]["anyOf"],
        json!([
            {"type": "string", "enum": ["KIND_UNSPECIFIED", "KIND_HARD", "KIND_SOFT"]}, {"type": "integer"},
        ])
    );
}

#[test]
fn simple_rules_become_keywords_and_others_words() {
    let message = with_rules(
        r#"
        enum E { E_UNSPECIFIED = 0; E_ONE = 1; E_TWO = 2; }
        message M {
          string a = 1 [(buf.validate.field).string = {min_len: 2, max_len: 5, pattern: "^[a-z]+$"}, (buf.validate.field).required = true];
          string b = 2 [(buf.validate.field).string.email = true];
          string c = 3 [(buf.validate.field).string = {in: ["x", "y"], prefix: "p"}];
          string d = 4 [(buf.validate.field).string = {pattern: "(?i)x", len: 3}];
          int32 e = 5 [(buf.validate.field).int32 = {gt: 0, lte: 100}];
          int32 f = 6 [(buf.validate.field).int32 = {in: [1, 2], not_in: [7]}];
          int32 g = 7 [(buf.validate.field).int32 = {gt: 10, lt: 5}];
          int64 h = 8 [(buf.validate.field).int64 = {gte: 1, lte: 9, in: [1, -2]}];
          float i = 9 [(buf.validate.field).float = {gte: 0.1, lt: 2}];
          sint32 j = 10 [(buf.validate.field).sint32 = {gte: -3}];
          repeated string k = 11 [(buf.validate.field).repeated = {min_items: 1, max_items: 3, unique: true, items: {string: {min_len: 1}}}];
          map<string, int32> l = 12 [(buf.validate.field).map = {min_pairs: 1, max_pairs: 2, keys: {string: {max_len: 4}}, values: {int32: {gte: 5}}}];
          E m = 13 [(buf.validate.field).enum = {defined_only: true, not_in: [0]}];
          string n = 14 [(buf.validate.field).required = true, (buf.validate.field).ignore = IGNORE_IF_ZERO_VALUE];
          string o = 15 [(buf.validate.field).required = true, (buf.validate.field).ignore = IGNORE_ALWAYS, (buf.validate.field).string.min_len = 3];
          string p = 16 [(buf.validate.field).cel = {id: "x", message: "be nice", expression: "this.nice()"}, (buf.validate.field).cel_expression = "this != ''"];
          oneof q { option (buf.validate.oneof).required = true; string r = 17; string s = 18; }
        }"#,
    );
    let schema = Json::Object(message.input_schema());
    let (min, max) = (i32::MIN, i32::MAX);
    let expected = json!({
        "a": {"type": "string", "minLength": 2, "maxLength": 5, "pattern": "^[a-z]+$"},
        "b": {"type": "string", "format": "email"},
        "c": {"type": "string", "enum": ["x", "y"], "description": "Must begin with \"p\"."},
        "d": {"type": "string", "minLength": 3, "maxLength": 3, "description": "Must match the pattern \"(?i)x\"."},
        "e": {"type": "integer", "minimum": min, "exclusiveMinimum": 0, "maximum": 100},
        "f": {"type": "integer", "minimum": min, "maximum": max, "enum": [1, 2], "description": "Must not be \"7\"."},
        "g": {"type": "integer", "minimum": min, "maximum": max, "description": "Or: Must be less than \"5\".\nOr: Must be greater than \"10\"."},
        "h": {"type": "string", "pattern": "^-?[0-9]{1,19}$", "enum": ["1", "-2"], "description": "Must be at most \"9\".\nMust be at least \"1\"."},
        "i": {"type": "number", "minimum": 0.1, "exclusiveMaximum": 2},
        "j": {"type": "integer", "minimum": -3, "maximum": max},
        "k": {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1, "maxItems": 3, "uniqueItems": true},
        "l": {"type": "object", "minProperties": 1, "maxProperties": 2, "propertyNames": {"maxLength": 4}, "additionalProperties": {"type": "integer", "minimum": 5, "maximum": max}},
        "m": {"type": "string", "enum": ["E_ONE", "E_TWO"]},
        "n": {"type": "string"},
        "o": {"type": "string"},
        "p": {"type": "string", "description": "Must hold: be nice\nMust hold: this != ''"},
        "r": {"type": "string", "description": "Exactly one of `r`, `s` may be set."},
        "s": {"type": "string", "description": "Exactly one of `r`, `s` may be set."},
    });
    for (name, expected) in expected.as_object().unwrap() {
        assert_eq!(&schema["properties"][name], expected, "{name}");
    }
    assert_eq!(schema["required"], json!(["a"]));
}

#[test]
fn messages_that_are_used_again_have_a_definition() {
    let schema = input(
        r#"
        syntax = "proto3"; package test;
        message Once { int32 x = 1; } message Twice { int32 y = 1; }
        message Tree { repeated Tree children = 1; string name = 2; }
        message M { Once once = 1; Twice a = 2; map<string, Twice> b = 3; Tree tree = 4;
          // Me.
          M me = 5;
        }"#,
        "M",
    );
    let properties = &schema["properties"];
    assert_eq!(properties["once"]["type"], "object");
    assert_eq!(properties["a"], json!({"$ref": "#/$defs/test.Twice"}));
    assert_eq!(
        properties["b"]["additionalProperties"],
        json!({"$ref": "#/$defs/test.Twice"})
    );
    assert_eq!(properties["tree"], json!({"$ref": "#/$defs/test.Tree"}));
    assert_eq!(
        properties["me"],
        json!({"$ref": "#/$defs/test.M", "description": "Me."})
    );
    let defined = schema["$defs"].as_object().unwrap();
    assert_eq!(
        defined.keys().collect::<Vec<_>>(),
        ["test.M", "test.Tree", "test.Twice"]
    );
    assert_eq!(
        defined["test.Tree"]["properties"]["children"]["items"],
        json!({"$ref": "#/$defs/test.Tree"})
    );
    assert_eq!(defined["test.M"]["properties"], *properties);
}

#[test]
fn the_root_is_an_object_whatever_the_type() {
    let pool = crate::protobuf::tests::support::pool(
        r#"syntax = "proto3"; package test; message M { oneof o { string a = 1; string b = 2; } }"#,
    );
    for name in [
        "test.M",
        "google.protobuf.StringValue",
        "google.protobuf.Timestamp",
        "google.protobuf.Duration",
        "google.protobuf.FieldMask",
        "google.protobuf.ListValue",
        "google.protobuf.Struct",
        "google.protobuf.Value",
        "google.protobuf.Any",
        "google.protobuf.Empty",
        "google.protobuf.FileDescriptorSet",
        "google.rpc.Status",
    ] {
        let message = pool.message(name).unwrap();
        let schema = message.input_schema();
        assert_eq!(schema["type"], "object", "{name}");
        assert!(schema["properties"].is_object(), "{name}");
        assert!(
            ["oneOf", "anyOf", "allOf"]
                .iter()
                .all(|word| !schema.contains_key(*word)),
            "{name}"
        );
        drop(message.output_schema());
    }
    let value = pool.message("google.protobuf.StringValue").unwrap();
    assert_eq!(
        Json::Object(value.input_schema())["properties"],
        json!({"value": {"type": "string"}})
    );
    assert_eq!(
        Json::Object(value.output_schema()),
        json!({"type": "string"})
    );
}

#[test]
fn schemas_are_bounded() {
    let chain: Vec<_> = (0..3000)
        .map(|n| format!("message M{n} {{ M{} next = 1; }}", n + 1))
        .collect();
    let source = format!(
        "syntax = \"proto3\"; package test; {} message M3000 {{}}",
        chain.concat()
    );
    let schema = input(&source, "M0");
    assert!(schema["$defs"].as_object().unwrap().len() > 100);
    let fields: Vec<_> = (1..10_000).map(|n| format!("int32 f{n} = {n};")).collect();
    let source = format!(
        "syntax = \"proto3\"; package test; message M {{ {} }} message N {{ M m = 1; }}",
        fields.concat()
    );
    let schema = input(&source, "N");
    assert_eq!(
        schema["properties"]["m"]["description"],
        "The message test.M, which is too large to be described."
    );
    assert_eq!(schema["properties"]["m"].get("additionalProperties"), None);
}
