//! Calls one tool over gRPC, once.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use prost::Message as _;
use tokio::time::Instant;
use tonic::Code;

use super::{connection::Connection, failure::Fault, grpc, payload};
use crate::{
    call::Outcome,
    config,
    error::{CallError, Effect, Reason},
    fanout::{Invocation, Tool},
    pb,
    telemetry::{
        attempt::{Attempt, Target},
        batch::turn_has_come,
    },
};

/// A tool enforces the `grpc-timeout` that we send it, too, and its answer may
/// overtake our own timer: a tool's CANCELLED or DEADLINE_EXCEEDED with no more
/// than this left is our deadline.
const DEADLINE_TOLERANCE: Duration = Duration::from_millis(25);

/// A tool that a remote tool service runs.
#[derive(Clone, Debug)]
pub struct GrpcTool {
    connection: Arc<Connection>,
    target: Target,
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
            target: Target::new(&connection.method_uri()),
            connection,
            timeout: config.timeout,
            idempotent: config.idempotent,
            max_result_bytes,
        }
    }

    /// One attempt, observed.
    async fn attempt(&self, invocation: &Invocation) -> Result<Bytes, Fault> {
        let mut attempt = Attempt::start(invocation, &self.target);
        let result = self.exchange(invocation, &attempt).await;
        match &result {
            Ok(_) => attempt.end(Code::Ok, String::new),
            Err(fault) => attempt.end(fault.code(), || fault.message(self.max_result_bytes)),
        }
        result
    }

    async fn exchange(
        &self,
        invocation: &Invocation,
        attempt: &Attempt<'_>,
    ) -> Result<Bytes, Fault> {
        let request = || {
            let timeout = invocation.deadline().remaining(Instant::now());
            let uri = self.connection.method_uri();
            let number = invocation.next_attempt();
            grpc::request(uri, timeout, invocation.call(), number, |headers| {
                attempt.inject(headers);
            })
        };
        // The link stays until the reply was read: it counts the call.
        let (_link, response) = self.connection.send(request).await?;
        invocation.sent();
        let reply = response.await.map_err(Fault::Transport)?;
        let message = grpc::read(reply, self.max_result_bytes).await?;
        let response = pb::CallToolResponse::decode(message).map_err(Fault::Garbage)?;
        let observation = response.observation.unwrap_or_default();
        if !payload::is_value(&observation) {
            return Err(Fault::Invalid("its observation is no Value"));
        }
        Ok(without_its_buffer(observation))
    }

    fn call_error(&self, fault: Fault, invocation: &Invocation) -> CallError {
        let late = invocation.deadline().remaining(Instant::now()) <= DEADLINE_TOLERANCE;
        match fault {
            Fault::Tool { status, .. }
                if late
                    && matches!(status.code.into(), Code::Cancelled | Code::DeadlineExceeded) =>
            {
                CallError::new(
                    Reason::DeadlineExceeded(invocation.deadline().limit),
                    Effect::Maybe,
                    self.idempotent,
                    "the tool ran out of time",
                )
            }
            fault => fault.into_call_error(self.idempotent, self.max_result_bytes),
        }
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
            turn_has_come(&invocation);
            let outcome = this.attempt(&invocation).await;
            outcome.map_err(|fault| this.call_error(fault, &invocation))
        })
    }
}

/// An observation is a slice of the connection's read buffer. A small one must
/// not keep that alive until its request is answered.
fn without_its_buffer(observation: Bytes) -> Bytes {
    const SMALL_BYTES: usize = 4096;
    if observation.len() > SMALL_BYTES {
        return observation;
    }
    Bytes::copy_from_slice(&observation)
}
