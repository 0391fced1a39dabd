//! A request that was accepted: its calls are running, and every completion that
//! comes out has been noted for the answer. Both RPCs consume it; dropping it
//! cancels what still runs.

use std::sync::Arc;

use super::wire::{self, Arrival};
use crate::{
    core::{
        aggregate::Aggregate,
        call::{Completion, Outcome, ToolCall},
        deadline::Deadline,
        error::{CallError, Effect},
        fanout::FanOut,
        reservation::{Reservation, RunningRequest},
    },
    pb,
};

/// A running request.
#[derive(Debug)]
pub struct Run {
    calls: Arc<[ToolCall]>,
    fan_out: FanOut,
    aggregate: Aggregate,
    summary: bool,
    reservation: Reservation,
    /// The arguments are slices of it.
    _request: Option<RunningRequest>,
    arrival: Arrival,
    deadline: Deadline,
}

/// What the answer to a request is to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    /// At most this many bytes.
    pub(crate) max_bytes: usize,
    /// Without observations.
    pub(crate) summary: bool,
}

impl Run {
    /// The run of `calls` by `fan_out`, with their `reservation`, for an answer as it is
    /// `wanted` by `deadline`. Their `request` is held as long as it runs.
    pub(crate) fn new(
        calls: Arc<[ToolCall]>,
        fan_out: FanOut,
        reservation: Reservation,
        request: Option<RunningRequest>,
        deadline: Deadline,
        wanted: Wanted,
    ) -> Self {
        Self {
            aggregate: Aggregate::new(&calls, wanted.max_bytes, !wanted.summary),
            summary: wanted.summary,
            calls,
            fan_out,
            reservation,
            _request: request,
            arrival: Arrival::at(deadline.arrival),
            deadline,
        }
    }

    /// By when the request must be answered.
    pub fn deadline(&self) -> Deadline {
        self.deadline
    }

    /// The next completion, which the answer has as well; `None` after the last.
    pub async fn next(&mut self) -> Option<Completion> {
        let completion = self.fan_out.next().await?;
        self.aggregate.fill(completion.clone());
        Some(completion)
    }

    /// The result of one completion, for the stream, and the reservation of its call.
    pub fn result(&mut self, completion: Completion) -> (pb::ToolExecutionResult, Reservation) {
        let result = wire::result(&self.calls, completion, self.arrival, false);
        (result, self.reservation.split_one())
    }

    /// Runs what has not ended to its end; the answer, and what is left of the reservation
    /// for it.
    pub async fn finish(mut self) -> (pb::ExecuteToolsResponse, Reservation) {
        self.run_to_end().await;
        let completions = self.aggregate.finish();
        let response = wire::response(&self.calls, completions, self.arrival, self.summary);
        (response, self.reservation)
    }

    /// The same for a request of one call: its outcome.
    pub(crate) async fn finish_one(mut self) -> (Outcome, Reservation) {
        self.run_to_end().await;
        let completion = self.aggregate.finish().pop();
        let lost = || Err(CallError::internal(Effect::Maybe));
        let outcome = completion.map_or_else(lost, |completion| completion.outcome);
        (outcome, self.reservation)
    }

    async fn run_to_end(&mut self) {
        while let Some(completion) = self.fan_out.next().await {
            self.aggregate.fill(completion);
        }
    }
}
