//! The methods of the services: how large their requests may be, and whether their
//! streams are long-lived.

use tokio::time::Instant;
use tonic::Status;

use crate::{
    core::{deadline::Deadline, error::Limit},
    orchestrator::{answer::Answer, wire::scan::check_call_count},
};

const ORCHESTRATOR: &str = "fanfare.v1.OrchestratorService";
const TOOLS: &str = "fanfare.v1.ToolService";
/// Requests of health and reflection consist of a name.
pub(super) const MAX_NAME_REQUEST_BYTES: usize = 4 << 10;
/// Enough for a thousand names of tools.
const MAX_LIST_REQUEST_BYTES: usize = 144 << 10;

#[derive(Clone, Copy, Debug)]
pub(super) struct Method {
    pub(super) request: Request,
    /// Only the caller ends the stream.
    pub(super) long_lived: bool,
}

impl Method {
    /// The deadline of a long-lived stream. A health watch has none unless the caller
    /// sets one.
    pub(super) fn stream_deadline(&self, deadline: Deadline) -> Option<Instant> {
        let streaming = matches!(self.request, Request::Streaming);
        (streaming || deadline.limit == Limit::Request).then_some(deadline.at)
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Request {
    Unary {
        max: MaxSize,
        /// If it runs calls.
        runs: Option<Runs>,
    },
    Streaming,
}

/// How many calls a request may have, and how it is answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Runs {
    pub(super) max_calls: usize,
    pub(super) answer: Answer,
}

/// The maximum size of a request, and the setting that it comes from, if any.
#[derive(Clone, Copy, Debug)]
pub(super) struct MaxSize {
    pub(super) bytes: usize,
    pub(super) setting: Option<&'static str>,
}

/// The methods of a server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Methods {
    pub(super) max_request_bytes: usize,
    pub(super) max_calls: usize,
    pub(super) services: ServiceSet,
}

/// The services of a server, which always has health.
#[derive(Clone, Copy, Debug)]
pub(super) struct ServiceSet {
    orchestrator: bool,
    tools: bool,
    reflection: bool,
}

impl ServiceSet {
    /// With the main service of this name. An orchestrator is a tool service, too.
    pub(super) fn new(service: &str, reflection: bool) -> Self {
        Self {
            orchestrator: service == ORCHESTRATOR,
            tools: [ORCHESTRATOR, TOOLS].contains(&service),
            reflection,
        }
    }

    /// The names of those of ours.
    pub(super) fn own(self) -> impl Iterator<Item = &'static str> {
        served([(self.orchestrator, ORCHESTRATOR), (self.tools, TOOLS)])
    }

    /// All names, for error messages.
    pub(super) fn names(self) -> String {
        let others = served([
            (true, "grpc.health.v1.Health"),
            (self.reflection, "grpc.reflection.v1.ServerReflection"),
            (self.reflection, "grpc.reflection.v1alpha.ServerReflection"),
        ]);
        self.own().chain(others).collect::<Vec<_>>().join(", ")
    }
}

fn served<const N: usize>(names: [(bool, &'static str); N]) -> impl Iterator<Item = &'static str> {
    let names = names.into_iter().filter(|(is_served, _)| *is_served);
    names.map(|(_, name)| name)
}

impl Methods {
    /// `None` if there is no method of this path.
    pub(super) fn find(&self, path: &str) -> Option<Method> {
        let unary = |max_bytes: usize, runs| Method {
            request: Request::Unary {
                max: MaxSize {
                    bytes: max_bytes.min(self.max_request_bytes),
                    setting: (self.max_request_bytes <= max_bytes)
                        .then_some("limits.max_request_bytes"),
                },
                runs,
            },
            long_lived: false,
        };
        let running = |answer| {
            let max_calls = self.max_calls;
            unary(usize::MAX, Some(Runs { max_calls, answer }))
        };
        let services = self.services;
        Some(match path {
            "/fanfare.v1.OrchestratorService/ExecuteTools" if services.orchestrator => {
                running(Answer::Once)
            }
            "/fanfare.v1.OrchestratorService/StreamExecuteTools" if services.orchestrator => {
                running(Answer::Stream)
            }
            "/fanfare.v1.OrchestratorService/ListTools" if services.orchestrator => {
                unary(MAX_LIST_REQUEST_BYTES, None)
            }
            "/fanfare.v1.ToolService/CallTool" if services.tools => unary(usize::MAX, None),
            "/fanfare.v1.ToolService/ListTools" if services.tools => {
                unary(MAX_LIST_REQUEST_BYTES, None)
            }
            "/grpc.health.v1.Health/Check" => unary(MAX_NAME_REQUEST_BYTES, None),
            "/grpc.health.v1.Health/Watch" => Method {
                long_lived: true,
                ..unary(MAX_NAME_REQUEST_BYTES, None)
            },
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
            | "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
                if services.reflection =>
            {
                Method {
                    request: Request::Streaming,
                    long_lived: true,
                }
            }
            _ => return None,
        })
    }
}

/// Checks `message` before it is decoded.
pub(super) fn check_message(message: &[u8], runs: Option<Runs>) -> Result<(), Status> {
    if let Some(Runs { max_calls, .. }) = runs {
        check_call_count(message, max_calls)?;
    }
    Ok(())
}
