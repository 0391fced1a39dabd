//! The arguments and the result of a call as attributes of its span, cut to size. Only if
//! the settings ask for it: they may be confidential.

use bytes::Bytes;
use opentelemetry::KeyValue;

use super::names;
use crate::{
    core::call::{Arguments, Outcome, ToolCall},
    json,
};

/// Arguments and observation as JSON, each of at most `max_bytes`.
pub(super) fn attributes(
    call: &ToolCall,
    outcome: &Outcome,
    max_bytes: usize,
) -> impl Iterator<Item = KeyValue> {
    let arguments = json_of_arguments(&call.arguments);
    let result = outcome.as_ref().ok().map(json_of_value);
    let texts = [(names::ARGUMENTS, arguments), (names::RESULT, result)];
    texts.into_iter().filter_map(move |(name, text)| {
        let mut text = text?;
        text.truncate(text.floor_char_boundary(max_bytes));
        Some(KeyValue::new(name, text))
    })
}

fn json_of_arguments(arguments: &Arguments) -> Option<String> {
    match arguments {
        Arguments::Absent => None,
        Arguments::Struct(encoded) => Some(json_of_struct(encoded)),
        Arguments::Json(text) => Some(String::from_utf8_lossy(text).into_owned()),
    }
}

fn json_of_struct(encoded: &Bytes) -> String {
    match json::decode_struct(encoded) {
        Ok(fields) => serde_json::Value::Object(fields).to_string(),
        Err(_) => String::new(),
    }
}

fn json_of_value(encoded: &Bytes) -> String {
    match json::decode_value(encoded) {
        Ok(value) => value.to_string(),
        Err(_) => String::new(),
    }
}
