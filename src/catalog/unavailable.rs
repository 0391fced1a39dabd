//! A tool that has a name, and can't be called: nothing is known of its method.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::{
    config,
    core::{
        call::{Outcome, ToolCall},
        error::{CallError, Effect, Reason},
        fanout::{Invocation, Tool},
    },
};

/// Fails its calls before any of their request runs.
pub(super) struct Unavailable {
    timeout: Duration,
    idempotent: bool,
    message: String,
}

impl Unavailable {
    /// The tool of `config` is the method `remote`, which its service, if it was `asked`
    /// already, does not have.
    pub(super) fn new(config: &config::Tool, remote: &str, asked: bool) -> Self {
        let service = &config.service;
        Self {
            timeout: config.timeout,
            idempotent: config.idempotent,
            message: match asked {
                true => format!("tool service {service} has no usable method {remote} now"),
                false => format!("tool service {service} could not be asked for its methods yet"),
            },
        }
    }

    fn error(&self) -> CallError {
        CallError::new(
            Reason::ToolUnavailable,
            Effect::NotStarted,
            self.idempotent,
            self.message.as_str(),
        )
    }
}

impl Tool for Unavailable {
    fn timeout(&self) -> Duration {
        self.timeout
    }

    fn idempotent(&self) -> bool {
        self.idempotent
    }

    fn prepare(&self, _: &ToolCall) -> Result<Option<Bytes>, CallError> {
        Err(self.error())
    }

    fn call(&self, _: Invocation) -> BoxFuture<'static, Outcome> {
        let error = self.error();
        Box::pin(async { Err(error) })
    }
}
