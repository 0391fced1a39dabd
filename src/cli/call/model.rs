//! Tool calls out of a file: a request of ours, or what a model answered, recognised by its
//! shape. Arguments stay the text that they are, so that no digit is lost.

use std::collections::BTreeMap;

use fanfare::{json::tree::Node, pb, protobuf::Pool};
use prost::Message as _;
use serde_json::{Value, value::RawValue};

/// An object as it was written.
type Members<'a> = BTreeMap<String, &'a RawValue>;

/// The request that a text comes to.
///
/// # Errors
/// What is wrong, and where.
pub(super) fn request(text: &str) -> Result<pb::ExecuteToolsRequest, String> {
    let root: &RawValue =
        serde_json::from_str(text).map_err(|error| format!("no JSON: {error}"))?;
    let calls = if root.get().starts_with('[') {
        calls("", root)?
    } else {
        let members = object("", root)?;
        if members.contains_key("calls") {
            return ours(&members);
        }
        of_answer(&members)?.map_or_else(|| calls_of_one(root), Ok)?
    };
    if calls.is_empty() {
        return Err("has no tool calls".to_owned());
    }
    Ok(pb::ExecuteToolsRequest {
        calls,
        ..pb::ExecuteToolsRequest::default()
    })
}

/// The calls of a whole answer or message; `None` if it is none.
fn of_answer(members: &Members<'_>) -> Result<Option<Vec<pb::ToolCall>>, String> {
    // OpenAI's Chat Completions; of several choices the first.
    if let Some(choices) = members.get("choices") {
        let choices = list("choices", choices)?;
        let first = choices.first().ok_or("choices: is empty")?;
        let choice = object("choices[0]", first)?;
        let path = "choices[0].message";
        let message = choice
            .get("message")
            .ok_or_else(|| format!("{path}: is missing"))?;
        return of_message(path, &object(path, message)?).map(Some);
    }
    if members.contains_key("tool_calls") {
        return of_message("", members).map(Some);
    }
    // OpenAI's Responses; Anthropic's Messages.
    for key in ["output", "content"] {
        if let Some(items) = members.get(key).filter(|it| it.get().starts_with('[')) {
            return calls(key, items).map(Some);
        }
    }
    // A message with nothing but text.
    let says = |key: &str| members.contains_key(key);
    Ok((says("role") && says("content")).then(Vec::new))
}

fn of_message(path: &str, message: &Members<'_>) -> Result<Vec<pb::ToolCall>, String> {
    match message.get("tool_calls") {
        None => Ok(Vec::new()),
        Some(list) if list.get() == "null" => Ok(Vec::new()),
        Some(list) => calls(&below(path, "tool_calls"), list),
    }
}

/// One call by itself.
fn calls_of_one(root: &RawValue) -> Result<Vec<pb::ToolCall>, String> {
    let known = "neither an ExecuteToolsRequest (`calls`) nor an answer of OpenAI (`choices`, \
                 `tool_calls` or `output`) or Anthropic (`content`)";
    let call = call("", root).map_err(|_| format!("is {known}"))?;
    call.map(|call| vec![call])
        .ok_or_else(|| format!("is {known}"))
}

fn calls(path: &str, items: &RawValue) -> Result<Vec<pb::ToolCall>, String> {
    let items = list(path, items)?.into_iter().enumerate();
    let calls = items.map(|(index, item)| call(&format!("{path}[{index}]"), item));
    calls.filter_map(Result::transpose).collect()
}

/// A call; `None` if it is another part of an answer, such as text.
fn call(path: &str, item: &RawValue) -> Result<Option<pb::ToolCall>, String> {
    let members = object(path, item)?;
    let kind = match members.get("type") {
        Some(kind) => text(&below(path, "type"), kind)?,
        None => String::new(),
    };
    let call = match kind.as_str() {
        "" | "function" if members.contains_key("function") => {
            let at = below(path, "function");
            let function = object(&at, members["function"])?;
            of_openai(&at, &function, &below(path, "id"), members.get("id"))?
        }
        "function_call" => {
            let id = members.get("call_id");
            of_openai(path, &members, &below(path, "call_id"), id)?
        }
        "tool_use" => {
            let input = members.get("input");
            let at = below(path, "input");
            let input = input.ok_or_else(|| format!("{at}: is missing"))?;
            object(&at, input)?;
            tool_call(
                path,
                &members,
                &below(path, "id"),
                members.get("id"),
                input.get(),
            )?
        }
        "custom" | "custom_tool_call" => {
            let what = "is a call of a custom tool, whose input is no JSON";
            return Err(at(path, what));
        }
        "" => {
            let what = "is no tool call: it has neither `type` nor `function`";
            return Err(at(path, what));
        }
        _ => return Ok(None),
    };
    Ok(Some(call))
}

/// OpenAI has arguments as text: of JSON, or what a model takes for it.
fn of_openai(
    path: &str,
    function: &Members<'_>,
    id_path: &str,
    id: Option<&&RawValue>,
) -> Result<pb::ToolCall, String> {
    let at = below(path, "arguments");
    let arguments = function
        .get("arguments")
        .ok_or_else(|| format!("{at}: is missing"))?;
    let arguments = text(&at, arguments)?;
    tool_call(path, function, id_path, id, &arguments)
}

fn tool_call(
    path: &str,
    members: &Members<'_>,
    id_path: &str,
    id: Option<&&RawValue>,
    arguments: &str,
) -> Result<pb::ToolCall, String> {
    let at = below(path, "name");
    let name = members
        .get("name")
        .ok_or_else(|| format!("{at}: is missing"))?;
    Ok(pb::ToolCall {
        id: id.map_or(Ok(String::new()), |id| text(id_path, id))?,
        name: text(&at, name)?,
        arguments_json: arguments.to_owned().into(),
        ..pb::ToolCall::default()
    })
}

/// An `ExecuteToolsRequest` in protobuf's JSON mapping.
fn ours(members: &Members<'_>) -> Result<pb::ExecuteToolsRequest, String> {
    let mut rewritten = Vec::new();
    for (key, value) in members {
        let value = match key.as_str() {
            "calls" => with_text(value)?,
            _ => value.get().to_owned(),
        };
        rewritten.push(format!("{}:{value}", Value::from(key.as_str())));
    }
    let rewritten = format!("{{{}}}", rewritten.join(","));
    let violations = |violations: Vec<fanfare::core::error::Violation>| {
        let lines = violations.into_iter().map(|it| {
            let field = it.field.trim_start_matches("arguments_json");
            let field = field
                .trim_start_matches("arguments")
                .trim_start_matches('.');
            at(field, &it.description)
        });
        lines.collect::<Vec<_>>().join("\n  ")
    };
    let node = Node::from_json(rewritten.as_bytes()).map_err(violations)?;
    let (pool, _) = Pool::from_set(pb::FILE_DESCRIPTOR_SET).map_err(|it| it.description)?;
    let kind = pool.message("fanfare.v1.ExecuteToolsRequest");
    let encoded = kind.map_err(|error| error.to_string())?.encode(&node);
    let encoded = encoded.map_err(violations)?;
    pb::ExecuteToolsRequest::decode(encoded).map_err(|error| error.to_string())
}

/// Calls with the text of their arguments in place of these.
fn with_text(calls: &RawValue) -> Result<String, String> {
    let mut rewritten = Vec::new();
    for (index, call) in list("calls", calls)?.into_iter().enumerate() {
        let mut call = object(&format!("calls[{index}]"), call)?;
        let has_text = ["arguments_json", "argumentsJson"].map(|key| call.contains_key(key));
        let arguments = match call.get("arguments") {
            Some(value) if value.get().starts_with('{') && has_text == [false, false] => {
                call.remove("arguments")
            }
            _ => None,
        };
        let mut members: Vec<_> = call
            .iter()
            .map(|(key, value)| format!("{}:{value}", Value::from(key.as_str())))
            .collect();
        let text = arguments.map(|it| format!("\"arguments_json\":{}", Value::from(it.get())));
        members.extend(text);
        rewritten.push(format!("{{{}}}", members.join(",")));
    }
    Ok(format!("[{}]", rewritten.join(",")))
}

fn object<'a>(path: &str, value: &'a RawValue) -> Result<Members<'a>, String> {
    serde_json::from_str(value.get()).map_err(|_| at(path, "is no object"))
}

fn list<'a>(path: &str, value: &'a RawValue) -> Result<Vec<&'a RawValue>, String> {
    serde_json::from_str(value.get()).map_err(|_| at(path, "is no list"))
}

fn text(path: &str, value: &RawValue) -> Result<String, String> {
    serde_json::from_str(value.get()).map_err(|_| at(path, "is no string"))
}

fn below(path: &str, member: &str) -> String {
    match path {
        "" => member.to_owned(),
        path => format!("{path}.{member}"),
    }
}

/// What is wrong there, or with all of it.
fn at(path: &str, what: &str) -> String {
    match path {
        "" => what.to_owned(),
        path => format!("{path}: {what}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of each call: its id, its tool, and the text of its arguments.
    fn calls_of(text: &str) -> Vec<(String, String, String)> {
        let calls = request(text).unwrap().calls.into_iter();
        calls
            .map(|it| {
                assert_eq!(it.arguments, None);
                let arguments = String::from_utf8(it.arguments_json.to_vec()).unwrap();
                (it.id, it.name, arguments)
            })
            .collect()
    }

    fn expected() -> Vec<(String, String, String)> {
        let of = |id: &str, name: &str, arguments: &str| {
            (id.to_owned(), name.to_owned(), arguments.to_owned())
        };
        let exact = r#"{"id": 12345678901234567890123, "n": 1.10}"#;
        vec![of("call_1", "get", exact), of("call_2", "list", "{}")]
    }

    const CHAT: &str = r#"[
        {"id": "call_1", "type": "function", "function": {"name": "get",
            "arguments": "{\"id\": 12345678901234567890123, \"n\": 1.10}"}},
        {"id": "call_2", "type": "function", "function": {"name": "list", "arguments": "{}"}}]"#;
    const RESPONSES: &str = r#"[{"type": "reasoning", "id": "rs_1", "summary": []},
        {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "get", "status": "completed",
            "arguments": "{\"id\": 12345678901234567890123, \"n\": 1.10}"},
        {"type": "function_call", "id": "fc_2", "call_id": "call_2", "name": "list", "arguments": "{}"}]"#;
    const ANTHROPIC: &str = r#"[{"type": "text", "text": "I look."},
        {"type": "tool_use", "id": "call_1", "name": "get", "input": {"id": 12345678901234567890123, "n": 1.10}},
        {"type": "tool_use", "id": "call_2", "name": "list", "input": {}}]"#;

    #[test]
    fn answers_of_models_are_known_by_their_shape() {
        let message = format!(r#"{{"role": "assistant", "content": null, "tool_calls": {CHAT}}}"#);
        let chat = format!(
            r#"{{"object": "chat.completion", "choices": [{{"index": 0, "message": {message}}}]}}"#
        );
        let responses = format!(r#"{{"object": "response", "output": {RESPONSES}}}"#);
        let anthropic =
            format!(r#"{{"type": "message", "role": "assistant", "content": {ANTHROPIC}}}"#);
        for text in [
            CHAT, &message, &chat, RESPONSES, &responses, ANTHROPIC, &anthropic,
        ] {
            assert_eq!(calls_of(text), expected(), "{text}");
        }
        let one = r#"{"type": "tool_use", "id": "call_2", "name": "list", "input": {}}"#;
        assert_eq!(calls_of(one), expected()[1..]);
        // What a model takes for JSON is for the tool's check.
        let broken = r#"[{"function": {"name": "get", "arguments": "{"}}]"#;
        assert_eq!(calls_of(broken)[0].2, "{");
    }

    #[test]
    fn a_request_of_ours_keeps_its_digits() {
        let text = r#"{"calls": [
            {"id": "call_1", "name": "get", "arguments": {"id": 12345678901234567890123, "n": 1.10}},
            {"id": "call_2", "name": "list", "argumentsJson": "{}", "timeout": "1.5s"}],
            "failurePolicy": "FAILURE_POLICY_CANCEL_REST", "concurrency_limit": 2}"#;
        assert_eq!(calls_of(text), expected());
        let request = request(text).unwrap();
        assert_eq!(request.failure_policy(), pb::FailurePolicy::CancelRest);
        assert_eq!(request.concurrency_limit, 2);
        let timeout = request.calls[1].timeout.unwrap();
        assert_eq!((timeout.seconds, timeout.nanos), (1, 500_000_000));
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        let mistakes = [
            ("", "no JSON: "),
            ("7", "is no object"),
            (
                "{}",
                "is neither an ExecuteToolsRequest (`calls`) nor an answer of",
            ),
            ("[]", "has no tool calls"),
            (
                r#"{"role": "assistant", "content": "Hello"}"#,
                "has no tool calls",
            ),
            (r#"{"choices": []}"#, "choices: is empty"),
            (
                r#"{"choices": [{"message": {"content": "Hello"}}]}"#,
                "has no tool calls",
            ),
            (r#"{"tool_calls": {}}"#, "tool_calls: is no list"),
            (
                r#"{"choices": [{"message": {"tool_calls": [{"function": {"name": "a"}}]}}]}"#,
                "choices[0].message.tool_calls[0].function.arguments: is missing",
            ),
            (
                r#"{"output": [{"type": "function_call", "name": 1, "arguments": "{}"}]}"#,
                "output[0].name: is no string",
            ),
            (
                r#"[{"type": "function_call", "name": "a", "arguments": {}}]"#,
                "[0].arguments: is no string",
            ),
            (
                r#"{"content": [{"type": "tool_use", "id": "x", "name": "a", "input": "{}"}]}"#,
                "content[0].input: is no object",
            ),
            (
                r#"[{"type": "custom", "custom": {}}]"#,
                "[0]: is a call of a custom tool",
            ),
            (r#"[{"name": "a"}]"#, "[0]: is no tool call"),
            (r#"{"calls": {}}"#, "calls: is no list"),
            (r#"{"calls": [7]}"#, "calls[0]: is no object"),
        ];
        for (text, problem) in mistakes {
            let found = request(text).unwrap_err();
            assert!(found.starts_with(problem), "{text}: {found}");
        }
        let text = r#"{"calls": [{"nam": "a"}], "failure_policy": "NONE"}"#;
        let found = request(text).unwrap_err();
        for place in ["calls[0].nam: ", "failure_policy: "] {
            assert!(found.contains(place), "{found}");
        }
    }
}
