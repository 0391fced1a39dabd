//! What every RPC passes first: its deadline is set the moment it arrives, and
//! whatever goes wrong inside becomes a proper gRPC status.
//!
//! tonic would ignore a malformed `grpc-timeout`, start the clock only when the
//! request is complete, and turn a panic into a reset stream.

use std::{
    convert::Infallible,
    net::IpAddr,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{FutureExt as _, future::BoxFuture};
use http::{
    HeaderMap, HeaderValue, Request, Response, StatusCode,
    header::{ALLOW, CONTENT_TYPE},
};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};
use tonic::{Code, Status, body::Body, service::Routes};
use tower::Service as _;

use crate::{
    deadline::{Deadline, parse_grpc_timeout},
    drain::Drain,
    logging::correlation::correlate,
    telemetry::{
        Telemetry,
        rpc::{Record, Rpc},
    },
    wire::status::{Violations, draining, internal, no_time_left},
};

/// Health watches and reflection streams end only when their caller ends them;
/// a drain does not wait for that.
const OPEN_ENDED_SERVICES: &str = "/grpc.";

/// The way in to the services.
#[derive(Clone, Debug)]
pub(super) struct Edge {
    routes: Routes,
    max_request_timeout: Duration,
    drain: Drain,
    telemetry: Telemetry,
}

impl Edge {
    pub(super) fn new(routes: Routes, max_request_timeout: Duration, drain: Drain) -> Self {
        Self {
            routes: routes.prepare(),
            max_request_timeout,
            drain,
            telemetry: Telemetry::default(),
        }
    }

    pub(super) fn set_telemetry(&mut self, telemetry: Telemetry) {
        self.telemetry = telemetry;
    }

    async fn serve(self, request: Request<Incoming>, peer: Option<IpAddr>) -> Response<Body> {
        let arrival = Instant::now();
        if let Some(refusal) = refuse_other_protocols(&request) {
            return refusal;
        }
        let rpc = Rpc::start(&self.telemetry, &request, arrival, peer);
        let record = Arc::clone(rpc.record());
        let answer = self.answer(request, arrival, Arc::clone(&record));
        rpc.ends_with(correlate(record.ids(), answer).await)
    }

    async fn answer(
        self,
        mut request: Request<Incoming>,
        arrival: Instant,
        record: Arc<Record>,
    ) -> Response<Body> {
        let timeout = match grpc_timeout(request.headers()) {
            Ok(timeout) => timeout,
            Err(status) => {
                record.reject("invalid");
                return status.into_http();
            }
        };
        let deadline = Deadline::of_request(arrival, timeout, self.max_request_timeout);
        record.set_deadline(deadline);
        if deadline.remaining(arrival).is_zero() {
            record.reject("expired");
            return no_time_left().into_http();
        }
        request.extensions_mut().insert(deadline);
        request.extensions_mut().insert(Arc::clone(&record));
        let open_ended = request.uri().path().starts_with(OPEN_ENDED_SERVICES);

        let (request, answering) = if open_ended {
            let (answering, answered) = oneshot::channel();
            let request = request.map(|inner| Body::new(UntilAnswered { inner, answered }));
            (request, Some(answering))
        } else {
            (request.map(Body::new), None)
        };

        let Self {
            mut routes, drain, ..
        } = self;
        // `Routes` is always ready.
        let call = AssertUnwindSafe(routes.call(request)).catch_unwind();
        let response = match timeout_at(deadline.at, call).await {
            Ok(Ok(Ok(response))) => response,
            Ok(Ok(Err(impossible))) => match impossible {},
            Ok(Err(_panic)) => internal().into_http(),
            // The request's own message did not arrive in time: answers are
            // given earlier, by the reply margin.
            Err(_elapsed) => {
                record.reject("expired");
                no_time_left().into_http()
            }
        };
        let response = with_standard_code(response, &record);
        if open_ended {
            let drained = drain.refusing();
            response.map(|inner| {
                Body::new(UntilDrain {
                    inner,
                    drained,
                    ended: false,
                    _answering: answering,
                })
            })
        } else {
            response
        }
    }
}

/// The way in for the requests of one connection.
#[derive(Clone, Debug)]
pub(super) struct FromPeer {
    pub(super) edge: Edge,
    /// Who is at the other end, if that has an address.
    pub(super) peer: Option<IpAddr>,
}

impl hyper::service::Service<Request<Incoming>> for FromPeer {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        Box::pin(self.edge.clone().serve(request, self.peer).map(Ok))
    }
}

/// gRPC is POST with a content type of its own; HTTP's answers to anything else
/// are the ones that a browser or curl understands
/// (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>).
fn refuse_other_protocols(request: &Request<Incoming>) -> Option<Response<Body>> {
    let is_grpc = request
        .headers()
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    let mut refusal = Response::new(Body::empty());
    if request.method() != http::Method::POST {
        *refusal.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        refusal
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("POST"));
    } else if !is_grpc {
        *refusal.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    } else {
        return None;
    }
    Some(refusal)
}

/// The caller's timeout, if it sent one.
fn grpc_timeout(headers: &HeaderMap) -> Result<Option<Duration>, Status> {
    const NAME: &str = "grpc-timeout";
    let refuse = |problem: String| {
        let mut violations = Violations::default();
        violations.add(NAME, problem);
        Err(violations.into())
    };
    let mut values = headers.get_all(NAME).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return refuse("must be sent once".to_owned());
    }
    let text = String::from_utf8_lossy(value.as_bytes());
    parse_grpc_timeout(&text)
        .map(Some)
        .or_else(|error| refuse(format!("{error}, is {text:?}")))
}

/// tonic answers a message over the size limit with OUT_OF_RANGE; gRPC's code
/// for that is RESOURCE_EXHAUSTED. No service here has a use of its own for the
/// former.
fn with_standard_code(mut response: Response<Body>, record: &Record) -> Response<Body> {
    let too_large = HeaderValue::from(Code::OutOfRange as i32);
    if let Some(code) = response.headers_mut().get_mut(Status::GRPC_STATUS)
        && *code == too_large
    {
        *code = HeaderValue::from(Code::ResourceExhausted as i32);
        record.reject("too_large");
    }
    response
}

/// A response that ends in UNAVAILABLE when the server drains.
struct UntilDrain {
    inner: Body,
    drained: BoxFuture<'static, ()>,
    ended: bool,
    /// Tells by being dropped: see [`UntilAnswered`].
    _answering: Option<oneshot::Sender<()>>,
}

impl http_body::Body for UntilDrain {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        // What is ready goes first: a watcher has to see NOT_SERVING.
        if let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(context) {
            return Poll::Ready(frame);
        }
        ready!(self.drained.as_mut().poll(context));
        self.ended = true;
        let mut trailers = HeaderMap::new();
        Poll::Ready(match draining().add_header(&mut trailers) {
            Ok(()) => Some(Ok(Frame::trailers(trailers))),
            Err(status) => Some(Err(status)),
        })
    }
}

/// A request whose body ends with its response. Reflection reads on, in a task of
/// its own, as long as the caller might ask more; the stream would stay open, and
/// a drain would wait for it.
struct UntilAnswered {
    inner: Incoming,
    answered: oneshot::Receiver<()>,
}

impl http_body::Body for UntilAnswered {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = Pin::new(&mut self.inner).poll_frame(context);
        if frame.is_pending() {
            return self.answered.poll_unpin(context).map(|_| None);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
