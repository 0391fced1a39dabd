//! A tool that a remote service runs. An attempt is made by its protocol; when there is
//! another, and whether there is one at all, the policies decide.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::Notify;

use super::{
    attempt::{Attempt, Call},
    protocol::Protocol,
};
use crate::{
    config,
    core::{
        call::{Outcome, ToolCall},
        error::CallError,
        fanout::{Invocation, Tool},
        status::Code,
    },
    policy::{Failure, Policy, Stage},
};

/// A tool that is called by the protocol `P`, under the policies of its own.
pub(crate) struct RemoteTool<P>(Arc<Inner<P>>);

struct Inner<P> {
    protocol: P,
    policy: Arc<Policy>,
    timeout: Duration,
    idempotent: bool,
    /// Notified if the service no longer knows the tool.
    stale: Option<Arc<Notify>>,
}

impl<P: Protocol> RemoteTool<P> {
    /// The tool of `config`, under its `policy`. Notifies `stale` if its service does not
    /// know it.
    pub(crate) fn new(
        protocol: P,
        policy: Arc<Policy>,
        config: &config::Tool,
        stale: Option<Arc<Notify>>,
    ) -> Self {
        Self(Arc::new(Inner {
            protocol,
            policy,
            timeout: config.timeout,
            idempotent: config.idempotent,
            stale,
        }))
    }
}

impl<P: Protocol> Inner<P> {
    async fn call(&self, invocation: &Invocation) -> Outcome {
        let call = Call::new(invocation, &self.policy);
        let attempt = || async {
            let mut attempt = Attempt::start(&call, self.protocol.target());
            let result = self.protocol.attempt(&mut attempt).await;
            attempt.ended(&result);
            result
        };
        let outcome = self.policy.run(invocation, attempt).await;
        outcome.map_err(|failure| {
            if let Some(stale) = self.stale.as_ref().filter(|_| is_unknown(&failure)) {
                stale.notify_one();
            }
            let may_have_run = invocation.possible_runs() > 0;
            failure.into_call_error(self.idempotent, may_have_run)
        })
    }
}

/// Whether the service says that it has no such tool.
fn is_unknown(failure: &Failure) -> bool {
    failure.stage == Stage::Answered && failure.code == Code::Unimplemented
}

impl<P: Protocol> Tool for RemoteTool<P> {
    fn timeout(&self) -> Duration {
        self.0.timeout
    }

    fn idempotent(&self) -> bool {
        self.0.idempotent
    }

    fn prepare(&self, call: &ToolCall) -> Result<Option<Bytes>, CallError> {
        let prepared = self.0.protocol.prepare(&call.arguments);
        prepared.map_err(CallError::invalid_arguments)
    }

    fn call(&self, invocation: Invocation) -> BoxFuture<'static, Outcome> {
        let this = Arc::clone(&self.0);
        Box::pin(async move { this.call(&invocation).await })
    }
}

#[cfg(test)]
mod tests;
