//! What holds of the definitions of any tool, whatever its schema is.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;

const FORMATS: [Format; Format::COUNT] = [
    Format::OpenAiChat,
    Format::OpenAiResponses,
    Format::Anthropic,
    Format::Gemini,
    Format::Mcp,
];

fn of(format: Format, schema: &Value) -> Map<String, Value> {
    let definition = Definition {
        description: "d".repeat(1000),
        input_schema: schema.as_object().cloned().map(Arc::new),
        output_schema: schema.as_object().cloned().map(Arc::new),
        ..Definition::default()
    };
    let subject = Subject {
        name: "tool",
        alias: "tool",
        definition: &definition,
        idempotent: false,
    };
    super::definition(format, subject)
}

/// The schema of a definition.
fn parameters(definition: &Map<String, Value>) -> &Value {
    let function = definition.get("function").and_then(Value::as_object);
    let function = function.unwrap_or(definition);
    let keys = [
        "parameters",
        "parametersJsonSchema",
        "input_schema",
        "inputSchema",
    ];
    keys.iter()
        .find_map(|key| function.get(*key))
        .expect("a schema")
}

/// Every object of a value.
fn objects<'a>(value: &'a Value, found: &mut Vec<&'a Map<String, Value>>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| objects(item, found)),
        Value::Object(members) => {
            found.push(members);
            members.values().for_each(|value| objects(value, found));
        }
        _ => {}
    }
}

fn check(schema: &Value) {
    for format in FORMATS {
        let definition = of(format, schema);
        let parameters = parameters(&definition);
        assert_eq!(parameters["type"], "object", "{format:?}");
        assert!(parameters["properties"].is_object(), "{format:?}");
        for key in [
            "oneOf", "anyOf", "allOf", "not", "if", "enum", "const", "$ref", "$schema",
        ] {
            assert!(parameters.get(key).is_none(), "{format:?} has {key}");
        }
        assert!(
            words::depth_of_members(&definition) <= MAX_DEPTH,
            "{format:?}"
        );
        let mut all = Vec::new();
        objects(parameters, &mut all);
        for reference in all.iter().filter_map(|it| it.get("$ref")?.as_str()) {
            let pointer = reference.strip_prefix('#').expect("a reference within");
            let target = parameters.pointer(pointer);
            assert!(
                target.is_some() && format != Format::Gemini,
                "{format:?}: {reference}"
            );
        }
        let description = definition.get("description");
        let description = description.or_else(|| definition.get("function")?.get("description"));
        if matches!(format, Format::OpenAiChat | Format::OpenAiResponses) {
            let length = description.map(|it| words::length(it.as_str().unwrap()));
            assert!(length.is_some_and(|it| it <= OPENAI_DESCRIPTION));
        }
        if format == Format::Gemini {
            check_gemini(parameters);
        }
    }
}

/// Nothing but what Gemini takes, from here down.
fn check_gemini(schema: &Value) {
    let members = schema.as_object().expect("a schema");
    for (key, value) in members {
        assert!(Dialect::Gemini.takes(key, value), "{key}: {value}");
        match (key.as_str(), value) {
            ("properties", value) => {
                for (name, schema) in value.as_object().expect("schemas by name") {
                    assert!(Dialect::Gemini.takes_property(name, false), "{name}");
                    check_gemini(schema);
                }
            }
            ("items", value) | ("additionalProperties", value @ Value::Object(_)) => {
                check_gemini(value);
            }
            ("anyOf" | "oneOf" | "prefixItems", Value::Array(schemas)) => {
                schemas.iter().for_each(check_gemini);
            }
            ("required", Value::Array(names)) => {
                let known =
                    |name: &Value| schema["properties"].get(name.as_str().unwrap()).is_some();
                assert!(names.iter().all(known), "{names:?}");
            }
            _ => {}
        }
    }
}

/// Schemas, more or less: with references to what is there and what is not.
fn schemas() -> impl Strategy<Value = Value> {
    let name = || {
        prop_oneof![
            "[ab]",
            "[a-c]{1,2}",
            Just("x.y".to_owned()),
            Just("ü [".to_owned())
        ]
    };
    let plain = prop_oneof![
        Just(json!(true)),
        Just(json!(false)),
        Just(json!({})),
        Just(json!({"type": "array"})),
        Just(json!({"type": ["string", "null"], "format": "uri", "pattern": "^a"})),
        Just(json!({"enum": [1, "a", null]})),
        Just(json!({"const": {"deep": [1]}, "default": 1})),
        Just(json!("no schema")),
        prop::sample::select(vec![
            "#",
            "#/$defs/a",
            "#/$defs/b",
            "#/$defs/none",
            "#/properties/a",
            "#/anyOf/0",
            "#anchor",
            "https://example.com/x",
            "#/definitions/a/properties/b",
            "#/properties",
        ])
        .prop_map(|reference| json!({"$ref": reference, "description": "r"})),
    ];
    plain.prop_recursive(6, 60, 4, move |inner| {
        let by_name = || prop::collection::btree_map(name(), inner.clone(), 0..3);
        let list = || prop::collection::vec(inner.clone(), 0..3);
        prop_oneof![
            (by_name(), prop::collection::vec(name(), 0..3), inner.clone()).prop_map(
                |(properties, required, additional)| json!({
                    "type": "object", "properties": properties, "required": required,
                    "additionalProperties": additional,
                })
            ),
            (by_name(), by_name(), list(), list(), list()).prop_map(
                |(properties, defs, any, all, one)| json!({
                    "properties": properties, "$defs": defs, "anyOf": any, "allOf": all,
                    "oneOf": one, "definitions": defs,
                })
            ),
            (list(), inner.clone()).prop_map(|(items, not)| json!({
                "type": "array", "items": items, "not": not, "contains": not, "$anchor": "anchor",
            })),
            (by_name(), inner.clone()).prop_map(|(defs, a)| json!({
                "$ref": "#/$defs/a", "$defs": defs, "if": a, "then": a, "dependentSchemas": {"a": a},
            })),
        ]
    })
}

proptest! {
    #[test]
    fn every_definition_is_one_that_providers_take(schema in schemas()) {
        check(&schema);
    }
}

/// References that double with each step, and alternatives of alternatives.
#[test]
fn what_would_grow_without_end_is_bounded() {
    let mut defs = Map::new();
    for level in 0..40 {
        let next = json!({"$ref": format!("#/$defs/d{}", level + 1)});
        let both = json!({
            "type": "object", "properties": {"a": next, "b": next, "text": {"enum": ["x".repeat(1000)]}},
            "anyOf": vec![next.clone(); 20], "allOf": [next.clone(), next],
        });
        defs.insert(format!("d{level}"), both);
    }
    defs.insert("d40".to_owned(), json!({"type": "string"}));
    let schema = json!({
        "type": "object", "properties": {"a": {"$ref": "#/$defs/d0"}}, "$defs": defs,
        "oneOf": [{"$ref": "#/$defs/d0"}, {"$ref": "#/$defs/d1"}],
    });
    check(&schema);
    for format in FORMATS {
        let bytes = Value::Object(of(format, &schema)).to_string().len();
        assert!(bytes < 1 << 20, "{format:?}: {bytes}");
    }
}

#[test]
fn what_refers_to_itself_hundreds_of_times_stays_small() {
    // Put in place, its references would be 300 to the power of 6.
    let other = |n: usize| {
        if n.is_multiple_of(2) {
            "#/$defs/X"
        } else {
            "#/$defs/Y"
        }
    };
    let properties = || -> Map<String, Value> {
        (0..300)
            .map(|n| (format!("f{n}"), json!({"$ref": other(n)})))
            .collect()
    };
    let object = || json!({"type": "object", "properties": properties()});
    let mut schema = object();
    schema["$defs"] = json!({"X": object(), "Y": object()});
    for format in FORMATS {
        let size = Value::from(of(format, &schema)).to_string().len();
        assert!(size < 1 << 20, "{format:?}: {size} bytes");
    }
    check(&schema);
}
