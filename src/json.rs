//! Converts payloads, `google.protobuf.Value` and `Struct`, from and to JSON.
//!
//! Payloads pass through Fanfare as opaque bytes; this is for those who write or read
//! them. It follows protobuf's JSON mapping, so the demo prints what grpcurl prints.
//! [`tree`] is for those that are looked into on their way.

pub(crate) mod path;
pub mod tree;
pub(crate) mod wire;

use bytes::Bytes;
use prost::{DecodeError, Message as _};
use prost_types::{ListValue, Struct, Value, value::Kind};
use serde_json::{Map, Number, Value as Json};

/// A value as JSON. Integers up to 2^53 have no fraction. What JSON can't express becomes
/// the nearest thing: a number that is not finite a string such as `"NaN"`, a value
/// without a kind null.
pub fn value_to_json(value: &Value) -> Json {
    match &value.kind {
        None | Some(Kind::NullValue(_)) => Json::Null,
        Some(Kind::NumberValue(number)) => number_to_json(*number),
        Some(Kind::StringValue(text)) => Json::String(text.clone()),
        Some(Kind::BoolValue(flag)) => Json::Bool(*flag),
        Some(Kind::StructValue(fields)) => Json::Object(struct_to_json(fields)),
        Some(Kind::ListValue(list)) => list.values.iter().map(value_to_json).collect(),
    }
}

/// A struct as a JSON object.
pub fn struct_to_json(fields: &Struct) -> Map<String, Json> {
    fields
        .fields
        .iter()
        .map(|(name, value)| (name.clone(), value_to_json(value)))
        .collect()
}

/// JSON as a value. Every number becomes a double, as a `Value` has no other.
pub fn value_from_json(json: &Json) -> Value {
    let kind = match json {
        Json::Null => Kind::NullValue(0),
        Json::Bool(flag) => Kind::BoolValue(*flag),
        Json::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or(f64::NAN)),
        Json::String(text) => Kind::StringValue(text.clone()),
        Json::Array(items) => Kind::ListValue(ListValue {
            values: items.iter().map(value_from_json).collect(),
        }),
        Json::Object(fields) => Kind::StructValue(struct_from_json(fields)),
    };
    Value { kind: Some(kind) }
}

/// A JSON object as a struct.
pub fn struct_from_json(fields: &Map<String, Json>) -> Struct {
    let fields = fields.iter();
    Struct {
        fields: fields
            .map(|(name, json)| (name.clone(), value_from_json(json)))
            .collect(),
    }
}

/// Decodes an observation, as `ToolExecutionResult.observation` holds it.
///
/// # Errors
/// If it is not an encoded `Value`, or is nested too deeply.
pub fn decode_value(encoded: &[u8]) -> Result<Json, DecodeError> {
    Value::decode(encoded).map(|value| value_to_json(&value))
}

/// Decodes arguments, as `ToolCall.arguments` holds them.
///
/// # Errors
/// If they are not an encoded `Struct`, or are nested too deeply.
pub fn decode_struct(encoded: &[u8]) -> Result<Map<String, Json>, DecodeError> {
    Struct::decode(encoded).map(|fields| struct_to_json(&fields))
}

/// Encodes an observation, for `CallToolResponse.observation`.
pub fn encode_value(json: &Json) -> Bytes {
    value_from_json(json).encode_to_vec().into()
}

/// Encodes arguments, for `ToolCall.arguments`.
pub fn encode_struct(fields: &Map<String, Json>) -> Bytes {
    struct_from_json(fields).encode_to_vec().into()
}

fn number_to_json(number: f64) -> Json {
    /// 2^53: up to here a double holds every integer exactly.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if number.fract() == 0.0 && number.abs() <= EXACT {
        return Json::from(number as i64);
    }
    Number::from_f64(number).map_or_else(
        || Json::String(tree::name_of(number).to_owned()),
        Json::Number,
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn json_survives_a_round_trip() {
        let json = json!({
            "null": null, "flag": true, "text": "grüß\n", "whole": 3, "half": -0.5, "big": 1e300,
            "list": [1, [], {}, "x"], "nested": {"": {"deeper": [null]}},
        });
        assert_eq!(decode_value(&encode_value(&json)).unwrap(), json);
        let fields = json.as_object().unwrap();
        assert_eq!(&decode_struct(&encode_struct(fields)).unwrap(), fields);
    }

    #[test]
    fn values_that_json_cannot_express_become_the_nearest() {
        let shown = |number: f64| value_to_json(&Value::from(number));
        assert_eq!(shown(f64::NAN), json!("NaN"));
        assert_eq!(shown(f64::NEG_INFINITY), json!("-Infinity"));
        assert_eq!(value_to_json(&Value { kind: None }), Json::Null);
        assert!(decode_value(b"\xff").is_err());
    }
}
