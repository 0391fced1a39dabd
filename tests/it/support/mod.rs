//! What the tests share: tools to script, a server over in-memory pipes for exact
//! times, real processes for faults.

pub mod allowing;
pub mod amid_others;
pub mod bare;
pub mod by_hand;
pub mod caller;
pub mod collector;
pub mod described;
pub mod hooked;
pub mod hostile;
pub mod killed;
pub mod late_service;
pub mod ledger;
pub mod network;
pub mod observed;
pub mod page;
pub mod pipes;
pub mod process;
pub mod raw;
pub mod reflecting;
pub mod relay;
pub mod service;
pub mod sockets;
pub mod spans;
pub mod stalled;
pub mod strict;
pub mod timed;
pub mod tools;
pub mod wiretap;

use std::time::Duration;

use fanfare::{config::Config, pb};
use prost::Message as _;
use tonic_types::pb::{BadRequest, ErrorInfo};

pub const SECOND: Duration = Duration::from_secs(1);

/// Milliseconds.
pub fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// A call of `name` with an id of its own.
pub fn call(id: &str, name: &str) -> pb::ToolCall {
    pb::ToolCall {
        id: id.to_owned(),
        name: name.to_owned(),
        ..Default::default()
    }
}

/// A call with JSON arguments.
#[expect(clippy::needless_pass_by_value, reason = "reads well with json!")]
pub fn call_with(id: &str, name: &str, arguments: serde_json::Value) -> pb::ToolCall {
    pb::ToolCall {
        arguments: Some(fanfare::json::encode_struct(
            arguments.as_object().expect("an object"),
        )),
        ..call(id, name)
    }
}

/// A call with the text that a model wrote.
pub fn call_with_text(id: &str, name: &str, text: impl Into<bytes::Bytes>) -> pb::ToolCall {
    pb::ToolCall {
        arguments_json: text.into(),
        ..call(id, name)
    }
}

/// A request of these calls.
pub fn request(calls: Vec<pb::ToolCall>) -> pb::ExecuteToolsRequest {
    pb::ExecuteToolsRequest {
        calls,
        ..Default::default()
    }
}

/// A call of the tool `tool`.
pub fn tool(id: &str) -> pb::ToolCall {
    call(id, "tool")
}

/// The result of a request of one call, which must be served.
pub async fn result(client: &pipes::Client, call: pb::ToolCall) -> pb::ToolExecutionResult {
    let mut results = results(client, vec![call]).await;
    assert_eq!(results.len(), 1);
    results.remove(0)
}

/// The results of one request, which must be served.
pub async fn results(
    client: &pipes::Client,
    calls: Vec<pb::ToolCall>,
) -> Vec<pb::ToolExecutionResult> {
    let response = client.clone().execute_tools(request(calls)).await;
    response.expect("an OK").into_inner().results
}

/// A configuration without services and tools.
pub fn config() -> Config {
    Config::default()
}

/// What a test looks at in a result.
#[derive(Clone, Debug, PartialEq)]
pub enum Seen {
    /// The observation, decoded.
    Ok(serde_json::Value),
    /// Code, reason, effect, limit.
    Err(tonic::Code, String, String, Option<String>),
}

/// A failed call as a test expects it.
pub fn failed(code: tonic::Code, reason: &str, effect: &str) -> Seen {
    Seen::Err(code, reason.to_owned(), effect.to_owned(), None)
}

/// A call that was answered with nothing, which counts as null.
pub fn answered() -> Seen {
    Seen::Ok(serde_json::Value::Null)
}

/// A call whose tool could not be reached, or was lost.
pub fn lost(effect: &str) -> Seen {
    failed(tonic::Code::Unavailable, "TOOL_UNAVAILABLE", effect)
}

/// A call that was not sent because a circuit breaker is open.
pub fn circuit_open() -> Seen {
    failed(tonic::Code::Unavailable, "CIRCUIT_OPEN", "not_started")
}

/// An expired call as a test expects it.
pub fn expired(effect: &str, limit: &str) -> Seen {
    let code = tonic::Code::DeadlineExceeded;
    let reason = "DEADLINE_EXCEEDED".to_owned();
    Seen::Err(code, reason, effect.to_owned(), Some(limit.to_owned()))
}

/// The outcome of a result.
pub fn seen(result: &pb::ToolExecutionResult) -> Seen {
    use pb::tool_execution_result::Outcome;
    match result.outcome.as_ref().expect("an outcome") {
        Outcome::Observation(value) => {
            Seen::Ok(fanfare::json::decode_value(value).expect("a value"))
        }
        Outcome::Error(status) => {
            let info = error_info(status);
            Seen::Err(
                status.code.into(),
                info.reason,
                info.metadata["effect"].clone(),
                info.metadata.get("limit").cloned(),
            )
        }
    }
}

/// The `ErrorInfo` of a failed call.
pub fn error_info(status: &tonic_types::pb::Status) -> ErrorInfo {
    let first = status.details.first().expect("details");
    assert_eq!(first.type_url, "type.googleapis.com/google.rpc.ErrorInfo");
    let info = ErrorInfo::decode(first.value.as_slice()).expect("an ErrorInfo");
    assert_eq!(info.domain, "fanfare");
    info
}

/// What is wrong with the arguments of a failed call: each field, and how.
pub fn violations(result: &pb::ToolExecutionResult) -> Vec<(String, String)> {
    let details = &error(result).details;
    let of_type = details
        .iter()
        .filter(|any| any.type_url == "type.googleapis.com/google.rpc.BadRequest");
    let requests: Vec<_> = of_type
        .map(|any| BadRequest::decode(any.value.as_slice()).expect("a BadRequest"))
        .collect();
    assert_eq!(requests.len(), 1, "{details:?}");
    let violations = requests[0].field_violations.iter();
    violations
        .map(|it| (it.field.clone(), it.description.clone()))
        .collect()
}

/// The error of a result.
pub fn error(result: &pb::ToolExecutionResult) -> &tonic_types::pb::Status {
    match result.outcome.as_ref() {
        Some(pb::tool_execution_result::Outcome::Error(status)) => status,
        other => panic!("no error but {other:?}"),
    }
}

/// The length of a result's field.
pub fn length(duration: Option<prost_types::Duration>) -> Duration {
    duration
        .expect("a duration")
        .try_into()
        .expect("a positive duration")
}
