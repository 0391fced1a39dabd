//! Calls one tool over gRPC, once.

use std::{
    pin::pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::time::Instant;
use tonic::{Code, Status, body::Body};

use super::{
    connection::{Connection, Sender},
    failure::Failure,
    reply::{self, Fault, ReplyBody, Watch},
};
use crate::{
    call::Outcome,
    config,
    error::{CallError, Effect, Reason},
    fanout::{Invocation, Tool},
    pb::{self, tool_service_client::ToolServiceClient},
};

/// A tool enforces the `grpc-timeout` that we send it, too, and its answer may
/// overtake our own timer: a tool's CANCELLED or DEADLINE_EXCEEDED with no more
/// than this left is our deadline.
const DEADLINE_TOLERANCE: Duration = Duration::from_millis(25);

/// A tool that a remote tool service runs.
#[derive(Clone, Debug)]
pub struct GrpcTool {
    connection: Arc<Connection>,
    timeout: Duration,
    idempotent: bool,
    max_result_bytes: usize,
}

impl GrpcTool {
    /// The tool of `config`, at the end of `connection`. Replies longer than
    /// `max_result_bytes` fail their call.
    pub fn new(
        connection: Arc<Connection>,
        config: &config::Tool,
        max_result_bytes: usize,
    ) -> Self {
        Self {
            connection,
            timeout: config.timeout,
            idempotent: config.idempotent,
            max_result_bytes,
        }
    }

    async fn attempt(&self, invocation: &Invocation) -> Result<Outcome, Failure> {
        let service = self.connection.service();
        let sender = self
            .connection
            .sender()
            .await
            .map_err(|reason| Failure::no_connection(service, &reason))?;

        let call = invocation.call();
        let mut request = tonic::Request::new(pb::CallToolRequest {
            id: call.id.clone(),
            name: call.name.as_str().to_owned(),
            arguments: call.arguments.clone(),
            // Not before there is a connection: one that can't be made is no
            // attempt, the tool was not asked.
            attempt: invocation.start_attempt(),
        });
        request.set_timeout(invocation.deadline().remaining(Instant::now()));

        let watch = Watch::default();
        let transport = Transport {
            sender,
            watch: Arc::clone(&watch),
            max_bytes: self.max_result_bytes,
        };
        let mut client =
            ToolServiceClient::with_origin(transport, self.connection.origin().clone())
                // `ReplyBody` enforces the limit: it knows what it saw.
                .max_decoding_message_size(usize::MAX);
        invocation.sent();
        match pin!(client.call_tool(request)).await {
            Ok(response) => Ok(Ok(response.into_inner().observation.unwrap_or_default())),
            Err(status) if self.ran_out_of_time(&status, invocation) => {
                Ok(Err(self.deadline_exceeded(invocation)))
            }
            Err(status) => {
                let seen = reply::take(&watch);
                Err(Failure::of_reply(&status, seen, self.max_result_bytes))
            }
        }
    }

    fn ran_out_of_time(&self, status: &Status, invocation: &Invocation) -> bool {
        matches!(status.code(), Code::Cancelled | Code::DeadlineExceeded)
            && invocation.deadline().remaining(Instant::now()) <= DEADLINE_TOLERANCE
    }

    fn deadline_exceeded(&self, invocation: &Invocation) -> CallError {
        CallError::new(
            Reason::DeadlineExceeded(invocation.deadline().limit),
            Effect::Maybe,
            self.idempotent,
            "the tool ran out of time",
        )
    }
}

impl Tool for GrpcTool {
    fn timeout(&self) -> Duration {
        self.timeout
    }

    fn idempotent(&self) -> bool {
        self.idempotent
    }

    fn call(&self, invocation: Invocation) -> BoxFuture<'static, Outcome> {
        let this = self.clone();
        Box::pin(async move {
            this.attempt(&invocation)
                .await
                .unwrap_or_else(|failure| Err(failure.into_call_error(this.idempotent)))
        })
    }
}

/// What tonic's client sends its one request with.
struct Transport {
    sender: Sender,
    watch: Watch,
    max_bytes: usize,
}

impl tower::Service<http::Request<Body>> for Transport {
    type Response = http::Response<ReplyBody>;
    type Error = Status;
    type Future = BoxFuture<'static, Result<Self::Response, Status>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        // A connection that closed says so when the request is sent.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let reply = self.sender.send_request(request);
        let watch = Arc::clone(&self.watch);
        let max_bytes = self.max_bytes;
        Box::pin(async move {
            match reply.await {
                Ok(reply) => reply::watch_reply(reply, watch, max_bytes),
                Err(error) => Err(reply::fail(&watch, Fault::Transport(error))),
            }
        })
    }
}
