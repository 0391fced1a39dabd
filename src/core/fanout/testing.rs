//! For the tests of tools: a batch of one call.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::FutureExt as _;
use tokio::time::Instant;

use super::{FanOut, PlannedCall, Surroundings, Tool};
use crate::core::{
    buffered::Buffered,
    call::{Arguments, Batch, FailurePolicy, ToolCall},
    deadline::Deadline,
};

/// One call to `tool`, in a request that may take as long as `limit`.
pub(crate) fn one_call(tool: Arc<dyn Tool>, arguments: Option<Bytes>, limit: Duration) -> FanOut {
    let call = ToolCall {
        id: String::new(),
        name: "tool".to_owned(),
        arguments: arguments.map_or(Arguments::Absent, Arguments::Struct),
        timeout: None,
    };
    let payload = tool.prepare(&call).expect("arguments that the tool takes");
    let batch = Batch {
        calls: [call].into(),
        failure_policy: FailurePolicy::default(),
        concurrency_limit: 1,
    };
    let deadline = Deadline::of_request(Instant::now(), None, limit);
    let planned = PlannedCall {
        deadline: deadline.of_call(None, tool.timeout()),
        tool: Ok(tool),
        payload,
    };
    let surroundings = Surroundings {
        buffered: Buffered::new(1 << 20),
        observer: None,
        stop: std::future::pending().boxed(),
    };
    FanOut::start(batch, vec![planned], surroundings)
}
