//! What `instructions.rs` counts: requests through the whole service and back in
//! one thread, over in-memory pipes, with a clock that stands still. Caller and
//! tools are in it; the same calls without the orchestrator are there to be
//! subtracted.

mod method;

use std::{future::ready, io, sync::Arc};

use bytes::Bytes;
use fanfare::{
    config::Config,
    json::{encode_struct, encode_value},
    logging::{self, LogFormat},
    net::Connect as _,
    pb::{
        self, orchestrator_service_server::OrchestratorServiceServer,
        stream_execute_tools_response::Event, tool_execution_result::Outcome,
        tool_service_client::ToolServiceClient, tool_service_server::ToolService,
    },
    server::Server,
    telemetry::{Telemetry, settings::Settings},
};
use futures_util::future::join_all;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tonic::{
    Request, Response, Status,
    transport::{Channel, Endpoint},
};

use crate::{
    naive::Orchestrator,
    pipes::{self, PipeConnect},
};

use self::method::Fields;

const TOOL: &str = "tool";

/// Requests that are all alike.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    path: Path,
    fan_out: usize,
    sent: Sent,
}

/// What the arguments are, and what the tool observes.
#[derive(Clone, Copy, Debug)]
enum Sent {
    /// A text of so many bytes; a small object.
    Bytes(usize),
    Fields(Fields),
}

#[derive(Clone, Copy, Debug)]
enum Path {
    Unary,
    Stream,
    /// Unary, with the metrics and the log that a server has by default.
    Telemetry,
    /// No orchestrator: the caller calls the tools, all at once.
    Bare,
    /// The orchestrator without features.
    Naive,
    NaiveStream,
    /// The orchestrator without features, as if its payloads were typed.
    NaiveDecoding,
    /// The tool is a method of any gRPC service.
    Method,
}

const fn case(name: &'static str, path: Path, fan_out: usize, argument_bytes: usize) -> Case {
    Case {
        name,
        path,
        fan_out,
        sent: Sent::Bytes(argument_bytes),
    }
}

const fn fields(name: &'static str, path: Path, fan_out: usize, fields: Fields) -> Case {
    Case {
        name,
        path,
        fan_out,
        sent: Sent::Fields(fields),
    }
}

pub(crate) const CASES: &[Case] = &[
    case("1x100B", Path::Unary, 1, 100),
    case("1x100B-stream", Path::Stream, 1, 100),
    case("1x100B-telemetry", Path::Telemetry, 1, 100),
    case("1x100B-bare", Path::Bare, 1, 100),
    case("1x100B-naive", Path::Naive, 1, 100),
    case("1x100B-naive-stream", Path::NaiveStream, 1, 100),
    case("64x100B", Path::Unary, 64, 100),
    case("64x100B-stream", Path::Stream, 64, 100),
    case("64x100B-bare", Path::Bare, 64, 100),
    case("8x12kB", Path::Unary, 8, 12_000),
    case("8x12kB-bare", Path::Bare, 8, 12_000),
    fields("64x10fields", Path::Unary, 64, Fields::Ten),
    fields("64x10fields-grpc", Path::Method, 64, Fields::Ten),
    fields("64x10fields-bare", Path::Bare, 64, Fields::Ten),
    fields("8x300fields", Path::Unary, 8, Fields::Hundreds),
    fields("8x300fields-grpc", Path::Method, 8, Fields::Hundreds),
    fields(
        "8x300fields-naive",
        Path::NaiveDecoding,
        8,
        Fields::Hundreds,
    ),
];

impl Case {
    /// Sends so many requests, one after the other.
    pub(crate) fn run(&self, requests: usize) -> Result<(), Box<dyn std::error::Error>> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()?;
        let calls = self.calls();
        runtime.block_on(async {
            match self.path {
                Path::Unary => unary(self.fanfare().await, &calls, requests).await?,
                Path::Telemetry => unary(with_telemetry().await?, &calls, requests).await?,
                Path::Stream => stream(self.fanfare().await, &calls, requests).await?,
                Path::Bare => bare(self.tools(), &calls, requests).await?,
                Path::Naive => unary(self.naive(false).await?, &calls, requests).await?,
                Path::NaiveDecoding => unary(self.naive(true).await?, &calls, requests).await?,
                Path::NaiveStream => stream(self.naive(false).await?, &calls, requests).await?,
                Path::Method => unary(method::client().await?, &calls, requests).await?,
            }
            Ok(())
        })
    }

    /// How many calls so many requests have.
    pub(crate) fn calls_of(&self, requests: usize) -> usize {
        self.fan_out * requests
    }

    fn calls(&self) -> Vec<pb::ToolCall> {
        let arguments = match self.sent {
            Sent::Bytes(count) => json!({"text": "x".repeat(count)}),
            Sent::Fields(fields) => fields.json(),
        };
        let arguments = arguments.as_object().map(encode_struct);
        let name = match (self.path, self.sent) {
            (Path::Method, Sent::Fields(fields)) => fields.tool(),
            _ => TOOL,
        };
        let calls = (0..self.fan_out).map(|index| pb::ToolCall {
            id: format!("call_{index:019}"),
            name: name.to_owned(),
            arguments: arguments.clone(),
            ..pb::ToolCall::default()
        });
        calls.collect()
    }

    fn tools(&self) -> Tools {
        match self.sent {
            Sent::Bytes(_) => Tools::new(),
            Sent::Fields(fields) => Tools(fields.observation()),
        }
    }

    async fn fanfare(&self) -> pipes::Client {
        pipes::client_of_service(Config::default(), self.tools(), &[TOOL]).await
    }

    async fn naive(&self, decodes: bool) -> Result<pipes::Client, Status> {
        let mut orchestrator = Orchestrator::new(tools(self.tools()).await?);
        orchestrator.decodes = decodes;
        naive(orchestrator).await
    }
}

struct Tools(Bytes);

impl Tools {
    fn new() -> Self {
        Self(encode_value(&json!({"city": "Bern", "celsius": 21})))
    }
}

#[tonic::async_trait]
impl ToolService for Tools {
    async fn call_tool(
        &self,
        _: Request<pb::CallToolRequest>,
    ) -> Result<Response<pb::CallToolResponse>, Status> {
        let observation = Some(self.0.clone());
        Ok(Response::new(pb::CallToolResponse { observation }))
    }

    async fn list_tools(
        &self,
        _: Request<pb::ListToolsRequest>,
    ) -> Result<Response<pb::ListToolsResponse>, Status> {
        Err(Status::unimplemented("it describes nothing"))
    }
}

fn request(calls: &[pb::ToolCall]) -> pb::ExecuteToolsRequest {
    pb::ExecuteToolsRequest {
        calls: calls.to_vec(),
        ..Default::default()
    }
}

async fn with_telemetry() -> Result<pipes::Client, Status> {
    logging::init(LogFormat::Json, "info", false, io::sink())
        .map_err(|error| Status::internal(error.to_string()))?;
    let settings = Settings::from_env().map_err(|error| Status::internal(error.to_string()))?;
    let (config, catalog) = pipes::service(Config::default(), Tools::new(), &[TOOL]).await;
    let telemetry = Telemetry::start(&settings, 1);
    let server = Server::orchestrator(&config, catalog).await;
    Ok(pipes::client_of(&Arc::new(server.with_telemetry(telemetry))).await)
}

async fn naive(orchestrator: Orchestrator) -> Result<pipes::Client, Status> {
    let (ours, theirs) = tokio::io::duplex(pipes::PIPE_BYTES);
    let serve = tonic::transport::Server::builder()
        .add_service(OrchestratorServiceServer::new(orchestrator))
        .serve_with_incoming(tokio_stream::iter([Ok::<_, io::Error>(theirs)]));
    tokio::spawn(serve);
    let mut ours = Some(TokioIo::new(ours));
    let connector = tower::service_fn(move |_| ready(ours.take().ok_or("there is one pipe")));
    let channel = Endpoint::from_static("http://naive")
        .connect_with_connector(connector)
        .await;
    Ok(pipes::Client::new(channel.map_err(unavailable)?))
}

async fn unary(
    mut client: pipes::Client,
    calls: &[pb::ToolCall],
    requests: usize,
) -> Result<(), Status> {
    for _ in 0..requests {
        let response = client.execute_tools(request(calls)).await?.into_inner();
        let failed = |it: &&pb::ToolExecutionResult| matches!(it.outcome, Some(Outcome::Error(_)));
        if let Some(failed) = response.results.iter().find(failed) {
            return Err(Status::data_loss(format!("{failed:?}")));
        }
        expect(calls.len(), response.results.len())?;
    }
    Ok(())
}

async fn stream(
    mut client: pipes::Client,
    calls: &[pb::ToolCall],
    requests: usize,
) -> Result<(), Status> {
    for _ in 0..requests {
        let reply = client.stream_execute_tools(request(calls)).await?;
        let mut events = reply.into_inner();
        let (mut completions, mut in_aggregate) = (0, 0);
        while let Some(message) = events.message().await? {
            match message.event {
                Some(Event::Completion(_)) => completions += 1,
                Some(Event::Aggregate(response)) => in_aggregate = response.results.len(),
                None => {}
            }
        }
        expect(calls.len(), completions)?;
        expect(calls.len(), in_aggregate)?;
    }
    Ok(())
}

async fn bare(answers: Tools, calls: &[pb::ToolCall], requests: usize) -> Result<(), Status> {
    let client = ToolServiceClient::new(tools(answers).await?);
    for _ in 0..requests {
        let running = calls.iter().map(|call| {
            let mut client = client.clone();
            async move {
                let request = pb::CallToolRequest {
                    id: call.id.clone(),
                    name: call.name.clone(),
                    arguments: call.arguments.clone(),
                    attempt: 1,
                };
                client.call_tool(request).await
            }
        });
        let replies = join_all(running).await;
        expect(calls.len(), replies.iter().flatten().count())?;
    }
    Ok(())
}

/// A channel to the tools.
async fn tools(answers: Tools) -> Result<Channel, Status> {
    let server = Server::tools(&Config::default(), answers).await;
    let pipes = PipeConnect(Arc::new(server));
    let connector = tower::service_fn(move |_| {
        let pipe = pipes.connect();
        async move { pipe.await.map(TokioIo::new) }
    });
    Endpoint::from_static("http://tools")
        .connect_with_connector(connector)
        .await
        .map_err(unavailable)
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn unavailable(error: tonic::transport::Error) -> Status {
    Status::unavailable(error.to_string())
}

/// Instructions of requests that failed are not worth counting.
fn expect(calls: usize, answered: usize) -> Result<(), Status> {
    if answered == calls {
        return Ok(());
    }
    Err(Status::data_loss(format!(
        "{answered} of {calls} calls were answered"
    )))
}
