//! A tool that a remote service runs. An attempt is made by its protocol; when there is
//! another, and whether there is one at all, the policies decide.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::BoxFuture;

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
    },
    policy::{Breakers, Policy},
};

/// A tool that is called by the protocol `P`, under the policies of its own.
pub(crate) struct RemoteTool<P>(Arc<Inner<P>>);

struct Inner<P> {
    protocol: P,
    policy: Policy,
    timeout: Duration,
    idempotent: bool,
}

impl<P: Protocol> RemoteTool<P> {
    /// The tool of `config`, behind its `breakers`.
    pub(crate) fn new(protocol: P, breakers: Arc<Breakers>, config: &config::Tool) -> Self {
        Self(Arc::new(Inner {
            protocol,
            policy: Policy::new(breakers, config),
            timeout: config.timeout,
            idempotent: config.idempotent,
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
            let may_have_run = invocation.possible_runs() > 0;
            failure.into_call_error(self.idempotent, may_have_run)
        })
    }
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
