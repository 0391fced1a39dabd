//! A request that was accepted: its calls are running, and every completion that
//! comes out has been noted for the answer. Both RPCs consume it; dropping it
//! cancels what still runs.

use std::sync::Arc;

use crate::{
    admission::Permit,
    aggregate::Aggregate,
    call::{Completion, ToolCall},
    deadline::Deadline,
    fanout::FanOut,
    pb,
    telemetry::batch::BatchTelemetry,
    wire::{self, Arrival},
};

/// A running request.
#[derive(Debug)]
pub struct Run {
    calls: Arc<[ToolCall]>,
    fan_out: FanOut,
    aggregate: Aggregate,
    permit: Permit,
    arrival: Arrival,
    deadline: Deadline,
    telemetry: BatchTelemetry,
}

impl Run {
    /// The run of `calls` by `fan_out`, under the `permit` to have that many in
    /// flight, for an answer of at most `max_response_bytes` by `deadline`.
    pub(crate) fn new(
        calls: Arc<[ToolCall]>,
        fan_out: FanOut,
        permit: Permit,
        deadline: Deadline,
        max_response_bytes: usize,
        telemetry: BatchTelemetry,
    ) -> Self {
        Self {
            aggregate: Aggregate::new(&calls, max_response_bytes),
            calls,
            fan_out,
            permit,
            arrival: Arrival::at(deadline.arrival),
            deadline,
            telemetry,
        }
    }

    /// When the request must be answered.
    pub fn deadline(&self) -> Deadline {
        self.deadline
    }

    /// The next completion, with the right to have its call in flight; `None`
    /// after the last.
    pub async fn next(&mut self) -> Option<(Completion, Permit)> {
        let completion = self.fan_out.next().await?;
        self.telemetry.completed(&completion);
        self.aggregate.fill(completion.clone());
        Some((completion, self.permit.split_one()))
    }

    /// Runs all calls to their end.
    pub async fn finish(mut self) -> pb::ExecuteToolsResponse {
        while let Some(completion) = self.fan_out.next().await {
            drop(self.permit.split_one());
            self.telemetry.completed(&completion);
            self.aggregate.fill(completion);
        }
        self.response(false)
    }

    /// The result of one completion, for the stream.
    pub fn result(&self, completion: Completion) -> pb::ToolExecutionResult {
        wire::result(&self.calls, completion, self.arrival, false)
    }

    /// The answer, once [`next`](Self::next) has said that all calls have ended.
    /// Without the observations if `summary`.
    pub fn response(self, summary: bool) -> pb::ExecuteToolsResponse {
        let completions = self.aggregate.finish();
        wire::response(&self.calls, completions, self.arrival, summary)
    }
}
