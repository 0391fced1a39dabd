//! Tools that do what a test says, without a wire.

use std::{
    future::ready,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use fanfare::{
    catalog::Catalog,
    core::{
        call::{Outcome, ToolName},
        error::{CallError, Effect, Reason, ToolStatus},
        fanout::{Invocation, Tool},
        status::Code,
    },
    pb::{self, tool_service_server::ToolService},
};
use futures_util::future::BoxFuture;
use tokio::time::sleep;
use tonic::{Request, Response, Status};

type Behaviour = dyn Fn(Invocation) -> BoxFuture<'static, Outcome> + Send + Sync;

/// A tool that is a function.
pub struct Scripted {
    pub timeout: Duration,
    pub idempotent: bool,
    behaviour: Box<Behaviour>,
}

impl Scripted {
    pub fn new<F, Fut>(behaviour: F) -> Self
    where
        F: Fn(Invocation) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Outcome> + Send + 'static,
    {
        Self {
            timeout: Duration::from_secs(30),
            idempotent: false,
            behaviour: Box::new(move |invocation| Box::pin(behaviour(invocation))),
        }
    }

    /// Answers after `delay` with an empty observation.
    pub fn answers_after(delay: Duration) -> Self {
        Self::new(move |_| async move {
            sleep(delay).await;
            Ok(Bytes::new())
        })
    }

    /// Answers with so many bytes.
    pub fn answers_with(bytes: usize) -> Self {
        Self::new(move |_| async move { Ok(Bytes::from(vec![0; bytes])) })
    }

    /// Fails after `delay` with a status of its own.
    pub fn fails_after(delay: Duration) -> Self {
        Self::new(move |_| async move {
            sleep(delay).await;
            let status = ToolStatus {
                code: Code::Aborted,
                details: Bytes::new(),
            };
            Err(CallError::new(
                Reason::ToolFailed(status),
                Effect::Done,
                false,
                "no",
            ))
        })
    }

    /// Never answers; counts in `running` while it is being waited for.
    pub fn hangs(running: &Running) -> Self {
        let running = running.clone();
        Self::new(move |invocation| {
            let running = running.clone();
            async move {
                let _guard = running.enter();
                invocation.sent();
                std::future::pending().await
            }
        })
    }

    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
}

impl Tool for Scripted {
    fn timeout(&self) -> Duration {
        self.timeout
    }

    fn idempotent(&self) -> bool {
        self.idempotent
    }

    fn call(&self, invocation: Invocation) -> BoxFuture<'static, Outcome> {
        (self.behaviour)(invocation)
    }
}

/// A tool service that is a function from a request to an observation.
#[derive(Clone)]
pub struct ServiceFn<F>(pub F);

#[tonic::async_trait]
impl<F, Fut> ToolService for ServiceFn<F>
where
    F: Fn(Request<pb::CallToolRequest>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Option<Bytes>, Status>> + Send + 'static,
{
    async fn call_tool(
        &self,
        request: Request<pb::CallToolRequest>,
    ) -> Result<Response<pb::CallToolResponse>, Status> {
        let observation = (self.0)(request).await?;
        Ok(Response::new(pb::CallToolResponse { observation }))
    }

    async fn list_tools(
        &self,
        _: Request<pb::ListToolsRequest>,
    ) -> Result<Response<pb::ListToolsResponse>, Status> {
        Err(Status::unimplemented("it describes nothing"))
    }
}

/// A service whose tools observe what they are given, be that what it may.
pub fn echo() -> impl ToolService {
    ServiceFn(|request: Request<pb::CallToolRequest>| ready(Ok(request.into_inner().arguments)))
}

/// How many calls are inside a tool.
#[derive(Clone, Default)]
pub struct Running(Arc<AtomicUsize>);

pub struct Guard(Running);

impl Running {
    pub fn enter(&self) -> Guard {
        self.0.fetch_add(1, Ordering::SeqCst);
        Guard(self.clone())
    }

    pub fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A catalog of these tools.
pub fn catalog(tools: impl IntoIterator<Item = (&'static str, Scripted)>) -> Catalog {
    let mut catalog = Catalog::default();
    for (name, tool) in tools {
        let name = ToolName::try_new(name.to_owned()).expect("a tool name");
        let description = format!("the tool {name}");
        catalog.insert(name, description, Arc::new(tool));
    }
    catalog
}
