//! What is known of a method before its request has come: how large the request may
//! be, and whether its answer ends by itself.

use tokio::time::Instant;
use tonic::Status;

use crate::{deadline::Deadline, error::Limit, wire::scan::check_call_count};

/// Requests of health and of reflection are a name.
pub(super) const MAX_NAME_REQUEST_BYTES: usize = 4 << 10;
/// A filter over the tools.
const MAX_LIST_REQUEST_BYTES: usize = 64 << 10;

/// A method of one of the services here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Method {
    pub(super) request: Request,
    /// Its answer ends only when its caller ends it.
    pub(super) open_ended: bool,
}

impl Method {
    /// When its open-ended answer ends, if not with its connection: when the caller said,
    /// and a conversation also as late as any request. A health watch lasts.
    pub(super) fn ends_at(&self, deadline: Deadline) -> Option<Instant> {
        let conversation = matches!(self.request, Request::Stream);
        (conversation || deadline.limit == Limit::Request).then_some(deadline.at)
    }
}

/// What a request is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Request {
    /// One message.
    Single {
        max_bytes: usize,
        /// How many calls it may have, of a message that has calls.
        max_calls: Option<usize>,
    },
    /// Messages, as long as the caller has any.
    Stream,
}

/// What bounds requests.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) max_bytes: usize,
    pub(super) max_calls: usize,
}

impl Bounds {
    /// The method of that path; `None` if there is none.
    pub(super) fn method(&self, path: &str) -> Option<Method> {
        let single = |max_bytes, max_calls| Method {
            request: Request::Single {
                max_bytes,
                max_calls,
            },
            open_ended: false,
        };
        Some(match path {
            "/fanfare.v1.OrchestratorService/ExecuteTools"
            | "/fanfare.v1.OrchestratorService/StreamExecuteTools" => {
                single(self.max_bytes, Some(self.max_calls))
            }
            "/fanfare.v1.OrchestratorService/ListTools" => {
                single(self.max_bytes.min(MAX_LIST_REQUEST_BYTES), None)
            }
            "/fanfare.v1.ToolService/CallTool" => single(self.max_bytes, None),
            "/grpc.health.v1.Health/Check" => single(MAX_NAME_REQUEST_BYTES, None),
            "/grpc.health.v1.Health/Watch" => Method {
                open_ended: true,
                ..single(MAX_NAME_REQUEST_BYTES, None)
            },
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
            | "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo" => Method {
                request: Request::Stream,
                open_ended: true,
            },
            _ => return None,
        })
    }
}

/// Checks what must be checked before `message` is decoded.
pub(super) fn check_message(message: &[u8], max_calls: Option<usize>) -> Result<(), Status> {
    if let Some(max_calls) = max_calls {
        check_call_count(message, max_calls)?;
    }
    Ok(())
}
