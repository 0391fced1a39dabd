//! A yardstick: the orchestrator without features, what anybody would write in an
//! hour. It spawns the calls over one channel and joins them. No deadline, no
//! limits, no partial results: one failed call fails the request.

use std::time::SystemTime;

use bytes::Bytes;
use fanfare::pb::{
    self, orchestrator_service_server::OrchestratorService, stream_execute_tools_response::Event,
    tool_execution_result::Outcome, tool_service_client::ToolServiceClient,
};
use prost::Message;
use prost_types::{Struct, Value};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, transport::Channel};

type Answer<T> = std::result::Result<T, Status>;

pub(crate) struct Orchestrator {
    tools: ToolServiceClient<Channel>,
    /// Whether it does to payloads what generated code does when they are typed.
    pub(crate) decodes: bool,
}

impl Orchestrator {
    pub(crate) fn new(tools: Channel) -> Self {
        let tools = ToolServiceClient::new(tools);
        let decodes = false;
        Self { tools, decodes }
    }

    fn spawn(&self, calls: Vec<pb::ToolCall>) -> JoinSet<Answer<pb::ToolExecutionResult>> {
        let indexed = calls.into_iter().enumerate();
        indexed
            .map(|(index, call)| run(self.tools.clone(), index, call, self.decodes))
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
    decodes: bool,
) -> Answer<pb::ToolExecutionResult> {
    let start = SystemTime::now();
    let request = pb::CallToolRequest {
        id: call.id.clone(),
        name: call.name.clone(),
        arguments: match call.arguments {
            Some(encoded) if decodes => Some(decoded::<Struct>(&encoded)?),
            opaque => opaque,
        },
        attempt: 1,
    };
    let mut reply = tools.call_tool(request).await?.into_inner();
    if let (Some(observation), true) = (&mut reply.observation, decodes) {
        *observation = decoded::<Value>(observation)?;
    }
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

/// Decodes a payload, and encodes it again.
fn decoded<T: Message + Default>(encoded: &[u8]) -> Answer<Bytes> {
    let payload = T::decode(encoded).map_err(|error| Status::internal(error.to_string()))?;
    Ok(payload.encode_to_vec().into())
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
