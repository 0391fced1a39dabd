//! The RPCs of `ToolService`, by which a Fanfare is the tool service of another one: a call
//! is a batch of one.

use bytes::Bytes;
use prost::Message as _;
use tonic::{
    Request, Response, Status,
    metadata::{MetadataMap, MetadataValue},
};
use tonic_types::pb::{BadRequest, Status as RpcStatus};

use super::{Orchestrator, wire::status::of_call_error, with_context};
use crate::{
    core::error::{CallError, Effect, MAX_TOOL_DETAILS_BYTES},
    pb::{self, tool_service_server::ToolService},
};

/// When the caller's policy may send a call again (gRFC A6).
const PUSHBACK: &str = "grpc-retry-pushback-ms";
const BAD_REQUEST: &str = "type.googleapis.com/google.rpc.BadRequest";

#[tonic::async_trait]
impl ToolService for Orchestrator {
    async fn call_tool(
        &self,
        request: Request<pb::CallToolRequest>,
    ) -> Result<Response<pb::CallToolResponse>, Status> {
        let (request, context) = with_context(request);
        let call = pb::ToolCall {
            id: request.id,
            name: request.name,
            arguments: request.arguments,
            ..pb::ToolCall::default()
        };
        let batch = pb::ExecuteToolsRequest {
            calls: vec![call],
            ..pb::ExecuteToolsRequest::default()
        };
        let (run, unsent) = self.accept(batch, context, false)?;
        let (outcome, reservation) = run.finish_one().await;
        unsent.add(reservation);
        let observation = Some(outcome.map_err(status)?);
        Ok(Response::new(pb::CallToolResponse { observation }))
    }

    async fn list_tools(
        &self,
        request: Request<pb::ListToolsRequest>,
    ) -> Result<Response<pb::ListToolsResponse>, Status> {
        self.list(request).await
    }
}

/// A failed call as the status of its RPC.
fn status(error: CallError) -> Status {
    let pushback = pushback(&error);
    let mut status = of_call_error(error);
    fit(&mut status);
    let mut metadata = MetadataMap::new();
    if let Some(pushback) = pushback {
        metadata.insert(PUSHBACK, pushback);
    }
    let details = Bytes::from(status.encode_to_vec());
    let code = status.code.into();
    Status::with_details_and_metadata(code, status.message, details, metadata)
}

/// A call that may have run was sent as often as the policy of its tool allows, which is
/// known here: with retries on top, each Fanfare of a chain would multiply them, and repeat
/// a call that must not run twice if its own settings say otherwise.
fn pushback(error: &CallError) -> Option<MetadataValue<tonic::metadata::Ascii>> {
    match (error.effect, error.retry_after) {
        (Effect::NotStarted, None) => None,
        (Effect::NotStarted, Some(delay)) => {
            // In whole milliseconds, not too early.
            let millis = delay.as_nanos().div_ceil(1_000_000);
            Some(u32::try_from(millis).unwrap_or(u32::MAX).into())
        }
        (Effect::Maybe | Effect::Done, _) => Some(MetadataValue::from_static("-1")),
    }
}

/// Shortens the details to what a Fanfare passes on, from the end: `ErrorInfo` is first.
fn fit(status: &mut RpcStatus) {
    while status.encoded_len() > MAX_TOOL_DETAILS_BYTES
        && let Some(mut last) = status.details.pop()
    {
        if last.type_url == BAD_REQUEST
            && let Ok(mut violations) = BadRequest::decode(last.value.as_slice())
            && violations.field_violations.len() > 1
        {
            violations.field_violations.pop();
            last.value = violations.encode_to_vec();
            status.details.push(last);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::core::{
        error::{Reason, ToolStatus, Violation},
        status::Code,
    };

    fn details(status: &Status) -> RpcStatus {
        assert!(status.details().len() <= MAX_TOOL_DETAILS_BYTES);
        RpcStatus::decode(status.details()).unwrap()
    }

    #[test]
    fn what_may_have_run_is_not_sent_again_by_the_caller() {
        let sent = |effect, delay| {
            let error = CallError::new(Reason::ToolUnavailable, effect, true, "lost");
            let status = status(error.retry_after(delay));
            let value = status.metadata().get(PUSHBACK).cloned();
            value.map(|value| value.to_str().unwrap().to_owned())
        };
        let delay = Some(Duration::from_micros(1500));
        assert_eq!(sent(Effect::NotStarted, None), None);
        assert_eq!(sent(Effect::NotStarted, delay).as_deref(), Some("2"));
        for effect in [Effect::Maybe, Effect::Done] {
            for delay in [None, delay] {
                assert_eq!(sent(effect, delay).as_deref(), Some("-1"));
            }
        }
    }

    #[test]
    fn details_that_are_too_long_lose_their_end() {
        let field = |index| format!("arguments.f{index}.{}", "g".repeat(60));
        let violation = |index| Violation::new(field(index), "é".repeat(160));
        let many = CallError::invalid_arguments((0..16).map(violation).collect());
        let long = CallError {
            message: "m".repeat(1024),
            ..many
        };
        let kept = details(&status(long));
        assert_eq!(kept.details.len(), 2);
        let violations = BadRequest::decode(kept.details[1].value.as_slice()).unwrap();
        let count = violations.field_violations.len();
        assert!((10..16).contains(&count), "{count}");
        assert_eq!(
            violations.field_violations[count - 1].field,
            field(count - 1)
        );

        let large = prost_types::Any {
            type_url: "type.googleapis.com/x".to_owned(),
            value: vec![7; 3900],
        };
        let of_tool = ToolStatus {
            code: Code::Aborted,
            details: RpcStatus {
                details: vec![large],
                ..RpcStatus::default()
            }
            .encode_to_vec()
            .into(),
        };
        let reason = Reason::ToolFailed(of_tool);
        let error = CallError::new(reason, Effect::Done, false, "m".repeat(500));
        let status = status(error);
        assert_eq!(status.code(), tonic::Code::Aborted);
        let kept = details(&status).details;
        assert_eq!(kept.len(), 1);
        assert!(kept[0].type_url.ends_with("ErrorInfo"));
    }
}
