//! The scenario: three calls of `sleep` in one request, through the public
//! API, as any caller would send them.
//!
//! It needs a Fanfare that serves the demo tools, and starts nothing itself.

use std::io;

use bytes::Bytes;
use serde_json::json;
use tonic::{Status, body::Body, client::GrpcService, codegen::StdError};

use crate::{
    json,
    pb::{
        AggregateView, ExecuteToolsRequest, ToolCall,
        orchestrator_service_client::OrchestratorServiceClient,
    },
    waterfall::{self, Summary, view::View},
};

/// How long the three calls sleep, in seconds.
pub const SECONDS: [f64; 3] = [3.0, 1.0, 2.0];

/// Sends one `StreamExecuteTools` with one call of `sleep` for each of
/// `seconds` (usually [`SECONDS`]), shows on `view` what comes back, and returns
/// once the stream has ended.
///
/// # Errors
/// As [`waterfall::run`].
pub async fn run<T>(
    client: OrchestratorServiceClient<T>,
    seconds: &[f64],
    view: &mut View<impl io::Write>,
) -> Result<Summary, Status>
where
    T: GrpcService<Body>,
    T::Error: Into<StdError>,
    T::ResponseBody: http_body::Body<Data = Bytes> + Send + 'static,
    <T::ResponseBody as http_body::Body>::Error: Into<StdError> + Send,
{
    let (summary, _) = waterfall::run(client, request(seconds), view).await?;
    Ok(summary)
}

fn request(seconds: &[f64]) -> ExecuteToolsRequest {
    let calls = seconds.iter().enumerate().map(|(index, seconds)| {
        let letter = ('a'..='z').nth(index).map(String::from);
        let arguments = json!({"seconds": seconds});
        ToolCall {
            id: format!("call_{}", letter.unwrap_or_else(|| index.to_string())),
            name: "sleep".to_owned(),
            arguments: arguments.as_object().map(json::encode_struct),
            ..ToolCall::default()
        }
    });
    ExecuteToolsRequest {
        calls: calls.collect(),
        aggregate_view: AggregateView::Full.into(),
        ..ExecuteToolsRequest::default()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::{
        FutureExt as _, StreamExt as _,
        stream::{self, BoxStream, FuturesUnordered},
    };
    use tonic::{Request, Response};

    use super::*;
    use crate::{
        pb::{
            ExecuteToolsRequest, ExecuteToolsResponse, ListToolsRequest, ListToolsResponse,
            StreamExecuteToolsResponse, ToolExecutionResult,
            orchestrator_service_server::{OrchestratorService, OrchestratorServiceServer},
            stream_execute_tools_response::Event,
            tool_execution_result::Outcome,
        },
        waterfall::style::Style,
    };

    /// Sleeps instead of calling tools, and answers without an aggregate if told to.
    struct Sleeper {
        aggregate: bool,
    }

    #[tonic::async_trait]
    impl OrchestratorService for Sleeper {
        type StreamExecuteToolsStream =
            BoxStream<'static, Result<StreamExecuteToolsResponse, Status>>;

        async fn execute_tools(
            &self,
            _: Request<ExecuteToolsRequest>,
        ) -> Result<Response<ExecuteToolsResponse>, Status> {
            Err(Status::unimplemented(""))
        }

        async fn stream_execute_tools(
            &self,
            request: Request<ExecuteToolsRequest>,
        ) -> Result<Response<Self::StreamExecuteToolsStream>, Status> {
            let results: Vec<_> = (0..).zip(request.into_inner().calls).map(slept).collect();
            let aggregate = ExecuteToolsResponse {
                results: results.clone(),
                ..ExecuteToolsResponse::default()
            };
            let sleeps = results.into_iter().map(|result| {
                tokio::time::sleep(waterfall::length(result.duration))
                    .map(|()| Event::Completion(result))
            });
            let last = self.aggregate.then_some(Event::Aggregate(aggregate));
            let events = sleeps
                .collect::<FuturesUnordered<_>>()
                .chain(stream::iter(last));
            let messages =
                events.map(|event| Ok(StreamExecuteToolsResponse { event: Some(event) }));
            Ok(Response::new(messages.boxed()))
        }

        async fn list_tools(
            &self,
            _: Request<ListToolsRequest>,
        ) -> Result<Response<ListToolsResponse>, Status> {
            Err(Status::unimplemented(""))
        }
    }

    fn slept((index, call): (u32, ToolCall)) -> ToolExecutionResult {
        let arguments = json::decode_struct(&call.arguments.unwrap()).unwrap();
        let length = Duration::from_secs_f64(arguments["seconds"].as_f64().unwrap());
        ToolExecutionResult {
            index,
            id: call.id,
            name: call.name,
            duration: length.try_into().ok(),
            outcome: Some(Outcome::Observation(Bytes::new())),
            ..ToolExecutionResult::default()
        }
    }

    async fn run_on(sleeper: Sleeper, style: Style) -> (Result<Summary, Status>, String) {
        let client = OrchestratorServiceClient::new(OrchestratorServiceServer::new(sleeper));
        let mut out = Vec::new();
        let summary = run(client, &SECONDS, &mut View::new(&mut out, style)).await;
        (summary, String::from_utf8(out).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn the_scenario_takes_as_long_as_its_slowest_call() {
        let (summary, out) = run_on(Sleeper { aggregate: true }, Style::PIPE).await;
        let expected = Summary {
            wall: Duration::from_secs(3),
            sum: Duration::from_secs(6),
            failed: 0,
        };
        assert_eq!(summary.unwrap(), expected);
        let order = [
            "1.00 s  [1] call_b",
            "2.00 s  [2] call_c",
            "3.00 s  [0] call_a",
        ];
        let places = order.map(|line| out.find(line).unwrap());
        assert!(places.is_sorted(), "{out}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_live_view_is_redrawn_while_the_calls_run() {
        let style = Style {
            live: true,
            color: true,
            width: 80,
        };
        let (_, out) = run_on(Sleeper { aggregate: true }, style).await;
        // Ten times a second for three seconds, and for each completion.
        let redrawn = out.matches("\x1b[3A").count();
        assert!((30..=34).contains(&redrawn), "{redrawn}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_without_an_aggregate_is_an_error() {
        let (summary, _) = run_on(Sleeper { aggregate: false }, Style::PIPE).await;
        assert_eq!(summary.unwrap_err().code(), tonic::Code::Internal);
    }
}
