//! Between the wire and the domain: requests are parsed here, with the path of
//! every field that is wrong, and results are put into the published messages.
//! How errors become a `google.rpc.Status` is in `wire/status.rs`.

pub mod status;

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use crate::{
    call::{Attachment, Batch, Completion, FailurePolicy, MAX_ID_BYTES, ToolCall, ToolName},
    pb::{self, tool_execution_result},
    registry::Listed,
    tool::BreakerState,
};

use status::Violations;

/// What bounds a request beside the size of its message.
#[derive(Clone, Copy, Debug)]
pub struct RequestLimits {
    /// How many calls a request may have.
    pub max_calls: usize,
    /// How many of them may run at a time.
    pub concurrency_limit: usize,
}

/// Parses a request.
///
/// # Errors
/// With every violation, each naming its field.
pub fn parse_request(
    request: pb::ExecuteToolsRequest,
    limits: RequestLimits,
) -> Result<(Batch, pb::AggregateView), Violations> {
    let mut violations = Violations::default();
    let count = request.calls.len();
    if count == 0 {
        violations.add("calls", "must not be empty");
    } else if count > limits.max_calls {
        let max = limits.max_calls;
        violations.add("calls", format!("must be at most {max} calls, are {count}"));
        // Checking each of too many calls would be work for nothing.
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
    let repeated = repeated_ids(&request.calls);
    let calls: Vec<ToolCall> = request
        .calls
        .into_iter()
        .enumerate()
        .filter_map(|(index, call)| {
            check_id(index, &call.id, repeated.get(&index), &mut violations);
            parse_call(index, call, &mut violations)
        })
        .collect();
    violations.into_result()?;

    let wanted = usize::try_from(request.concurrency_limit).unwrap_or(usize::MAX);
    let concurrency_limit = match wanted {
        0 => limits.concurrency_limit,
        wanted => wanted.min(limits.concurrency_limit),
    };
    let batch = Batch {
        attachment: Attachment::default(),
        calls: calls.into(),
        failure_policy,
        concurrency_limit,
    };
    Ok((batch, aggregate_view))
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

fn parse_call(index: usize, call: pb::ToolCall, violations: &mut Violations) -> Option<ToolCall> {
    let name = ToolName::try_new(call.name)
        .map_err(|error| violations.add(format!("calls[{index}].name"), error.to_string()))
        .ok();
    let timeout = call.timeout.map(|timeout| {
        parse_timeout(timeout).ok_or_else(|| {
            let value = format!("{}s {}ns", timeout.seconds, timeout.nanos);
            violations.add(
                format!("calls[{index}].timeout"),
                format!("must be a positive Duration, is {value}"),
            );
        })
    });
    Some(ToolCall {
        id: call.id,
        name: name?,
        arguments: call.arguments,
        timeout: timeout.transpose().ok()?,
    })
}

/// `None` unless it is positive and within what `duration.proto` allows;
/// `prost_types` accepts more than that, and overflows on some of it.
fn parse_timeout(timeout: prost_types::Duration) -> Option<Duration> {
    const MAX_SECONDS: u64 = 315_576_000_000;
    const NANOS_PER_SECOND: u32 = 1_000_000_000;
    let seconds = u64::try_from(timeout.seconds).ok()?;
    let nanos = u32::try_from(timeout.nanos).ok()?;
    let valid = seconds <= MAX_SECONDS && nanos < NANOS_PER_SECOND && (seconds, nanos) != (0, 0);
    valid.then(|| Duration::new(seconds, nanos))
}

fn check_id(index: usize, id: &str, first: Option<&usize>, violations: &mut Violations) {
    let problem = if id.len() > MAX_ID_BYTES {
        let length = id.len();
        format!("must be at most {MAX_ID_BYTES} bytes long, is {length}")
    } else if let Some(c) = id.chars().find(|c| c.is_control()) {
        format!("must hold no control character, has {c:?}")
    } else if let Some(first) = first {
        format!("must be unique, is that of calls[{first}]: {id:?}")
    } else {
        return;
    };
    violations.add(format!("calls[{index}].id"), problem);
}

/// The calls whose id, not empty, an earlier call has; each with the first such.
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

/// When a request arrived, by both clocks: what is sent is wall time, what is
/// measured is monotonic.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    monotonic: Instant,
    wall: SystemTime,
}

impl Arrival {
    /// An arrival at `monotonic`, which is about now.
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

/// A length of time for the wire; one too long for it becomes the longest.
pub fn duration(length: Duration) -> prost_types::Duration {
    length.try_into().unwrap_or(prost_types::Duration {
        seconds: i64::MAX,
        nanos: 0,
    })
}

/// The result of one call. Without its observation if `summary`.
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
        // The bound on calls per request is far below 2^32.
        index: u32::try_from(completion.index).unwrap_or(u32::MAX),
        id: call.id.clone(),
        name: call.name.as_str().to_owned(),
        start_time: Some(arrival.timestamp(arrival.monotonic)),
        end_time: Some(arrival.timestamp(completion.end)),
        duration: Some(arrival.until(completion.end)),
        attempts: completion.attempts,
        queue_duration: Some(duration(completion.queued)),
        outcome,
    }
}

/// The response with all results, `completions` being in the order of `calls`.
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

/// A tool, as `ListTools` shows it.
pub fn tool(listed: Listed<'_>) -> pb::Tool {
    let breaker_state = match listed.breaker_state {
        None => pb::BreakerState::Unspecified,
        Some(BreakerState::Closed) => pb::BreakerState::Closed,
        Some(BreakerState::Open) => pb::BreakerState::Open,
        Some(BreakerState::HalfOpen) => pb::BreakerState::HalfOpen,
    };
    pb::Tool {
        name: listed.name.as_str().to_owned(),
        description: listed.description.to_owned(),
        timeout: Some(duration(listed.timeout)),
        idempotent: listed.idempotent,
        breaker_state: breaker_state.into(),
    }
}
