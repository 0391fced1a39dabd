//! Calls one tool over gRPC. An attempt is made here; when there is another, and
//! whether there is one at all, `policy.rs` decides.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use prost::Message as _;
use tokio::time::Instant;
use tonic::Code;

use super::{
    connection::Connection,
    failure::Fault,
    grpc, payload,
    policy::{Guard, Policy},
};
use crate::{
    call::Outcome,
    config,
    fanout::{Invocation, Tool},
    pb,
    telemetry::attempt::{Attempt, Target},
};

/// A tool enforces the `grpc-timeout` that we send it, too, and its answer may
/// overtake our own timer: a tool's CANCELLED or DEADLINE_EXCEEDED with no more
/// than this left is our deadline.
const DEADLINE_TOLERANCE: Duration = Duration::from_millis(25);

/// A tool that a remote tool service runs.
#[derive(Clone, Debug)]
pub struct GrpcTool(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    connection: Arc<Connection>,
    policy: Policy,
    target: Target,
    timeout: Duration,
    idempotent: bool,
    max_result_bytes: usize,
}

impl GrpcTool {
    /// The tool of `config`, at the end of `connection`, which has this `guard`.
    /// Replies longer than `max_result_bytes` fail their call.
    pub fn new(
        connection: Arc<Connection>,
        guard: Arc<Guard>,
        config: &config::Tool,
        max_result_bytes: usize,
    ) -> Self {
        Self(Arc::new(Inner {
            target: Target::new(&connection.method_uri()),
            connection,
            policy: Policy::new(guard, config),
            timeout: config.timeout,
            idempotent: config.idempotent,
            max_result_bytes,
        }))
    }
}

impl Inner {
    /// One attempt, observed.
    async fn attempt(&self, invocation: &Invocation) -> Result<Bytes, Fault> {
        let mut attempt = Attempt::start(invocation, &self.target);
        let result = self
            .exchange(invocation, &attempt)
            .await
            .map_err(|fault| if_late(fault, invocation));
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
}

/// What the tool says when its time is up is what our timer says.
fn if_late(fault: Fault, invocation: &Invocation) -> Fault {
    let deadline = invocation.deadline();
    match &fault {
        Fault::Tool { status, .. }
            if matches!(status.code.into(), Code::Cancelled | Code::DeadlineExceeded)
                && deadline.remaining(Instant::now()) <= DEADLINE_TOLERANCE =>
        {
            let limit = deadline.limit;
            Fault::OutOfTime { limit }
        }
        _ => fault,
    }
}

impl Tool for GrpcTool {
    fn timeout(&self) -> Duration {
        self.0.timeout
    }

    fn idempotent(&self) -> bool {
        self.0.idempotent
    }

    fn call(&self, invocation: Invocation) -> BoxFuture<'static, Outcome> {
        let this = Arc::clone(&self.0);
        Box::pin(async move {
            let attempt = || this.attempt(&invocation);
            let outcome = this.policy.run(&invocation, attempt).await;
            outcome.map_err(|fault| {
                let may_have_run = invocation.possible_runs() > 0;
                fault.into_call_error(this.idempotent, may_have_run, this.max_result_bytes)
            })
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
