//! The RPCs of `OrchestratorService`: decode, admit, fan out, encode. The work is
//! done by the modules that these methods name.

pub mod run;
pub mod stream;
pub mod wire;

use std::sync::Arc;

use tokio::time::Instant;
use tonic::{Request, Response, Status};

use self::{
    run::{Run, Wanted},
    stream::CompletionStream,
    wire::{
        RequestLimits,
        status::{draining, no_time_left, overloaded},
    },
};
use crate::{
    catalog::Registry,
    config::Limits,
    core::{
        admission::Admission,
        buffered::Buffered,
        deadline::Deadline,
        drain::Drain,
        fanout::{FanOut, Surroundings},
        observer::Observer,
        reservation::{
            CALL_BYTES, InProgress, REQUEST_BYTES, Reservation, UNCOPIED_BYTES, Undelivered,
        },
    },
    pb::{self, orchestrator_service_server::OrchestratorService},
    telemetry::{batch::BatchTelemetry, rpc::Record},
};

/// Serves `OrchestratorService`.
#[derive(Debug)]
pub struct Orchestrator {
    registry: Registry,
    limits: Limits,
    admission: Admission,
    buffered: Buffered,
    drain: Drain,
}

/// What the edge knows of a request, for its service.
#[derive(Clone, Debug)]
pub(crate) struct RequestContext {
    pub(crate) record: Arc<Record>,
    /// As it was when the request arrived.
    pub(crate) deadline: Deadline,
    /// What was received for it.
    pub(crate) received: InProgress,
    /// Where the edge looks for what it has to give back once it was handed on.
    pub(crate) undelivered: Undelivered,
}

impl Orchestrator {
    /// Serves the tools of `registry` within `limits`, until `drain` says so.
    /// What requests hold comes out of `buffered`.
    pub fn new(registry: Registry, limits: Limits, buffered: Buffered, drain: Drain) -> Self {
        Self {
            registry,
            admission: Admission::new(limits.max_in_flight_calls),
            limits,
            buffered,
            drain,
        }
    }

    /// The calls that it has taken on.
    pub fn admission(&self) -> &Admission {
        &self.admission
    }

    /// Starts a request; also returns where its place goes with what it answers.
    fn accept(
        &self,
        mut request: Request<pb::ExecuteToolsRequest>,
        streams: bool,
    ) -> Result<(Run, Undelivered), Status> {
        let now = Instant::now();
        let context: Option<RequestContext> = request.extensions_mut().remove();
        let (record, deadline, received, undelivered) = match context {
            Some(it) => (
                Some(it.record),
                it.deadline,
                Some(it.received),
                it.undelivered,
            ),
            None => {
                let deadline = Deadline::of_request(now, None, self.limits.max_request_timeout);
                (None, deadline, None, Undelivered::default())
            }
        };
        let rejected = |reason| {
            if let Some(record) = &record {
                record.reject(reason);
            }
        };
        if self.drain.is_refusing() {
            rejected("draining");
            return Err(draining());
        }
        if deadline.remaining(now).is_zero() {
            rejected("expired");
            return Err(no_time_left());
        }
        let limits = RequestLimits {
            max_calls: self.limits.max_calls_per_request,
            concurrency_limit: self.limits.concurrency_limit,
            max_response_bytes: self.limits.max_response_bytes,
        };
        let mut request = request.into_inner();
        if let Some(received) = &received {
            for call in &mut request.calls {
                let large = call.arguments.as_mut();
                if let Some(arguments) = large.filter(|it| it.len() >= UNCOPIED_BYTES) {
                    *arguments = received.keep(std::mem::take(arguments));
                }
            }
        }
        let (batch, view) =
            wire::parse_request(request, limits).inspect_err(|_| rejected("invalid"))?;
        let permit = self
            .admission
            .admit(batch.calls.len())
            .inspect_err(|_| rejected("overloaded"))?;
        let held = self
            .buffered
            .try_hold(REQUEST_BYTES + batch.calls.len().saturating_mul(CALL_BYTES));
        let held = held.ok_or_else(|| {
            rejected("buffers_full");
            overloaded()
        })?;
        let place = Reservation::new(permit, held);
        let tools = batch
            .calls
            .iter()
            .map(|call| self.registry.get(&call.name))
            .collect();
        let calls = Arc::clone(&batch.calls);
        let observer = record.as_ref().map(|record| {
            let telemetry = BatchTelemetry::start(record, &calls);
            Arc::new(telemetry) as Arc<dyn Observer>
        });
        let for_tools = deadline.less_reply_margin(now, self.limits.reply_margin);
        let surroundings = Surroundings {
            buffered: self.buffered.clone(),
            observer,
            stop: self.drain.aborted(),
        };
        let fan_out = FanOut::start(batch, tools, for_tools, surroundings);
        let wanted = Wanted {
            max_bytes: self.limits.max_response_bytes,
            summary: streams && view == pb::AggregateView::Summary,
        };
        let run = Run::new(calls, fan_out, place, received, deadline, wanted);
        Ok((run, undelivered))
    }
}

#[tonic::async_trait]
impl OrchestratorService for Orchestrator {
    async fn execute_tools(
        &self,
        request: Request<pb::ExecuteToolsRequest>,
    ) -> Result<Response<pb::ExecuteToolsResponse>, Status> {
        let (run, undelivered) = self.accept(request, false)?;
        let (answer, place) = run.finish().await;
        undelivered.add(place);
        Ok(Response::new(answer))
    }

    type StreamExecuteToolsStream = CompletionStream;

    async fn stream_execute_tools(
        &self,
        request: Request<pb::ExecuteToolsRequest>,
    ) -> Result<Response<CompletionStream>, Status> {
        let (run, undelivered) = self.accept(request, true)?;
        Ok(Response::new(stream::start(run, undelivered).await))
    }

    async fn list_tools(
        &self,
        _: Request<pb::ListToolsRequest>,
    ) -> Result<Response<pb::ListToolsResponse>, Status> {
        let tools = self.registry.iter().map(wire::tool).collect();
        Ok(Response::new(pb::ListToolsResponse { tools }))
    }
}
