//! The results of a run in full: what each call observed, or all that is known of why not.

use std::{collections::BTreeMap, time::Duration};

use prost::Message as _;
use tonic_types::pb::{BadRequest, ErrorInfo, RetryInfo, Status};

use super::{
    render::{heading, length},
    style::Style,
    text::{Paint, escaped, seconds},
};
use crate::{
    core::status::Code,
    json,
    pb::{ExecuteToolsResponse, ToolExecutionResult, tool_execution_result::Outcome},
};

/// What comes before each line of a payload.
const INDENT: &str = "      ";

/// Each result with its whole observation or error, in the order of the calls.
pub fn results(style: Style, response: &ExecuteToolsResponse) -> String {
    let mut text = heading(style, "Results:");
    for result in &response.results {
        text += &self::result(style, result);
    }
    text
}

fn result(style: Style, result: &ToolExecutionResult) -> String {
    let (paint, head, body) = match &result.outcome {
        None => (Paint::Green, "ok".to_owned(), Vec::new()),
        Some(Outcome::Observation(encoded)) => {
            let body = match json::decode_value(encoded) {
                Ok(value) => format!("{value:#}"),
                Err(error) => format!("({error})"),
            };
            let lines = body.lines().map(str::to_owned);
            (Paint::Green, "ok".to_owned(), lines.collect())
        }
        Some(Outcome::Error(status)) => {
            let mut lines = error(status).into_iter();
            let head = lines.next().unwrap_or_default();
            (Paint::Red, format!("error {head}"), lines.collect())
        }
    };
    // Whole lines: a payload is for reading, or for copying, and may be long.
    let mut line = Style {
        live: false,
        ..style
    }
    .line();
    let id = match result.id.as_str() {
        "" => String::new(),
        id => format!("{}  ", escaped(id)),
    };
    let call = format!("  [{}] {id}{}  ", result.index, escaped(&result.name));
    line.push(Paint::Plain, &call);
    line.push(paint, &escaped(&head));
    let mut text = line.finish() + "\n";
    for line in body {
        text += &format!("{INDENT}{}\n", escaped(&line));
    }
    text
}

/// All that an error says: its code, reason and message, and then what follows from it, a
/// line each.
pub fn error(status: &Status) -> Vec<String> {
    let mut info = None;
    let mut more = Vec::new();
    for detail in &status.details {
        let name = detail.type_url.rsplit('/').next().unwrap_or_default();
        let value = detail.value.as_slice();
        match name {
            "google.rpc.ErrorInfo" if info.is_none() => info = ErrorInfo::decode(value).ok(),
            "google.rpc.BadRequest" => {
                let violations = BadRequest::decode(value).unwrap_or_default();
                let violations = violations.field_violations.into_iter();
                more.extend(violations.map(|it| format!("{}: {}", it.field, it.description)));
            }
            "google.rpc.RetryInfo" => {
                let delay = RetryInfo::decode(value).ok().and_then(|it| it.retry_delay);
                let delay = length(delay);
                if delay > Duration::ZERO {
                    more.push(format!("retry after {}", seconds(delay)));
                }
            }
            other => more.push(format!("detail {other}")),
        }
    }
    let code = Code::from_number(status.code).name();
    let message = match status.message.as_str() {
        "" => String::new(),
        message => format!(": {message}"),
    };
    let Some(info) = info else {
        more.insert(0, format!("{code}{message}"));
        return more;
    };
    let reason = match info.reason.as_str() {
        reason if reason == code => String::new(),
        reason => format!(" ({reason})"),
    };
    // Sorted, which the map is not.
    let metadata: BTreeMap<_, _> = info.metadata.iter().collect();
    let known = metadata
        .into_iter()
        .map(|(key, value)| format!("{key}: {value}"));
    let known: Vec<_> = known.collect();
    let mut lines = vec![format!("{code}{reason}{message}")];
    if !known.is_empty() {
        lines.push(known.join(", "));
    }
    lines.extend(more);
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        core::error::{CallError, Violation},
        pb,
    };

    #[test]
    fn an_error_says_all_that_is_known() {
        let any = |name: &str, value: Vec<u8>| prost_types::Any {
            type_url: format!("type.googleapis.com/google.rpc.{name}"),
            value,
        };
        let violations = vec![Violation::new("arguments.limit", "must be at most 9")];
        let message = CallError::invalid_arguments(violations).message;
        let info = ErrorInfo {
            reason: "INVALID_ARGUMENTS".to_owned(),
            domain: "fanfare".to_owned(),
            metadata: [("retryable", "false"), ("effect", "not_started")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
        };
        let violation = tonic_types::pb::bad_request::FieldViolation {
            field: "arguments.limit".to_owned(),
            description: "must be at most 9\u{1b}[2J".to_owned(),
            ..Default::default()
        };
        let bad_request = BadRequest {
            field_violations: vec![violation],
        };
        let status = Status {
            code: 3,
            message: message.clone(),
            details: vec![
                any("ErrorInfo", info.encode_to_vec()),
                any("BadRequest", bad_request.encode_to_vec()),
            ],
        };
        let observed = ToolExecutionResult {
            id: "a".to_owned(),
            name: "echo".to_owned(),
            outcome: Some(Outcome::Observation(json::encode_value(&json!({"n": [1]})))),
            ..Default::default()
        };
        let failed = ToolExecutionResult {
            index: 1,
            name: "search".to_owned(),
            outcome: Some(Outcome::Error(status)),
            ..Default::default()
        };
        let response = pb::ExecuteToolsResponse {
            results: vec![observed, failed],
            ..Default::default()
        };
        let expected = format!(
            r#"Results:
  [0] a  echo  ok
      {{
        "n": [
          1
        ]
      }}
  [1] search  error INVALID_ARGUMENT (INVALID_ARGUMENTS): {message}
      effect: not_started, retryable: false
      arguments.limit: must be at most 9\u{{1b}}[2J
"#
        );
        assert_eq!(results(Style::PIPE, &response), expected);
    }
}
