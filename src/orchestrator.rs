//! The RPCs of `OrchestratorService` and `ToolService`. A request is planned, which changes nothing, then
//! started, which takes it on and runs its calls; the RPCs make their answer of the run.

pub(crate) mod answer;
mod call_tool;
pub(crate) mod plan;
pub mod run;
pub mod stream;
pub mod wire;

use std::sync::Arc;

use tokio::{task::spawn_blocking, time::Instant};
use tonic::{Request, Response, Status};

use self::{
    plan::Plan,
    run::{Run, Wanted},
    stream::CompletionStream,
    wire::status::{draining, internal, no_time_left, overloaded},
};
use crate::{
    catalog::snapshot::{Snapshot, Snapshots},
    config::Limits,
    core::{
        admission::Admission,
        buffered::Buffered,
        deadline::Deadline,
        drain::Drain,
        fanout::{FanOut, Surroundings},
        observer::Observer,
        reservation::{
            CALL_BYTES, REQUEST_BYTES, Reservation, RunningRequest, UNCOPIED_BYTES,
            UnsentReservation,
        },
    },
    pb::{self, orchestrator_service_server::OrchestratorService},
    telemetry::{batch::BatchTelemetry, rpc::Record},
};

/// With more tools, a list may take milliseconds, and its first definitions far longer.
const SHORT_LIST: usize = 200;

/// Serves `OrchestratorService`, and `ToolService` with the same tools.
#[derive(Debug)]
pub struct Orchestrator {
    snapshots: Snapshots,
    admission: Admission,
    buffered: Buffered,
    drain: Drain,
}

/// What the edge knows of a request, for its service.
#[derive(Clone, Debug)]
pub(crate) struct RequestContext {
    /// Where telemetry keeps what it knows of it.
    pub(crate) record: Option<Arc<Record>>,
    /// As it was when the request arrived.
    pub(crate) deadline: Deadline,
    /// What was received for it.
    pub(crate) received: Option<RunningRequest>,
    /// Where the edge looks for what it has to give back once it was handed on.
    pub(crate) unsent: UnsentReservation,
}

impl RequestContext {
    /// Of a request that arrived at no edge, `now`.
    fn unknown(now: Instant, limits: &Limits) -> Self {
        Self {
            record: None,
            deadline: Deadline::of_request(now, None, limits.max_request_timeout),
            received: None,
            unsent: UnsentReservation::default(),
        }
    }

    /// Notes why the request is not taken on.
    fn reject(&self, reason: &'static str) {
        if let Some(record) = &self.record {
            record.reject(reason);
        }
    }

    /// Has large arguments, which are slices of what was received, hold it.
    fn keep_arguments(&self, request: &mut pb::ExecuteToolsRequest) {
        let Some(received) = &self.received else {
            return;
        };
        let arguments = request.calls.iter_mut().flat_map(|call| {
            let json = &mut call.arguments_json;
            call.arguments.iter_mut().chain([json])
        });
        for large in arguments.filter(|it| it.len() >= UNCOPIED_BYTES) {
            *large = received.keep(std::mem::take(large));
        }
    }
}

impl Orchestrator {
    /// Serves the tools of the snapshot in force, within its limits, until `drain` says so.
    /// `buffered` is the budget for what requests hold.
    pub fn new(snapshots: Snapshots, buffered: Buffered, drain: Drain) -> Self {
        // Of all requests, whichever snapshot each has: it stays as it is at the start.
        let max_in_flight_calls = snapshots.current().limits.max_in_flight_calls;
        Self {
            snapshots,
            admission: Admission::new(max_in_flight_calls),
            buffered,
            drain,
        }
    }

    /// The calls that it has taken on.
    pub fn admission(&self) -> &Admission {
        &self.admission
    }

    /// Runs the calls of a request.
    async fn execute(
        &self,
        request: pb::ExecuteToolsRequest,
        context: Option<RequestContext>,
    ) -> Result<pb::ExecuteToolsResponse, Status> {
        let (run, unsent) = self.accept(request, context, false)?;
        let (answer, reservation) = run.finish().await;
        unsent.add(reservation);
        Ok(answer)
    }

    /// The same, with each completion on the way.
    async fn stream(
        &self,
        request: pb::ExecuteToolsRequest,
        context: Option<RequestContext>,
    ) -> Result<CompletionStream, Status> {
        let (run, unsent) = self.accept(request, context, true)?;
        Ok(stream::start(run, unsent).await)
    }

    /// Plans a request and starts it; also returns where its reservation goes with what it
    /// answers.
    fn accept(
        &self,
        mut request: pb::ExecuteToolsRequest,
        context: Option<RequestContext>,
        streams: bool,
    ) -> Result<(Run, UnsentReservation), Status> {
        let now = Instant::now();
        let snapshot = self.snapshots.current();
        let context = context.unwrap_or_else(|| RequestContext::unknown(now, &snapshot.limits));
        if self.drain.is_refusing() {
            context.reject("draining");
            return Err(draining());
        }
        if context.deadline.remaining(now).is_zero() {
            context.reject("expired");
            return Err(no_time_left());
        }
        context.keep_arguments(&mut request);
        let plan = Plan::new(request, context.deadline, now, &snapshot, &self.buffered)
            .inspect_err(|_| context.reject("invalid"))?;
        let unsent = context.unsent.clone();
        Ok((self.start(plan, context, streams)?, unsent))
    }

    /// Starts what was planned, if there is room for it.
    fn start(&self, plan: Plan, context: RequestContext, streams: bool) -> Result<Run, Status> {
        let calls = Arc::clone(&plan.batch.calls);
        let permit = self
            .admission
            .admit(calls.len())
            .inspect_err(|_| context.reject("overloaded"))?;
        let held = self
            .buffered
            .try_hold(REQUEST_BYTES + calls.len().saturating_mul(CALL_BYTES));
        let held = held.ok_or_else(|| {
            context.reject("buffers_full");
            overloaded()
        })?;
        let observer = context.record.as_ref().map(|record| {
            let telemetry = BatchTelemetry::start(record, &calls, plan.gauges);
            Arc::new(telemetry) as Arc<dyn Observer>
        });
        let surroundings = Surroundings {
            buffered: self.buffered.clone(),
            observer,
            stop: self.drain.aborted(),
        };
        Ok(Run::new(
            calls,
            FanOut::start(plan.batch, plan.calls, surroundings),
            Reservation::new(permit, held),
            context.received,
            context.deadline,
            Wanted {
                max_bytes: plan.max_response_bytes,
                summary: streams && plan.aggregate_view == pb::AggregateView::Summary,
            },
        ))
    }

    /// Answers `ListTools`.
    async fn list(
        &self,
        request: Request<pb::ListToolsRequest>,
    ) -> Result<Response<pb::ListToolsResponse>, Status> {
        let snapshot = self.snapshots.current();
        let is_long = snapshot.catalog.count() > SHORT_LIST;
        let list = move || {
            let Snapshot { limits, catalog } = &*snapshot;
            wire::list::list(request.get_ref(), catalog, limits.max_response_bytes)
        };
        let answer = match is_long {
            false => list(),
            // The calls of the worker would wait for it.
            true => spawn_blocking(list)
                .await
                .unwrap_or_else(|_| Err(internal())),
        };
        answer.map(Response::new)
    }
}

fn with_context<T>(mut request: Request<T>) -> (T, Option<RequestContext>) {
    let context = request.extensions_mut().remove();
    (request.into_inner(), context)
}

#[tonic::async_trait]
impl OrchestratorService for Orchestrator {
    async fn execute_tools(
        &self,
        request: Request<pb::ExecuteToolsRequest>,
    ) -> Result<Response<pb::ExecuteToolsResponse>, Status> {
        let (request, context) = with_context(request);
        self.execute(request, context).await.map(Response::new)
    }

    type StreamExecuteToolsStream = CompletionStream;

    async fn stream_execute_tools(
        &self,
        request: Request<pb::ExecuteToolsRequest>,
    ) -> Result<Response<CompletionStream>, Status> {
        let (request, context) = with_context(request);
        self.stream(request, context).await.map(Response::new)
    }

    async fn list_tools(
        &self,
        request: Request<pb::ListToolsRequest>,
    ) -> Result<Response<pb::ListToolsResponse>, Status> {
        self.list(request).await
    }
}
