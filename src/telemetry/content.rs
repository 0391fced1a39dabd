//! What goes in and comes out of a tool, on its span: only on request, for it may
//! be personal, and cut to size.

use bytes::Bytes;

use super::{names, span::Writer};
use crate::{
    core::call::{Outcome, ToolCall},
    json,
};

/// Adds arguments and observation as JSON, each of at most `max_bytes`.
pub(super) fn add(span: &mut Writer, call: &ToolCall, outcome: &Outcome, max_bytes: usize) {
    let arguments = call.arguments.as_ref().map(json_of_struct);
    let result = outcome.as_ref().ok().map(json_of_value);
    for (name, text) in [(names::ARGUMENTS, arguments), (names::RESULT, result)] {
        if let Some(mut text) = text {
            text.truncate(text.floor_char_boundary(max_bytes));
            span.text(name, &text);
        }
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
