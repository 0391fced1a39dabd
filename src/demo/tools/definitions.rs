//! What the demo tools say of themselves.

use serde_json::{Map, Value, json};

use super::{MAX_FLAKY_KEY_BYTES, MAX_PAYLOAD_BYTES};
use crate::{core::status::Code, demo::TOOLS, json, pb};

/// All of them.
pub(super) fn tools() -> Vec<pb::Tool> {
    let tool = |(name, description, idempotent): (&str, &str, bool)| pb::Tool {
        name: name.to_owned(),
        title: title(name),
        description: description.to_owned(),
        idempotent,
        input_schema: Some(json::encode_struct(&input(name))),
        output_schema: output(name).as_ref().map(json::encode_struct),
        // The others change what the next call meets, or end it.
        read_only: !matches!(name, "flaky" | "panic" | "crash"),
        destructive: name == "crash",
        ..pb::Tool::default()
    };
    TOOLS.into_iter().map(tool).collect()
}

fn title(name: &str) -> String {
    let (first, rest) = name.split_at(1);
    first.to_ascii_uppercase() + rest
}

/// The JSON Schema of the arguments.
fn input(name: &str) -> Map<String, Value> {
    let (properties, required) = match name {
        "sleep" => (
            json!({"seconds": {"type": "number", "minimum": 0, "description": "How long to wait"}}),
            json!(["seconds"]),
        ),
        "fail" => (
            json!({
                "code": {
                    "anyOf": [
                        {"type": "string", "enum": codes()},
                        {"type": "integer", "minimum": 1, "maximum": 16},
                    ],
                    "description": "The gRPC status, by its name or number",
                },
                "message": {"type": "string", "description": "Default: as requested"},
            }),
            json!(["code"]),
        ),
        "flaky" => (
            json!({
                "key": {
                    "type": "string",
                    "maxLength": MAX_FLAKY_KEY_BYTES,
                    "description": "Each has failures of its own",
                },
                "failures": {"type": "integer", "minimum": 0},
            }),
            json!(["key", "failures"]),
        ),
        "payload" => (
            json!({"bytes": {"type": "integer", "minimum": 0, "maximum": MAX_PAYLOAD_BYTES}}),
            json!(["bytes"]),
        ),
        _ => (json!({}), json!([])),
    };
    object(json!({"type": "object", "properties": properties, "required": required}))
}

/// The JSON Schema of the observation, of tools that answer.
fn output(name: &str) -> Option<Map<String, Value>> {
    let schema = match name {
        "echo" => json!({"type": "object"}),
        "sleep" => json!({
            "type": "object",
            "properties": {"slept_seconds": {"type": "number"}},
            "required": ["slept_seconds"],
        }),
        "flaky" => json!({
            "type": "object",
            "properties": {"key": {"type": "string"}, "attempts": {"type": "integer"}},
            "required": ["key", "attempts"],
        }),
        _ => return None,
    };
    Some(object(schema))
}

fn codes() -> Vec<&'static str> {
    let failures = Code::ALL.into_iter().filter(|&code| code != Code::Ok);
    failures.map(Code::name).collect()
}

fn object(schema: Value) -> Map<String, Value> {
    match schema {
        Value::Object(fields) => fields,
        other => unreachable!("{other} is no object"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tool_describes_its_arguments() {
        let tools = tools();
        assert_eq!(tools.len(), TOOLS.len());
        for tool in tools {
            assert!(!tool.title.is_empty() && !tool.description.is_empty());
            let schema = json::decode_struct(&tool.input_schema.unwrap()).unwrap();
            assert_eq!(schema["type"], "object", "{}", tool.name);
            let properties = schema["properties"].as_object().unwrap();
            for required in schema["required"].as_array().unwrap() {
                assert!(properties.contains_key(required.as_str().unwrap()));
            }
        }
    }
}
