//! The ledger of the demo tools: what each call met on the tool's side, for
//! tests to compare with what Fanfare reports.
//!
//! It goes to `tracing` with target `fanfare::demo`, at level info. A call is
//! `call started` (`id`, `tool`, `attempt`, and `timeout` if the caller sent
//! a `grpc-timeout`), then either `call answered` (`code`, such as `OK`) or, if
//! the handler was dropped or panicked (`panicked` tells), `call cancelled`.
//! Both ends repeat `id`, `tool` and `attempt` and have `duration`. Only the
//! end of the process leaves a call without an end.

use tokio::time::Instant;
use tonic::{Request, metadata::MetadataMap};

use crate::{
    core::status::Code,
    pb::CallToolRequest,
    transport::grpc_timeout::{self, GRPC_TIMEOUT},
};

/// The ledger has a line for each call, however many there are.
const ALL: Option<&str> = None;

/// One call in the ledger. Dropping it writes how the call ended, so that a
/// handler that is dropped half-way leaves its trace too.
#[derive(Debug)]
pub(super) struct Entry {
    id: String,
    tool: String,
    attempt: u32,
    start: Instant,
    /// What the handler answered; `None` as long as it has not.
    code: Option<Code>,
}

impl Entry {
    /// Writes that the call has started.
    pub(super) fn start(request: &Request<CallToolRequest>) -> Self {
        let timeout = caller_timeout(request.metadata());
        let request = request.get_ref();
        let entry = Self {
            id: request.id.clone(),
            tool: request.name.clone(),
            attempt: request.attempt,
            start: Instant::now(),
            code: None,
        };
        let Self {
            id, tool, attempt, ..
        } = &entry;
        tracing::info!(target: "fanfare::demo", throttle = ALL, id, tool, attempt, timeout, "call started");
        entry
    }

    /// Writes that the call was answered with this code.
    pub(super) fn answered(mut self, code: Code) {
        self.code = Some(code);
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let Self {
            id, tool, attempt, ..
        } = &*self;
        let duration = self.start.elapsed().as_secs_f64();
        if let Some(code) = self.code {
            let code = code.name();
            tracing::info!(
                target: "fanfare::demo", throttle = ALL, id, tool, attempt, code, duration, "call answered"
            );
        } else {
            let panicked = std::thread::panicking();
            tracing::info!(
                target: "fanfare::demo", throttle = ALL, id, tool, attempt, duration, panicked, "call cancelled"
            );
        }
    }
}

/// The caller's timeout in seconds; `None` if it sent none, or a malformed one.
fn caller_timeout(metadata: &MetadataMap) -> Option<f64> {
    let text = metadata.get(GRPC_TIMEOUT.as_str())?.to_str().ok()?;
    Some(grpc_timeout::parse(text).ok()?.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use std::{
        future::Future,
        pin::pin,
        task::{Context, Waker},
    };

    use serde_json::{Value as Json, json};

    use super::*;
    use crate::{
        demo::tools::DemoTools, json, logging::tests::json_lines,
        pb::tool_service_server::ToolService as _,
    };

    /// Polls one call once, drops it, and returns the fields of what it logged.
    fn ledger_of(tool: &str, arguments: &Json) -> Vec<Json> {
        let lines = json_lines(|| {
            let mut request = Request::new(CallToolRequest {
                id: "call_1".to_owned(),
                name: tool.to_owned(),
                arguments: arguments.as_object().map(json::encode_struct),
                attempt: 2,
            });
            let timeout = "2500000u".parse().unwrap();
            request.metadata_mut().insert("grpc-timeout", timeout);
            let tools = DemoTools::new();
            let call = pin!(tools.call_tool(request));
            let _ = call.poll(&mut Context::from_waker(Waker::noop()));
        });
        let fields = lines.into_iter().map(|mut line| {
            let fields = line.as_object_mut().unwrap();
            assert_eq!(fields.remove("target").unwrap(), "fanfare::demo");
            assert!(fields.remove("timestamp").is_some());
            assert!(fields.remove("level").is_some());
            if let Some(elapsed) = fields.get_mut("duration") {
                assert!(elapsed.as_f64().unwrap() >= 0.0);
                *elapsed = Json::Null;
            }
            line
        });
        fields.collect()
    }

    #[test]
    fn every_call_has_a_beginning_and_one_end() {
        let started = |tool| {
            json!({"message": "call started", "id": "call_1", "tool": tool, "attempt": 2,
                "timeout": 2.5})
        };
        let answered = json!({"message": "call answered", "id": "call_1", "tool": "sleep",
            "attempt": 2, "code": "INVALID_ARGUMENT", "duration": null});
        assert_eq!(ledger_of("sleep", &json!({})), [started("sleep"), answered]);
        let cancelled = json!({"message": "call cancelled", "id": "call_1", "tool": "hang",
            "attempt": 2, "duration": null, "panicked": false});
        assert_eq!(ledger_of("hang", &json!({})), [started("hang"), cancelled]);
    }
}
