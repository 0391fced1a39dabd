//! Converts between the published messages and the types of the core: parses requests,
//! naming the path of every invalid field, and builds results. `wire/status.rs` converts
//! errors.

pub mod codec;
pub mod list;
pub mod scan;
pub mod status;

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use crate::{
    config::Limits,
    core::{
        call::{
            Arguments, Batch, Completion, FailurePolicy, MAX_ID_BYTES, MAX_NAME_BYTES, ToolCall,
            ToolName,
        },
        error::{CallError, Effect, Reason, Violation},
    },
    pb::{self, tool_execution_result},
};

use status::Violations;

/// The largest result without its id and its observation.
const RESULT_BYTES: usize = 768;
/// Ids of this length are always accepted: the configuration ensures that they fit.
const MIN_MAX_ID_BYTES: usize = 256;

/// A parsed request.
#[derive(Debug)]
pub struct Parsed {
    /// All calls, valid or not.
    pub batch: Batch,
    /// The invalid calls, by index in ascending order, and why.
    pub refused: Vec<(usize, CallError)>,
    /// What the aggregate of a stream contains.
    pub aggregate_view: pb::AggregateView,
}

/// Parses a request. What is wrong with one call is an error of that call.
///
/// # Errors
/// With everything that is wrong with the request as a whole, each violation
/// naming its field.
pub fn parse_request(
    request: pb::ExecuteToolsRequest,
    limits: &Limits,
) -> Result<Parsed, Violations> {
    let mut violations = Violations::default();
    let count = request.calls.len();
    if count == 0 {
        violations.add("calls", "must not be empty");
    } else if count > limits.max_calls_per_request {
        let max = limits.max_calls_per_request;
        violations.add(
            "calls",
            format!("must be at most {max} calls (limits.max_calls_per_request), are {count}"),
        );
        // The calls need no check any more.
        return Err(violations);
    }
    let failure_policy = parse_failure_policy(request.failure_policy, &mut violations);
    let aggregate_view = pb::AggregateView::try_from(request.aggregate_view).unwrap_or_else(|_| {
        violations.add(
            "aggregate_view",
            format!("is no AggregateView: {}", request.aggregate_view),
        );
        pb::AggregateView::Unspecified
    });
    violations.into_result()?;

    let max_id_bytes = max_id_bytes(count, limits.max_response_bytes);
    let repeated = repeated_ids(&request.calls);
    let mut refused = Vec::new();
    let calls: Vec<ToolCall> = request
        .calls
        .into_iter()
        .enumerate()
        .map(|(index, call)| {
            let first_use = repeated.get(&index).copied();
            let (call, error) = parse_call(call, first_use, max_id_bytes);
            refused.extend(error.map(|error| (index, error)));
            call
        })
        .collect();

    let wanted = usize::try_from(request.concurrency_limit).unwrap_or(usize::MAX);
    let concurrency_limit = match wanted {
        0 => limits.concurrency_limit,
        wanted => wanted.min(limits.concurrency_limit),
    };
    let batch = Batch {
        calls: calls.into(),
        failure_policy,
        concurrency_limit,
    };
    Ok(Parsed {
        batch,
        refused,
        aggregate_view,
    })
}

fn parse_failure_policy(value: i32, violations: &mut Violations) -> FailurePolicy {
    match pb::FailurePolicy::try_from(value) {
        Ok(pb::FailurePolicy::Unspecified | pb::FailurePolicy::Continue) => FailurePolicy::Continue,
        Ok(pb::FailurePolicy::CancelRest) => FailurePolicy::CancelRest,
        Err(_) => {
            violations.add("failure_policy", format!("is no FailurePolicy: {value}"));
            FailurePolicy::Continue
        }
    }
}

/// Parses one call; with an error if it is invalid, and then with its id and name
/// truncated to their limits, as they are sent back.
fn parse_call(
    call: pb::ToolCall,
    first_use_of_id: Option<usize>,
    max_id_bytes: usize,
) -> (ToolCall, Option<CallError>) {
    let mut violations = Vec::new();
    if let Some(problem) = problem_of_id(&call.id, first_use_of_id, max_id_bytes) {
        violations.push(Violation::new("id", problem));
    }
    let timeout = call.timeout.and_then(|timeout| {
        let parsed = parse_timeout(timeout);
        if parsed.is_none() {
            let (seconds, nanos) = (timeout.seconds, timeout.nanos);
            let problem = format!("must be a positive Duration, is {seconds}s {nanos}ns");
            violations.push(Violation::new("timeout", problem));
        }
        parsed
    });
    let arguments = match call.arguments {
        Some(_) if !call.arguments_json.is_empty() => {
            let problem = "must not be set beside arguments";
            violations.push(Violation::new("arguments_json", problem));
            Arguments::Absent
        }
        Some(encoded) => Arguments::Struct(encoded),
        None if call.arguments_json.is_empty() => Arguments::Absent,
        None => Arguments::Json(call.arguments_json),
    };
    let error = if violations.is_empty() {
        ToolName::check(&call.name).err().map(|problem| {
            let mut name = call.name.clone();
            truncate(&mut name, MAX_NAME_BYTES);
            let message = format!("no tool is named {name:?}: {problem}");
            CallError::new(
                Reason::UnknownTool(None),
                Effect::NotStarted,
                false,
                message,
            )
        })
    } else {
        Some(CallError::invalid_arguments(violations))
    };
    let mut call = ToolCall {
        id: call.id,
        name: call.name,
        arguments,
        timeout,
    };
    truncate(&mut call.id, max_id_bytes);
    truncate(&mut call.name, MAX_NAME_BYTES);
    (call, error)
}

/// Truncates `text`, and frees the memory of the rest.
fn truncate(text: &mut String, max_bytes: usize) {
    if text.len() > max_bytes {
        text.truncate(text.floor_char_boundary(max_bytes));
        text.shrink_to_fit();
    }
}

/// How long the ids of `count` calls may be: up to [`MAX_ID_BYTES`], but all of them must
/// fit into a response.
fn max_id_bytes(count: usize, max_response_bytes: usize) -> usize {
    let room = (max_response_bytes / count).saturating_sub(RESULT_BYTES);
    room.clamp(MIN_MAX_ID_BYTES, MAX_ID_BYTES)
}

/// `None` unless it is positive and valid by `duration.proto`. `prost_types` accepts
/// more, and overflows on some of that.
fn parse_timeout(timeout: prost_types::Duration) -> Option<Duration> {
    const MAX_SECONDS: u64 = 315_576_000_000;
    const NANOS_PER_SECOND: u32 = 1_000_000_000;
    let seconds = u64::try_from(timeout.seconds).ok()?;
    let nanos = u32::try_from(timeout.nanos).ok()?;
    let valid = seconds <= MAX_SECONDS && nanos < NANOS_PER_SECOND && (seconds, nanos) != (0, 0);
    valid.then(|| Duration::new(seconds, nanos))
}

fn problem_of_id(id: &str, first_use: Option<usize>, max_bytes: usize) -> Option<String> {
    if id.len() > max_bytes {
        let length = id.len();
        Some(format!(
            "must be at most {max_bytes} bytes long, is {length}"
        ))
    } else if let Some(c) = id.chars().find(|c| c.is_control()) {
        Some(format!("must hold no control character, has {c:?}"))
    } else {
        first_use.map(|first| format!("must be unique, is that of calls[{first}]: {id:?}"))
    }
}

/// The calls whose id repeats that of an earlier call, each with the first such call.
fn repeated_ids(calls: &[pb::ToolCall]) -> HashMap<usize, usize> {
    let mut first_use = HashMap::with_capacity(calls.len());
    let mut repeated = HashMap::new();
    for (index, call) in calls
        .iter()
        .enumerate()
        .filter(|(_, call)| !call.id.is_empty())
    {
        let first = *first_use.entry(call.id.as_str()).or_insert(index);
        if first != index {
            repeated.insert(index, first);
        }
    }
    repeated
}

/// When a request arrived: by the monotonic clock, for measuring, and by the wall clock,
/// for timestamps.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    monotonic: Instant,
    wall: SystemTime,
}

impl Arrival {
    /// An arrival at `monotonic`, which must be recent.
    pub fn at(monotonic: Instant) -> Self {
        Self {
            monotonic,
            wall: SystemTime::now() - monotonic.elapsed(),
        }
    }

    fn timestamp(&self, at: Instant) -> prost_types::Timestamp {
        (self.wall + at.saturating_duration_since(self.monotonic)).into()
    }

    fn until(&self, end: Instant) -> prost_types::Duration {
        duration(end.saturating_duration_since(self.monotonic))
    }
}

/// A duration for the wire, capped at the longest possible.
pub fn duration(length: Duration) -> prost_types::Duration {
    length.try_into().unwrap_or(prost_types::Duration {
        seconds: i64::MAX,
        nanos: 0,
    })
}

/// The result of one call, without its observation if `summary`.
pub fn result(
    calls: &[ToolCall],
    completion: Completion,
    arrival: Arrival,
    summary: bool,
) -> pb::ToolExecutionResult {
    let call = &calls[completion.index];
    let outcome = match completion.outcome {
        Ok(_) if summary => None,
        Ok(observation) => Some(tool_execution_result::Outcome::Observation(observation)),
        Err(error) => Some(tool_execution_result::Outcome::Error(
            status::of_call_error(error),
        )),
    };
    pb::ToolExecutionResult {
        // limits.max_calls_per_request is far below 2^32.
        index: u32::try_from(completion.index).unwrap_or(u32::MAX),
        id: call.id.clone(),
        name: call.name.clone(),
        start_time: Some(arrival.timestamp(arrival.monotonic)),
        end_time: Some(arrival.timestamp(completion.end)),
        duration: Some(arrival.until(completion.end)),
        attempts: completion.attempts,
        queue_duration: Some(duration(completion.queued)),
        outcome,
    }
}

/// The response with all results. `completions` are in the order of `calls`.
pub fn response(
    calls: &[ToolCall],
    completions: Vec<Completion>,
    arrival: Arrival,
    summary: bool,
) -> pb::ExecuteToolsResponse {
    let end = completions
        .iter()
        .map(|completion| completion.end)
        .max()
        .unwrap_or(arrival.monotonic);
    pb::ExecuteToolsResponse {
        start_time: Some(arrival.timestamp(arrival.monotonic)),
        end_time: Some(arrival.timestamp(end)),
        duration: Some(arrival.until(end)),
        results: completions
            .into_iter()
            .map(|completion| result(calls, completion, arrival, summary))
            .collect(),
    }
}
