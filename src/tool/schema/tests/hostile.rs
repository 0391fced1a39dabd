//! Schemas made to harm whoever uses them.

use std::time::Duration;

use tokio::time::Instant;

use super::*;

/// More than any of these takes, and less than what they are made for.
const PATIENCE: Duration = Duration::from_secs(20);

fn within<T>(what: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let done = what();
    assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
    done
}

fn refused(schema: Value) -> String {
    let refused = within(|| compiled(schema).unwrap_err());
    refused.to_string()
}

/// Each definition refers to the next one twice.
fn laughs(count: usize, keyword: &str) -> Value {
    let mut defs = Map::new();
    for index in 0..count {
        let next = json!({"$ref": format!("#/$defs/d{}", index + 1)});
        defs.insert(format!("d{index}"), json!({keyword: [next, next]}));
    }
    defs.insert(format!("d{count}"), json!({"type": "string"}));
    json!({"properties": {"a": {"$ref": "#/$defs/d0"}}, "$defs": defs})
}

#[test]
fn patterns_take_linear_time_or_are_left_out() {
    let text = format!("{{\"a\":\"{}!\"}}", "a".repeat(30_000));
    for evil in ["^(a+)+$", "^(a|aa)+$", "^(.*a){20}$", "(x+x+)+y"] {
        let schema = compiled(json!({"properties": {"a": {"pattern": evil}}})).unwrap();
        assert_eq!(within(|| told(&schema, &text)).len(), 1, "{evil}");
    }
    let schema = json!({"patternProperties": {"^(a+)+$": {"type": "string"}},
                        "additionalProperties": false});
    let schema = compiled(schema).unwrap();
    let text = format!("{{\"{}!\":1}}", "a".repeat(30_000));
    assert_eq!(within(|| told(&schema, &text)).len(), 1);
    // What would become too large, and what needs to go back.
    for left_out in ["(a{1000}){1000}", "^(?=x)y", "(?<!a)b", r"(a)\1"] {
        let schema = json!({"properties": {"a": {"type": "string", "pattern": left_out}}});
        let schema = within(|| compiled(schema).unwrap());
        assert_eq!(told(&schema, r#"{"a": "anything"}"#), [""; 0], "{left_out}");
        assert_eq!(told(&schema, r#"{"a": 1}"#).len(), 1, "{left_out}");
    }
}

#[test]
fn without_a_pattern_more_is_accepted_never_less() {
    const AHEAD: &str = "^(?=x)";
    for schema in [
        json!({"properties": {"a": {"not": {"pattern": AHEAD}}}}),
        json!({"properties": {"a": {"oneOf": [{"pattern": AHEAD}, {"type": "string"}]}}}),
        json!({"properties": {"a": {"if": {"pattern": AHEAD}, "then": false}}}),
        json!({"patternProperties": {AHEAD: true}, "additionalProperties": false}),
        json!({"patternProperties": {AHEAD: true}, "unevaluatedProperties": false}),
        json!({"allOf": [{"patternProperties": {AHEAD: true}}], "unevaluatedProperties": false}),
        json!({"properties": {"a": {"not": {"$ref": "#/$defs/ahead"}}},
               "$defs": {"ahead": {"pattern": AHEAD}}}),
    ] {
        let compiled = compiled(schema.clone()).unwrap();
        assert_eq!(told(&compiled, r#"{"a": "text"}"#), [""; 0], "{schema}");
    }
}

#[test]
fn references_lead_nowhere_else_and_not_in_circles() {
    for outside in [
        "http://127.0.0.1:1/schema.json",
        "file:///etc/passwd",
        "other.json",
        "#/nowhere",
        "#/properties",
        "#nobody",
        "https://json-schema.org/draft/2020-12/schema",
    ] {
        let why = refused(json!({"properties": {"a": {"$ref": outside}}}));
        assert!(why.contains("where it has no schema"), "{why}");
    }
    for circle in [
        json!({"$ref": "#"}),
        json!({"allOf": [{"$ref": "#"}]}),
        json!({"$ref": "#/$defs/a",
               "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"anyOf": [{"$ref": "#/$defs/a"}]}}}),
        json!({"properties": {"a": {"$anchor": "x", "not": {"$ref": "#x"}}}}),
    ] {
        assert!(refused(circle.clone()).contains("circle"), "{circle}");
    }
    let why = refused(json!({"$dynamicRef": "#x", "$dynamicAnchor": "x"}));
    assert!(why.contains("$dynamicRef"), "{why}");
    let many: Vec<_> = (0..10_000).map(|_| json!({"$ref": "#/$defs/a"})).collect();
    let why = refused(json!({"properties": {"l": {"prefixItems": many}}, "$defs": {"a": true}}));
    assert!(why.contains("1000 references"), "{why}");
    let chain = laughs(100, "allOf");
    assert!(refused(chain).contains("subschemas that lead to each other"));
}

#[test]
fn what_multiplies_is_compiled_once_and_its_checks_end() {
    for keyword in ["allOf", "anyOf", "oneOf"] {
        let schema = within(|| compiled(laughs(10, keyword)).unwrap());
        let told = within(|| told(&schema, r#"{"a": 1}"#));
        assert!((1..=16).contains(&told.len()), "{keyword}: {told:?}");
    }
    // Eleven times sixteen.
    let mut defs = Map::new();
    for index in 0..11 {
        let next = vec![json!({"$ref": format!("#/$defs/d{}", index + 1)}); 16];
        defs.insert(format!("d{index}"), json!({"oneOf": next}));
    }
    defs.insert("d11".to_owned(), json!({"type": "string"}));
    let schema = json!({"properties": {"a": {"$ref": "#/$defs/d0"}}, "$defs": defs});
    let schema = within(|| compiled(schema).unwrap());
    let told_of_wide = within(|| told(&schema, r#"{"a": 1}"#));
    assert_eq!(told_of_wide.len(), 1);
    let is_bounded = |told: &String| told.contains("too long") || told.contains("too large");
    assert!(told_of_wide.iter().all(is_bounded), "{told_of_wide:?}");
    // Through each level of arguments once more.
    let tree = json!({
        "properties": {"a": {"$ref": "#/$defs/t"}},
        "$defs": {"t": {"anyOf": [
            {"properties": {"c": {"$ref": "#/$defs/t"}}, "required": ["x"]},
            {"properties": {"c": {"$ref": "#/$defs/t"}}, "required": ["y"]},
            {"properties": {"c": {"$ref": "#/$defs/t"}}, "type": "object", "required": ["z"]},
        ]}},
    });
    let schema = compiled(tree).unwrap();
    let deep = format!("{{\"a\":{}{{}}{}}}", "{\"c\":".repeat(40), "}".repeat(40));
    let told_of_deep = within(|| told(&schema, &deep));
    assert_eq!(told_of_deep.len(), 1);
    // That they do not fit is found out, but not where.
    assert!(
        told_of_deep[0].contains("too large to say"),
        "{told_of_deep:?}"
    );
    // Each of many branches goes over all of a list.
    let branches = vec![json!({"$ref": "#/$defs/l"}); 990];
    let wide = json!({
        "properties": {"l": {"anyOf": branches}},
        "$defs": {"l": {"items": {"type": "string"}, "minItems": 5000}},
    });
    let wide = compiled(wide).unwrap();
    let list = format!("{{\"l\":[{}]}}", vec!["\"\""; 2000].join(","));
    let told_of_list = within(|| told(&wide, &list));
    assert_eq!(told_of_list.len(), 1);
    assert!(
        told_of_list[0].contains("too long to check"),
        "{told_of_list:?}"
    );
    // The next one has its own steps.
    assert_eq!(told(&schema, r#"{"a": {"x": 1}}"#), [""; 0]);
}

#[test]
fn the_deepest_schema_checks_the_deepest_arguments_on_a_small_stack() {
    let mut defs = Map::new();
    for index in 0..10 {
        let next = json!({"$ref": format!("#/$defs/d{}", index + 1)});
        defs.insert(format!("d{index}"), json!({"allOf": [next]}));
    }
    let child = json!({"$ref": "#/$defs/d0"});
    defs.insert(
        "d10".to_owned(),
        json!({"additionalProperties": child, "items": child}),
    );
    let schema = json!({"additionalProperties": child, "$defs": defs});
    let run = move || {
        let schema = compiled(schema).unwrap();
        let deep = format!("{{\"a\":{}1{}}}", "[{\"b\":".repeat(22), "}]".repeat(22));
        assert_eq!(told(&schema, &deep), [""; 0]);
        let inner = json!({"type": "string"});
        let nested = (0..60).fold(inner, |inner, _| json!({"properties": {"c": inner}}));
        let schema = compiled(nested).unwrap();
        let deep = format!("{}1{}", "{\"c\":".repeat(44), "}".repeat(44));
        assert_eq!(told(&schema, &deep), [""; 0]);
    };
    let small = std::thread::Builder::new().stack_size(2 << 20);
    small.spawn(run).unwrap().join().unwrap();
}

#[test]
fn size_and_depth_are_bounded() {
    let large = json!({"description": "x".repeat(1 << 20)});
    assert!(refused(large).contains("256 KiB"));
    let deep = (0..70).fold(json!({}), |inner, _| json!({"properties": {"a": inner}}));
    assert!(refused(deep).contains("64 levels"));
    let pattern = |index| json!({"pattern": format!("a{index}")});
    let patterns: Vec<_> = (0..1000).map(pattern).collect();
    let why = refused(json!({"properties": {"a": {"anyOf": patterns}}}));
    assert!(why.contains("128 patterns"), "{why}");
    let text = |index| (format!("p{index}"), json!({"type": "string"}));
    let wide: Map<_, _> = (0..5000).map(text).collect();
    let schema = within(|| compiled(json!({"properties": wide})).unwrap());
    assert_eq!(told(&schema, r#"{"p4999": 1}"#).len(), 1);
}

#[test]
fn what_is_no_schema_of_objects_is_refused() {
    for (schema, why) in [
        (json!({"type": "string"}), "not that of an object"),
        (json!({"type": 5}), "not that of an object"),
        (json!({"type": ["string", "null"]}), "not that of an object"),
        (json!({"properties": []}), "no valid JSON Schema"),
        (
            json!({"properties": {"a": {"type": "strin"}}}),
            "no valid JSON Schema",
        ),
        (
            json!({"properties": {"a": {"minimum": "x"}}}),
            "no valid JSON Schema",
        ),
        (
            json!({"$schema": "http://127.0.0.1:1/meta", "type": "object"}),
            "no valid JSON Schema",
        ),
        (json!({"$!": true}), "has a keyword"),
    ] {
        let told = refused(schema.clone());
        assert!(told.contains(why), "{schema}: {told}");
    }
}
