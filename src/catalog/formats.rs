//! Definitions of tools as the providers of models take them, out of one JSON Schema.
//!
//! A provider refuses the whole request for what it does not like in one tool. So what its
//! format can't express becomes words of a description, which is all that the model needs:
//! arguments are checked against the tool's own schema anyway. None is in a strict mode,
//! which costs whole requests.

mod composition;
mod dialect;
mod refs;
mod schema;
mod words;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use self::dialect::Dialect;
use super::definition::Definition;
use crate::json;

/// How deep a definition nests its schema at most: `{"function": {"parameters": ...}}`.
const WRAPPERS: usize = 2;
/// How deep what is listed may nest: gRPC libraries decode 100 messages, each object is
/// three of them, and is in one more.
const MAX_DEPTH: usize = 31;
/// What OpenAI takes as the description of a function, in characters:
/// <https://github.com/getsentry/sentry-mcp/issues/106>.
const OPENAI_DESCRIPTION: usize = 1024;

/// Who is to read a definition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OpenAI's Chat Completions API.
    OpenAiChat,
    /// OpenAI's Responses API.
    OpenAiResponses,
    /// Anthropic's Messages API.
    Anthropic,
    /// The Gemini API.
    Gemini,
    /// The Model Context Protocol.
    Mcp,
}

/// A tool, for its definition.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subject<'a> {
    pub(super) name: &'a str,
    pub(super) alias: &'a str,
    pub(super) definition: &'a Definition,
    pub(super) idempotent: bool,
}

impl Format {
    /// How many there are.
    pub(super) const COUNT: usize = 5;
}

/// The definition of a tool.
pub(super) fn definition(format: Format, subject: Subject<'_>) -> Map<String, Value> {
    let Definition {
        title,
        description,
        input_schema,
        ..
    } = subject.definition;
    let input = input_schema.as_deref();
    let about = if description.is_empty() {
        title
    } else {
        description
    };
    let alias = subject.alias;
    let value = match format {
        Format::OpenAiChat => {
            let (description, parameters) = for_openai(about, input);
            let function = json!({"name": alias, "parameters": parameters});
            json!({"type": "function", "function": described(function, description)})
        }
        Format::OpenAiResponses => {
            let (description, parameters) = for_openai(about, input);
            // Without it, it is strict.
            let function = json!({
                "type": "function", "name": alias, "parameters": parameters, "strict": false,
            });
            described(function, description)
        }
        Format::Anthropic => {
            let (schema, notes) = schema::input(Dialect::Anthropic, input);
            let tool = json!({"name": alias, "input_schema": schema});
            described(tool, words::paragraphs(about, &notes))
        }
        Format::Gemini => {
            let (schema, notes) = schema::input(Dialect::Gemini, input);
            // It must have a description.
            let about = if about.is_empty() {
                subject.name
            } else {
                about
            };
            let function = json!({"name": alias, "parametersJsonSchema": schema});
            described(function, words::paragraphs(about, &notes))
        }
        Format::Mcp => mcp(subject, about, input),
    };
    match value {
        Value::Object(definition) => definition,
        _ => Map::new(),
    }
}

/// The same, as an encoded `google.protobuf.Struct`.
pub(super) fn encoded(format: Format, subject: Subject<'_>) -> Bytes {
    json::encode_struct(&definition(format, subject))
}

/// A schema as an encoded `google.protobuf.Struct` that every gRPC library decodes: what is
/// too deep in it is left out.
pub(super) fn encoded_schema(schema: &Map<String, Value>) -> Bytes {
    if words::depth_of_members(schema) < MAX_DEPTH {
        return json::encode_struct(schema);
    }
    json::encode_struct(&schema::shallower(schema))
}

fn for_openai(about: &str, input: Option<&Map<String, Value>>) -> (String, Map<String, Value>) {
    let (mut parameters, notes) = schema::input(Dialect::OpenAi, input);
    let description = words::paragraphs(about, &notes);
    if words::length(&description) <= OPENAI_DESCRIPTION {
        return (description, parameters);
    }
    // Those of schemas may be longer.
    let cut = words::cut(&description, OPENAI_DESCRIPTION);
    parameters.insert("description".to_owned(), description.into());
    (cut, parameters)
}

fn mcp(subject: Subject<'_>, about: &str, input: Option<&Map<String, Value>>) -> Value {
    let definition = subject.definition;
    let (schema, notes) = schema::input(Dialect::Mcp, input);
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let name = if subject.name.chars().all(allowed) {
        subject.name
    } else {
        subject.alias
    };
    let tool = json!({"name": name, "inputSchema": schema});
    let mut tool = described(tool, words::paragraphs(about, &notes));
    if !definition.title.is_empty() {
        tool["title"] = definition.title.as_str().into();
    }
    // Clients refuse all tools for one with a schema of something else.
    let output = definition.output_schema.as_deref();
    if let Some(schema) = output.and_then(schema::output) {
        tool["outputSchema"] = schema.into();
    }
    // What is not said means the worst that may be.
    let hints = [
        ("readOnlyHint", definition.read_only),
        ("destructiveHint", definition.destructive),
        ("idempotentHint", subject.idempotent),
    ];
    let hints: Map<_, _> = hints
        .into_iter()
        .filter(|(_, is_so)| *is_so)
        .map(|(hint, _)| (hint.to_owned(), true.into()))
        .collect();
    if !hints.is_empty() {
        tool["annotations"] = hints.into();
    }
    tool
}

/// With a description, unless that is empty, which some refuse.
fn described(mut tool: Value, description: String) -> Value {
    if !description.is_empty() {
        tool["description"] = description.into();
    }
    tool
}

#[cfg(test)]
mod tests;
