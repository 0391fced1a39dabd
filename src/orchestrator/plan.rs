//! What a request comes to before anything is done for it: which tool each call goes to,
//! how long it may take, and which calls can't be made. Planning calls nothing and takes
//! nothing up but the memory for what is made of arguments.

mod payload;

use std::sync::Arc;

use tokio::time::Instant;

use super::wire::{self, Parsed, status::Violations};
use crate::{
    catalog::{Catalog, snapshot::Snapshot},
    core::{
        buffered::Buffered,
        call::{Batch, ToolCall},
        deadline::Deadline,
        error::{CallError, Effect, Reason},
        fanout::PlannedCall,
        suggest::Effort,
    },
    pb,
    telemetry::ToolGauges,
};

/// A request that can be started.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) batch: Batch,
    /// One for each call of the batch.
    pub(crate) calls: Vec<PlannedCall>,
    /// Where each call is counted; `None` if its name is no tool's.
    pub(crate) gauges: Vec<Option<Arc<ToolGauges>>>,
    pub(crate) aggregate_view: pb::AggregateView,
    pub(crate) max_response_bytes: usize,
}

impl Plan {
    /// What `request` comes to `now` in that snapshot, under `deadline`. What is made of
    /// its arguments is held out of `buffered`.
    ///
    /// # Errors
    /// If the request as a whole is wrong: in all these ways. What is wrong with one call
    /// is the error of that call.
    pub(crate) fn new(
        request: pb::ExecuteToolsRequest,
        deadline: Deadline,
        now: Instant,
        Snapshot { limits, catalog }: &Snapshot,
        buffered: &Buffered,
    ) -> Result<Self, Violations> {
        let Parsed {
            batch,
            refused,
            aggregate_view,
        } = wire::parse_request(request, limits)?;
        let deadline = deadline.less_reply_margin(now, limits.reply_margin);
        let mut refused = refused.into_iter().peekable();
        let mut effort = Effort::default();
        let mut calls = Vec::with_capacity(batch.calls.len());
        let mut gauges = Vec::with_capacity(batch.calls.len());
        for (index, call) in batch.calls.iter().enumerate() {
            let (tool, counted) = catalog.get(&call.name).unzip();
            let error = refused.next_if(|(refused, _)| *refused == index);
            let tool = match error {
                Some((_, error)) => Err(error),
                None => tool.ok_or_else(|| unknown_tool(call, catalog, &mut effort)),
            };
            let prepared = tool.and_then(|tool| {
                let payload = payload::prepare(&*tool, call, buffered)?;
                Ok((tool, payload))
            });
            let (tool, payload) = match prepared {
                Ok((tool, payload)) => (Ok(tool), payload),
                Err(error) => (Err(error), None),
            };
            let deadline = match &tool {
                Ok(tool) => deadline.of_call(call.timeout, tool.timeout()),
                Err(_) => deadline,
            };
            calls.push(PlannedCall {
                tool,
                payload,
                deadline,
            });
            gauges.push(counted);
        }
        Ok(Self {
            batch,
            calls,
            gauges,
            aggregate_view,
            max_response_bytes: limits.max_response_bytes,
        })
    }
}

fn unknown_tool(call: &ToolCall, catalog: &Catalog, effort: &mut Effort) -> CallError {
    let mut message = format!("no tool is named {}", call.name);
    let meant = catalog.nearest(&call.name, effort).map(str::to_owned);
    if let Some(meant) = &meant {
        message.push_str(&format!(", did you mean {meant}?"));
    }
    let reason = Reason::UnknownTool(meant);
    CallError::new(reason, Effect::NotStarted, false, message)
}

#[cfg(test)]
mod tests;
