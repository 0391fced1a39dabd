//! A yardstick: the orchestrator without features, what anybody would write in an
//! hour. It spawns the calls over one channel and joins them. No deadline, no
//! limits, no partial results: one failed call fails the request.

use std::time::SystemTime;

use fanfare::pb::{
    self, orchestrator_service_server::OrchestratorService, stream_execute_tools_response::Event,
    tool_execution_result::Outcome, tool_service_client::ToolServiceClient,
};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, transport::Channel};

type Answer<T> = std::result::Result<T, Status>;

pub(crate) struct Orchestrator {
    tools: ToolServiceClient<Channel>,
}

impl Orchestrator {
    pub(crate) fn new(tools: Channel) -> Self {
        let tools = ToolServiceClient::new(tools);
        Self { tools }
    }

    fn spawn(&self, calls: Vec<pb::ToolCall>) -> JoinSet<Answer<pb::ToolExecutionResult>> {
        let indexed = calls.into_iter().enumerate();
        indexed
            .map(|(index, call)| run(self.tools.clone(), index, call))
            .collect()
    }
}

#[tonic::async_trait]
impl OrchestratorService for Orchestrator {
    async fn execute_tools(
        &self,
        request: Request<pb::ExecuteToolsRequest>,
    ) -> Answer<Response<pb::ExecuteToolsResponse>> {
        let start = SystemTime::now();
        let mut running = self.spawn(request.into_inner().calls);
        let mut results = Vec::with_capacity(running.len());
        while let Some(result) = running.join_next().await {
            results.push(joined(result)?);
        }
        Ok(Response::new(response(start, results)))
    }

    type StreamExecuteToolsStream = ReceiverStream<Answer<pb::StreamExecuteToolsResponse>>;

    async fn stream_execute_tools(
        &self,
        request: Request<pb::ExecuteToolsRequest>,
    ) -> Answer<Response<Self::StreamExecuteToolsStream>> {
        let start = SystemTime::now();
        let mut running = self.spawn(request.into_inner().calls);
        let (sender, receiver) = mpsc::channel(running.len() + 1);
        tokio::spawn(async move {
            let mut results = Vec::with_capacity(running.len());
            while let Some(result) = running.join_next().await {
                let event = joined(result).map(|result| {
                    results.push(result.clone());
                    message(Event::Completion(result))
                });
                if sender.send(event).await.is_err() {
                    return;
                }
            }
            let aggregate = message(Event::Aggregate(response(start, results)));
            let _ = sender.send(Ok(aggregate)).await;
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn list_tools(
        &self,
        _: Request<pb::ListToolsRequest>,
    ) -> Answer<Response<pb::ListToolsResponse>> {
        Ok(Response::new(pb::ListToolsResponse::default()))
    }
}

async fn run(
    mut tools: ToolServiceClient<Channel>,
    index: usize,
    call: pb::ToolCall,
) -> Answer<pb::ToolExecutionResult> {
    let start = SystemTime::now();
    let request = pb::CallToolRequest {
        id: call.id.clone(),
        name: call.name.clone(),
        arguments: call.arguments,
        attempt: 1,
    };
    let reply = tools.call_tool(request).await?.into_inner();
    let end = SystemTime::now();
    Ok(pb::ToolExecutionResult {
        index: u32::try_from(index).map_err(|_| Status::internal("too many calls"))?,
        id: call.id,
        name: call.name,
        start_time: Some(start.into()),
        end_time: Some(end.into()),
        duration: duration(start, end),
        attempts: 1,
        outcome: reply.observation.map(Outcome::Observation),
        queue_duration: None,
    })
}

fn joined(
    result: std::result::Result<Answer<pb::ToolExecutionResult>, tokio::task::JoinError>,
) -> Answer<pb::ToolExecutionResult> {
    result.map_err(|error| Status::internal(error.to_string()))?
}

fn response(
    start: SystemTime,
    mut results: Vec<pb::ToolExecutionResult>,
) -> pb::ExecuteToolsResponse {
    let end = SystemTime::now();
    results.sort_by_key(|result| result.index);
    pb::ExecuteToolsResponse {
        results,
        start_time: Some(start.into()),
        end_time: Some(end.into()),
        duration: duration(start, end),
    }
}

fn duration(start: SystemTime, end: SystemTime) -> Option<prost_types::Duration> {
    end.duration_since(start).ok()?.try_into().ok()
}

fn message(event: Event) -> pb::StreamExecuteToolsResponse {
    pb::StreamExecuteToolsResponse { event: Some(event) }
}
