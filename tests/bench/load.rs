//! The load generator: callers in a closed loop, and the check that every call
//! was answered, and rightly. It calls an orchestrator, or, as the yardsticks
//! need it, the tools themselves, as many at once.
//!
//! It warms up, says `ready`, and for each line that it reads runs the load once
//! and prints a line of JSON.

use std::{
    io,
    sync::{Arc, Once},
    time::Duration,
};

use bytes::Bytes;
use clap::ValueEnum;
use fanfare::{
    json::{decode_value, encode_struct},
    pb::{
        self, orchestrator_service_client::OrchestratorServiceClient,
        stream_execute_tools_response::Event, tool_execution_result::Outcome,
        tool_service_client::ToolServiceClient,
    },
};
use futures_util::future::join_all;
use serde_json::json;
use tokio::{task::spawn_blocking, time::Instant};
use tonic::{
    Request, Status,
    metadata::MetadataValue,
    transport::{Channel, Endpoint},
};

use crate::{
    Result,
    tool::{self, CONNECTION_WINDOW_BYTES, STREAM_WINDOW_BYTES},
};

/// What it says when the measured part may begin.
pub(crate) const READY: &str = "ready";
/// The name of a result's field, which is the only line that has it.
pub(crate) const CALLS: &str = "calls";

/// More callers than this warm nothing up that fewer would not.
const WARM_UP_CALLERS: usize = 8;

#[derive(Debug, clap::Args)]
pub(crate) struct Load {
    /// Whom to call; of several, each has its share of the connections
    #[arg(long = "target", required = true)]
    targets: Vec<String>,
    #[arg(long)]
    mode: Mode,
    #[arg(long)]
    fan_out: usize,
    #[arg(long)]
    argument_bytes: usize,
    #[arg(long)]
    callers: usize,
    /// Which the callers share
    #[arg(long)]
    connections: usize,
    #[arg(long)]
    tool_ms: u64,
    #[arg(long)]
    warm_up_ms: u64,
    #[arg(long)]
    measure_ms: u64,
    /// Send a trace context with each request
    #[arg(long)]
    traced: bool,
}

/// How calls are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// In one `ExecuteTools`.
    Unary,
    /// In one `StreamExecuteTools`.
    Stream,
    /// Each in a `CallTool` of its own, all at once.
    Direct,
}

/// What is sent, and what has to come back.
struct Plan {
    mode: Mode,
    traced: bool,
    calls: Vec<pb::ToolCall>,
    observation: Bytes,
    decoded: serde_json::Value,
}

#[derive(Default)]
struct Tally {
    latencies: Vec<Duration>,
    answered: usize,
    lost: usize,
}

impl Load {
    pub(crate) async fn run(self) -> Result<()> {
        let mut channels = Vec::new();
        let connections = self.connections.min(self.callers);
        for target in self.targets.iter().cycle().take(connections) {
            channels.push(endpoint(target)?.connect().await?);
        }
        let warm_up = Duration::from_millis(self.warm_up_ms);
        let callers = self.callers.min(WARM_UP_CALLERS);
        // What is lost while warming up counts as well.
        let mut lost = self.load(&channels, callers, 0, warm_up).await.lost;
        println!("{READY}");

        while spawn_blocking(|| io::stdin().lines().next())
            .await?
            .transpose()?
            .is_some()
        {
            let measure = Duration::from_millis(self.measure_ms);
            let began = Instant::now();
            let mut tally = self
                .load(&channels, self.callers, self.tool_ms, measure)
                .await;
            let seconds = began.elapsed().as_secs_f64();
            tally.latencies.sort_unstable();
            lost += tally.lost;
            println!(
                "{}",
                json!({
                    CALLS: tally.answered,
                    "lost": std::mem::take(&mut lost),
                    "seconds": seconds,
                    "p50_ms": percentile(&tally.latencies, 0.5),
                    "p99_ms": percentile(&tally.latencies, 0.99),
                })
            );
        }
        Ok(())
    }

    /// Sends requests for that long, and waits for the last answers.
    async fn load(
        &self,
        channels: &[Channel],
        callers: usize,
        tool_ms: u64,
        length: Duration,
    ) -> Tally {
        let plan = Arc::new(self.plan(tool_ms));
        let until = Instant::now() + length;
        let running: Vec<_> = (0..callers)
            .map(|caller| {
                let channel = channels[caller % channels.len()].clone();
                tokio::spawn(call_until(until, channel, Arc::clone(&plan)))
            })
            .collect();
        let mut all = Tally::default();
        for caller in running {
            match caller.await {
                Ok(tally) => {
                    all.latencies.extend(tally.latencies);
                    all.answered += tally.answered;
                    all.lost += tally.lost;
                }
                Err(_panicked) => all.lost += self.fan_out,
            }
        }
        all
    }

    fn plan(&self, tool_ms: u64) -> Plan {
        let text = json!({"text": "x".repeat(self.argument_bytes)});
        let arguments = text.as_object().map(encode_struct);
        let observation = tool::observation();
        let calls = (0..self.fan_out).map(|index| pb::ToolCall {
            id: format!("call_{index:019}"),
            name: tool::name(tool_ms),
            arguments: arguments.clone(),
            ..pb::ToolCall::default()
        });
        Plan {
            mode: self.mode,
            traced: self.traced,
            calls: calls.collect(),
            decoded: decode_value(&observation).unwrap_or_default(),
            observation,
        }
    }
}

async fn call_until(until: Instant, channel: Channel, plan: Arc<Plan>) -> Tally {
    let mut tally = Tally::default();
    while Instant::now() < until {
        let began = Instant::now();
        let result = match plan.mode {
            Mode::Unary => plan.unary(channel.clone()).await,
            Mode::Stream => plan.stream(channel.clone()).await,
            Mode::Direct => Ok(plan.direct(&channel).await),
        };
        tally.latencies.push(began.elapsed());
        let answered = result.unwrap_or_else(|status| {
            complain(&status);
            0
        });
        tally.answered += answered;
        tally.lost += plan.calls.len() - answered;
    }
    tally
}

impl Plan {
    fn request(&self) -> Request<pb::ExecuteToolsRequest> {
        let mut request = Request::new(pb::ExecuteToolsRequest {
            calls: self.calls.clone(),
            ..Default::default()
        });
        if self.traced {
            let parent = MetadataValue::from_static(
                "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            );
            request.metadata_mut().insert("traceparent", parent);
        }
        request
    }

    /// How many calls were answered rightly.
    async fn unary(&self, channel: Channel) -> std::result::Result<usize, Status> {
        let mut client = orchestrator(channel);
        let response = client.execute_tools(self.request()).await?.into_inner();
        Ok(self.count_in_order(&response))
    }

    /// How many calls were answered rightly both by a completion and in the
    /// aggregate that ends the stream.
    async fn stream(&self, channel: Channel) -> std::result::Result<usize, Status> {
        let mut client = orchestrator(channel);
        let reply = client.stream_execute_tools(self.request()).await?;
        let mut events = reply.into_inner();
        let mut completed = vec![false; self.calls.len()];
        let mut in_aggregate = 0;
        while let Some(message) = events.message().await? {
            match message.event {
                Some(Event::Completion(result)) if self.is_right(&result) => {
                    let index = result.index as usize;
                    completed[index] = true;
                }
                Some(Event::Aggregate(response)) => in_aggregate = self.count_in_order(&response),
                Some(Event::Completion(_)) | None => {}
            }
        }
        let completed = completed.into_iter().filter(|&completed| completed).count();
        Ok(completed.min(in_aggregate))
    }

    /// How many calls were answered rightly.
    async fn direct(&self, channel: &Channel) -> usize {
        let running = self.calls.iter().map(|call| {
            let mut client = ToolServiceClient::new(channel.clone());
            async move {
                client
                    .call_tool(pb::CallToolRequest {
                        id: call.id.clone(),
                        name: call.name.clone(),
                        arguments: call.arguments.clone(),
                        attempt: 1,
                    })
                    .await
            }
        });
        let is_right =
            |reply: std::result::Result<tonic::Response<pb::CallToolResponse>, Status>| match reply
            {
                Ok(reply) => self.is_the_observation(reply.get_ref().observation.as_ref()),
                Err(status) => {
                    complain(&status);
                    false
                }
            };
        let replies = join_all(running).await;
        replies
            .into_iter()
            .map(is_right)
            .filter(|&right| right)
            .count()
    }

    fn count_in_order(&self, response: &pb::ExecuteToolsResponse) -> usize {
        let indexed = response.results.iter().enumerate();
        indexed
            .filter(|(index, result)| result.index as usize == *index && self.is_right(result))
            .count()
    }

    /// Who decodes and encodes it, as Go does, may change the order of its fields.
    fn is_the_observation(&self, observation: Option<&Bytes>) -> bool {
        observation.is_some_and(|observation| {
            *observation == self.observation
                || decode_value(observation).is_ok_and(|decoded| decoded == self.decoded)
        })
    }

    fn is_right(&self, result: &pb::ToolExecutionResult) -> bool {
        let call = self.calls.get(result.index as usize);
        call.is_some_and(|call| call.id == result.id)
            && match &result.outcome {
                Some(Outcome::Observation(observation)) => {
                    self.is_the_observation(Some(observation))
                }
                Some(Outcome::Error(_)) | None => false,
            }
    }
}

/// Tells why a call was lost, unless that was told before.
fn complain(status: &Status) {
    static TOLD: Once = Once::new();
    TOLD.call_once(|| eprintln!("load: calls are lost: {status}"));
}

fn orchestrator(channel: Channel) -> OrchestratorServiceClient<Channel> {
    OrchestratorServiceClient::new(channel).max_decoding_message_size(usize::MAX)
}

/// tonic's client, with windows that hold what the cases send.
pub(crate) fn endpoint(target: &str) -> Result<Endpoint> {
    Ok(Endpoint::from_shared(target.to_owned())?
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .initial_stream_window_size(STREAM_WINDOW_BYTES))
}

/// Of latencies in ascending order, in milliseconds.
fn percentile(sorted: &[Duration], part: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    let index = (last as f64 * part).round() as usize;
    sorted
        .get(index)
        .map_or(f64::NAN, |latency| latency.as_secs_f64() * 1e3)
}
