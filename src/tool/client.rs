//! Calls one tool over gRPC, once.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use h2::client::ResponseFuture;
use prost::Message as _;
use tokio::time::Instant;
use tonic::Code;

use super::{failure::Fault, grpc, payload, upstream::Upstream};
use crate::{
    call::Outcome,
    config,
    error::{CallError, Effect, Reason},
    fanout::{Invocation, Tool},
    pb,
    telemetry::{attempt::Attempt, batch::turn_has_come},
};

/// A tool enforces the `grpc-timeout` that we send it, too, and its answer may
/// overtake our own timer: a tool's CANCELLED or DEADLINE_EXCEEDED with no more
/// than this left is our deadline.
const DEADLINE_TOLERANCE: Duration = Duration::from_millis(25);

/// A tool that a remote tool service runs.
#[derive(Clone, Debug)]
pub struct GrpcTool {
    upstream: Arc<Upstream>,
    timeout: Duration,
    idempotent: bool,
    max_result_bytes: usize,
}

impl GrpcTool {
    /// The tool of `config`, which `upstream` runs. Replies longer than
    /// `max_result_bytes` fail their call.
    pub fn new(upstream: Arc<Upstream>, config: &config::Tool, max_result_bytes: usize) -> Self {
        Self {
            upstream,
            timeout: config.timeout,
            idempotent: config.idempotent,
            max_result_bytes,
        }
    }

    /// One attempt, observed.
    async fn attempt(&self, invocation: &Invocation) -> Result<Bytes, Fault> {
        let mut attempt = Attempt::start(invocation, self.upstream.target());
        let result = self.exchange(invocation, &mut attempt).await;
        match &result {
            Ok(_) => attempt.end(Code::Ok, String::new),
            Err(fault) => attempt.end(fault.code(), || fault.message(self.max_result_bytes)),
        }
        result
    }

    async fn exchange(
        &self,
        invocation: &Invocation,
        attempt: &mut Attempt<'_>,
    ) -> Result<Bytes, Fault> {
        let request = |uri| {
            let timeout = invocation.deadline().remaining(Instant::now());
            let number = invocation.next_attempt();
            grpc::request(uri, timeout, invocation.call(), number, |headers| {
                attempt.inject(headers);
            })
        };
        let (lease, response) = self.upstream.send(None, request).await?;
        invocation.sent();
        let address = lease.address();
        attempt.sent_to(&address.endpoint().target, address.socket());
        let outcome = self.observation(response).await;
        lease.ended(outcome.as_ref().err());
        outcome
    }

    async fn observation(&self, response: ResponseFuture) -> Result<Bytes, Fault> {
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
