//! What is known of a method before its request has come: how large the request may
//! be, and whether its answer ends by itself.

use tokio::time::Instant;
use tonic::Status;

use crate::{
    core::{deadline::Deadline, error::Limit},
    orchestrator::wire::scan::check_call_count,
};

const ORCHESTRATOR: &str = "fanfare.v1.OrchestratorService";
const TOOLS: &str = "fanfare.v1.ToolService";
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
        max: MaxSize,
        /// How many calls it may have, of a message that has calls.
        max_calls: Option<usize>,
    },
    /// Messages, as long as the caller has any.
    Stream,
}

/// How large a request may be, and the setting that says so, if one does.
#[derive(Clone, Copy, Debug)]
pub(super) struct MaxSize {
    pub(super) bytes: usize,
    pub(super) setting: Option<&'static str>,
}

/// What bounds requests.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) max_bytes: usize,
    pub(super) max_calls: usize,
    pub(super) served: Served,
}

/// The services that a server has beside health.
#[derive(Clone, Copy, Debug)]
pub(super) struct Served {
    orchestrator: bool,
    tools: bool,
    reflection: bool,
}

impl Served {
    /// Those of a server for the service of that name.
    pub(super) fn of(service: &str, reflection: bool) -> Self {
        Self {
            orchestrator: service == ORCHESTRATOR,
            tools: service == TOOLS,
            reflection,
        }
    }

    /// Their names, for people.
    pub(super) fn names(self) -> String {
        let all = [
            (self.orchestrator, ORCHESTRATOR),
            (self.tools, TOOLS),
            (true, "grpc.health.v1.Health"),
            (self.reflection, "grpc.reflection.v1.ServerReflection"),
            (self.reflection, "grpc.reflection.v1alpha.ServerReflection"),
        ];
        let names = all.iter().filter(|(is_here, _)| *is_here);
        names.map(|(_, name)| *name).collect::<Vec<_>>().join(", ")
    }
}

impl Bounds {
    /// The method of that path; `None` if there is none here.
    pub(super) fn method(&self, path: &str) -> Option<Method> {
        let single = |most: usize, max_calls| Method {
            request: Request::Single {
                max: MaxSize {
                    bytes: most.min(self.max_bytes),
                    setting: (self.max_bytes <= most).then_some("limits.max_request_bytes"),
                },
                max_calls,
            },
            open_ended: false,
        };
        let served = self.served;
        Some(match path {
            "/fanfare.v1.OrchestratorService/ExecuteTools"
            | "/fanfare.v1.OrchestratorService/StreamExecuteTools"
                if served.orchestrator =>
            {
                single(usize::MAX, Some(self.max_calls))
            }
            "/fanfare.v1.OrchestratorService/ListTools" if served.orchestrator => {
                single(MAX_LIST_REQUEST_BYTES, None)
            }
            "/fanfare.v1.ToolService/CallTool" if served.tools => single(usize::MAX, None),
            "/grpc.health.v1.Health/Check" => single(MAX_NAME_REQUEST_BYTES, None),
            "/grpc.health.v1.Health/Watch" => Method {
                open_ended: true,
                ..single(MAX_NAME_REQUEST_BYTES, None)
            },
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
            | "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
                if served.reflection =>
            {
                Method {
                    request: Request::Stream,
                    open_ended: true,
                }
            }
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
