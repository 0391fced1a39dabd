//! What is told of arguments that do not fit.

/// The project's own cases of 2020-12.
mod draft;
/// Schemas made to harm whoever uses them.
mod hostile;

use serde_json::json;

use super::*;

fn compiled(schema: Value) -> Result<ArgumentsSchema, Unusable> {
    let Value::Object(schema) = schema else {
        panic!("no object");
    };
    ArgumentsSchema::compile("tool", Arc::new(schema))
}

fn told(schema: &ArgumentsSchema, arguments: &str) -> Vec<String> {
    let node = Node::from_json(arguments.as_bytes()).unwrap();
    match schema.check(&node) {
        Ok(()) => Vec::new(),
        Err(violations) => violations
            .into_iter()
            .map(|it| format!("{} {}", it.field, it.description))
            .collect(),
    }
}

#[test]
fn all_that_is_wrong_is_told_with_its_path_and_words_to_act_on() {
    let schema = compiled(json!({
        "type": "object",
        "properties": {
            "city": {"type": "string", "minLength": 2, "maxLength": 5, "pattern": "^[A-Z]"},
            "days": {"type": "integer", "minimum": 1, "maximum": 14},
            "unit": {"enum": ["celsius", "fahrenheit"]},
            "maybe": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
            "mode": {"anyOf": [{"const": "fast"}, {"const": "slow"}, {"type": "boolean"}]},
            "shape": {"oneOf": [{"$ref": "#/$defs/circle"}, {"$ref": "#/$defs/square"}]},
            "items": {"type": "array", "maxItems": 3, "uniqueItems": true,
                      "items": {"type": "object", "required": ["price"],
                                "properties": {"price": {"exclusiveMinimum": 0}}}},
            "rate": {"multipleOf": 0.5, "exclusiveMaximum": 4},
            "never": false,
            "other": {"not": {"type": "string"}},
            "names": {"propertyNames": {"maxLength": 3}, "maxProperties": 1},
        },
        "required": ["city", "days"],
        "additionalProperties": false,
        "$defs": {
            "circle": {"type": "object", "required": ["radius"], "additionalProperties": false,
                       "properties": {"kind": {"const": "circle"}, "radius": {"type": "number"}}},
            "square": {"type": "object", "required": ["side"], "additionalProperties": false,
                       "properties": {"kind": {"const": "square"}, "side": {"type": "number"}}},
        },
    }))
    .unwrap();
    let fine = r#"{"city": "Bonn", "days": 3, "maybe": null, "mode": true, "rate": 3.5,
                   "shape": {"kind": "square", "side": 2}, "items": [{"price": 1}], "other": 5}"#;
    assert_eq!(told(&schema, fine), [""; 0]);
    for (arguments, expected) in [
        (
            "{}",
            &["arguments.city is required", "arguments.days is required"][..],
        ),
        (
            r#"{"city": 5, "days": "3"}"#,
            &[
                "arguments.city must be a string, is 5",
                "arguments.days must be an integer, is \"3\"",
            ],
        ),
        (
            r#"{"city": "Bonn", "days": 1.5, "ctiy": 1, "wind": 2}"#,
            &[
                "arguments.ctiy is not known, did you mean \"city\"?",
                "arguments.wind is not known, there are city, days, items, maybe, mode, names, \
                 never, other, rate, shape, unit",
                "arguments.days must be an integer, is 1.5",
            ],
        ),
        (
            r#"{"city": "B", "days": 15}"#,
            &[
                "arguments.city must be at least 2 characters long, is 1",
                "arguments.days must be at most 14, is 15",
            ],
        ),
        (
            r#"{"city": "bonn am Rhein", "days": 0}"#,
            &[
                "arguments.city must be at most 5 characters long, is 13",
                "arguments.city must match \"^[A-Z]\", is \"bonn am Rhein\"",
                "arguments.days must be at least 1, is 0",
            ],
        ),
        (
            r#"{"city": "Bonn", "days": 1, "unit": "celcius", "maybe": "x", "mode": "quick"}"#,
            &[
                "arguments.maybe must be null or an integer, is \"x\"",
                "arguments.mode must be one of \"fast\", \"slow\", is \"quick\", or a boolean",
                "arguments.unit must be one of \"celsius\", \"fahrenheit\", is \"celcius\": did you \
                 mean \"celsius\"?",
            ],
        ),
        (
            r#"{"city": "Bonn", "days": 1, "shape": {"kind": "square", "sied": 1}}"#,
            &[
                "arguments.shape fits none of its 2 forms; in the nearest one:",
                "arguments.shape.sied is not known, did you mean \"side\"?",
                "arguments.shape.side is required",
            ],
        ),
        (
            r#"{"city": "Bonn", "days": 1, "items": [{"price": 1}, {}, {"price": 0}, {"price": 1}]}"#,
            &[
                "arguments.items must have at most 3 elements, has 4",
                "arguments.items must not have an element twice",
                "arguments.items[1].price is required",
                "arguments.items[2].price must be over 0, is 0",
            ],
        ),
        (
            r#"{"city": "Bonn", "days": 1, "rate": 4.25, "never": 1, "other": "x",
                "names": {"long": 1, "b": 2}}"#,
            &[
                "arguments.names.long has a name that may not be",
                "arguments.names must have at most 1 members, has 2",
                "arguments.never must not be there",
                "arguments.other is what it must not be (`not` in the tool's schema)",
                "arguments.rate must be under 4, is 4.25",
                "arguments.rate must be a multiple of 0.5, is 4.25",
            ],
        ),
    ] {
        let mut told = told(&schema, arguments);
        let mut expected = expected.to_vec();
        told.sort_unstable();
        expected.sort_unstable();
        assert_eq!(told.len(), expected.len(), "{told:#?}");
        for (told, expected) in told.iter().zip(expected) {
            assert!(told.starts_with(expected), "{told}\n{expected}");
        }
    }
}

#[test]
fn at_most_sixteen_things_are_told_and_of_large_arguments_only_that_they_do_not_fit() {
    let schema = compiled(json!({"properties": {"list": {"items": {"type": "string"}}}})).unwrap();
    let list = |elements: usize| format!("{{\"list\":[{}]}}", vec!["1"; elements].join(","));
    let some = told(&schema, &list(100));
    assert_eq!(some.len(), 16);
    assert_eq!(some[15], "arguments.list[15] must be a string, is 1");
    let many = told(&schema, &list(MAX_VALUES_TOLD));
    assert_eq!(many.len(), 1);
    assert!(many[0].contains("too large"), "{many:?}");
}

#[test]
fn numbers_are_what_they_say_however_they_are_written() {
    let schema = compiled(json!({"properties": {"n": {"type": "integer", "minimum": 10}}}));
    let schema = schema.unwrap();
    for fine in [
        "10",
        "10.0",
        "1e1",
        "9007199254740993",
        "123456789012345678901234567890",
    ] {
        assert_eq!(
            told(&schema, &format!("{{\"n\":{fine}}}")),
            [""; 0],
            "{fine}"
        );
    }
    for wrong in ["9", "10.5", "-1e30"] {
        assert_eq!(
            told(&schema, &format!("{{\"n\":{wrong}}}")).len(),
            1,
            "{wrong}"
        );
    }
    // Out of a Struct as well.
    let encoded = crate::json::encode_struct(json!({"n": 9.5}).as_object().unwrap());
    let violations = schema
        .check(&Node::from_struct(&encoded).unwrap())
        .unwrap_err();
    assert_eq!(violations.len(), 2);
}
