//! Which service a request goes to: the one that the server is for, which is called as
//! it is, or one that a router finds. Looking up, cloning and boxing, the router costs
//! as much as a small request does otherwise.

use std::{
    convert::Infallible,
    fmt,
    mem::take,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use tonic::{Status, body::Body, server::NamedService, service::Routes};
use tower::Service;

/// The response of a service.
pub(super) type Responding = BoxFuture<'static, Result<Response<Body>, Infallible>>;

/// The services of a server.
#[derive(Clone)]
pub(super) struct Services {
    name: &'static str,
    own: Arc<dyn Fn(Request<Complete>) -> Responding + Send + Sync>,
    routes: Routes,
}

impl Services {
    /// The service `own` that the server is for.
    pub(super) fn new<S>(own: S) -> Self
    where
        S: NamedService + Clone + Send + Sync + 'static,
        S: Service<Request<Complete>, Response = Response<Body>, Future = Responding>,
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
        <S as Service<Request<Body>>>::Future: Send + 'static,
    {
        Self {
            name: S::NAME,
            routes: Routes::new(own.clone()),
            // The generated services are always ready.
            own: Arc::new(move |request| own.clone().call(request)),
        }
    }

    /// The same with other services.
    pub(super) fn with(self, add: impl FnOnce(Routes) -> Routes) -> Self {
        Self {
            routes: add(self.routes).prepare(),
            ..self
        }
    }

    /// The name of the service that the server is for.
    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// Calls the method of that path with a complete request.
    pub(super) fn call(&self, request: Request<Complete>) -> Responding {
        let path = request.uri().path().strip_prefix('/');
        let method = path.and_then(|path| path.strip_prefix(self.name));
        if method.is_some_and(|method| method.starts_with('/')) {
            return (self.own)(request);
        }
        self.route(request.map(Body::new))
    }

    /// Calls the method of that path, whatever it is.
    pub(super) fn route(&self, request: Request<Body>) -> Responding {
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

/// The body of a complete request: one message, ready to be read.
#[derive(Debug)]
pub(super) struct Complete(pub(super) Bytes);

impl http_body::Body for Complete {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let data = take(&mut self.0);
        Poll::Ready((!data.is_empty()).then(|| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.len() as u64)
    }
}
