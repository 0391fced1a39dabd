//! Routes requests to services. The main service is called directly: the router looks
//! up, clones and boxes, which costs as much as the rest of a small request.

use std::{convert::Infallible, fmt, sync::Arc};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body_util::Full;
use tonic::{body::Body, server::NamedService, service::Routes};
use tower::Service;

use crate::orchestrator::Orchestrator;

pub(super) type ResponseFuture = BoxFuture<'static, Result<Response<Body>, Infallible>>;

/// The services of a server.
#[derive(Clone)]
pub(super) struct Services {
    name: &'static str,
    main: Arc<dyn Fn(Request<Full<Bytes>>) -> ResponseFuture + Send + Sync>,
    /// Answers without tonic.
    orchestrator: Option<Arc<Orchestrator>>,
    routes: Routes,
}

impl Services {
    /// A server's main service.
    pub(super) fn new<S>(main: S) -> Self
    where
        S: NamedService + Clone + Send + Sync + 'static,
        S: Service<Request<Full<Bytes>>, Response = Response<Body>, Future = ResponseFuture>,
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
        <S as Service<Request<Body>>>::Future: Send + 'static,
    {
        Self {
            name: S::NAME,
            routes: Routes::new(main.clone()),
            // The generated services are always ready.
            main: Arc::new(move |request| main.clone().call(request)),
            orchestrator: None,
        }
    }

    /// Has `orchestrator` itself answer the RPCs that run calls.
    pub(super) fn answered_by(self, orchestrator: Arc<Orchestrator>) -> Self {
        Self {
            orchestrator: Some(orchestrator),
            ..self
        }
    }

    /// Adds other services.
    pub(super) fn with(self, add: impl FnOnce(Routes) -> Routes) -> Self {
        Self {
            routes: add(self.routes).prepare(),
            ..self
        }
    }

    /// The name of the main service.
    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// The orchestrator, if it answers the RPCs that run calls itself.
    pub(super) fn orchestrator(&self) -> Option<Arc<Orchestrator>> {
        self.orchestrator.clone()
    }

    /// Calls a method with a complete request.
    pub(super) fn call(&self, request: Request<Full<Bytes>>) -> ResponseFuture {
        let path = request.uri().path().strip_prefix('/');
        let method = path.and_then(|path| path.strip_prefix(self.name));
        if method.is_some_and(|method| method.starts_with('/')) {
            return (self.main)(request);
        }
        self.route(request.map(Body::new))
    }

    /// Calls a method through the router.
    pub(super) fn route(&self, request: Request<Body>) -> ResponseFuture {
        Box::pin(self.routes.clone().call(request))
    }
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Services")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
