//! A run of calls as a person sees it: live on a terminal, as lines in a pipe.
//!
//! `view` says what is shown when, `render` has the texts.

mod render;
pub mod results;
pub mod style;
mod text;
pub mod view;

use std::{future::Future, io, pin::pin, time::Duration};

use bytes::Bytes;
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tonic::{IntoRequest, Status, body::Body, client::GrpcService, codegen::StdError};

use self::view::View;
pub use self::{
    render::length,
    text::{columns, cut, padded, seconds},
};
use crate::pb::{
    ExecuteToolsRequest, ExecuteToolsResponse,
    orchestrator_service_client::OrchestratorServiceClient, stream_execute_tools_response::Event,
    tool_execution_result::Outcome,
};

/// How often a live view is redrawn.
const TICK: Duration = Duration::from_millis(100);

/// How a run went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// From the sending of the request to the end of the stream, by the clock
    /// of the caller.
    pub wall: Duration,
    /// The durations of the calls added up: what one after the other takes.
    pub sum: Duration,
    /// How many of the calls ended in an error.
    pub failed: usize,
}

/// Sends `request` as one `StreamExecuteTools`, shows on `view` what comes back, and
/// returns the aggregate once the stream has ended.
///
/// # Errors
/// The status of the RPC; `INTERNAL` if its stream ends without an aggregate;
/// a status with the message of the `io::Error` if the view can't be written.
/// A call that fails is not an error: see [`Summary::failed`].
pub async fn run<T>(
    mut client: OrchestratorServiceClient<T>,
    request: impl IntoRequest<ExecuteToolsRequest>,
    view: &mut View<impl io::Write>,
) -> Result<(Summary, ExecuteToolsResponse), Status>
where
    T: GrpcService<Body>,
    T::Error: Into<StdError>,
    T::ResponseBody: http_body::Body<Data = Bytes> + Send + 'static,
    <T::ResponseBody as http_body::Body>::Error: Into<StdError> + Send,
{
    let request = request.into_request();
    view.begin(&request.get_ref().calls)?;
    let mut pace = Pace::start();
    let response = pace
        .keep(view, client.stream_execute_tools(request))
        .await?;
    let mut events = response?.into_inner();

    let mut aggregate = None;
    while let Some(message) = pace.keep(view, events.message()).await?? {
        match message.event {
            Some(Event::Completion(result)) => view.completion(pace.elapsed(), &result)?,
            Some(Event::Aggregate(response)) => aggregate = Some(response),
            None => {}
        }
    }
    let wall = pace.elapsed();
    let missing = || Status::internal("the stream ended without an aggregate");
    let aggregate = aggregate.ok_or_else(missing)?;
    let summary = summary(wall, &aggregate);
    view.aggregate(wall, summary.sum, &aggregate)?;
    Ok((summary, aggregate))
}

fn summary(wall: Duration, aggregate: &ExecuteToolsResponse) -> Summary {
    let results = || aggregate.results.iter();
    let durations = results().map(|result| render::length(result.duration));
    let failed = results().filter(|result| matches!(result.outcome, Some(Outcome::Error(_))));
    Summary {
        wall,
        sum: durations.fold(Duration::ZERO, Duration::saturating_add),
        failed: failed.count(),
    }
}

/// The clock of a run, which keeps a live view moving.
struct Pace {
    start: Instant,
    ticks: Interval,
}

impl Pace {
    fn start() -> Self {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        Self {
            start: Instant::now(),
            ticks,
        }
    }

    fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Waits for `future` and redraws the view meanwhile.
    async fn keep<F: Future>(
        &mut self,
        view: &mut View<impl io::Write>,
        future: F,
    ) -> io::Result<F::Output> {
        let mut future = pin!(future);
        loop {
            tokio::select! {
                biased;
                output = &mut future => return Ok(output),
                _ = self.ticks.tick(), if view.is_live() => view.tick(self.elapsed())?,
            }
        }
    }
}
