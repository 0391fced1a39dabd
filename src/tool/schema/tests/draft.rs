//! What the keywords of 2020-12 mean.

use super::*;

/// Cases of the JSON Schema Test Suite (draft2020-12, as in jsonschema 4.26.0 of PyPI), one a
/// line: keyword, description, schema, and instances with whether they fit. Without those that
/// need an `$id`, `$dynamicRef` or another document. Copyright (c) 2012 Julian Berman, MIT
/// License. References are those of a schema that is that of a property `v`.
const CASES: &str = include_str!("draft2020_12.jsonl");

#[test]
fn schemas_mean_what_the_test_suite_of_json_schema_says() {
    let mut count = 0;
    for line in CASES.lines() {
        let (keyword, about, schema, instances): (String, String, Value, Vec<(Value, bool)>) =
            serde_json::from_str(line).unwrap();
        let schema = compiled(json!({"properties": {"v": schema}}))
            .unwrap_or_else(|why| panic!("{keyword}, {about}: {why}"));
        for (instance, fits) in instances {
            let told = told(&schema, &json!({"v": instance}).to_string());
            assert_eq!(
                told.is_empty(),
                fits,
                "{keyword}, {about}: {instance} {told:?}"
            );
            count += 1;
        }
    }
    assert_eq!(count, 961);
}
