//! What every RPC passes first: its deadline is set the moment it arrives, and
//! whatever goes wrong inside becomes a proper gRPC status.
//!
//! tonic would ignore a malformed `grpc-timeout`, start the clock only when the
//! request is complete, and turn a panic into a reset stream.

use std::{convert::Infallible, net::IpAddr, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::{FutureExt as _, future::BoxFuture};
use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};
use tonic::{Code, Status, body::Body, service::Routes};
use tower::Service as _;

use super::{
    answer::{Answer, Lingering},
    open_ended::{UntilAnswered, UntilDrain},
    protocol::{grpc_timeout, refuse_long_headers, refuse_other_protocols},
    stream_task::ends_at,
};
use crate::{
    buffered::Buffered,
    config::Config,
    deadline::Deadline,
    drain::Drain,
    logging::correlation::correlate,
    place::Undelivered,
    telemetry::{
        Telemetry,
        rpc::{Ending, Record, Rpc},
    },
    wire::status::{internal, no_time_left},
};

/// Health watches and reflection streams end only when their caller ends them;
/// a drain does not wait for that.
const OPEN_ENDED_SERVICES: &str = "/grpc.";

/// How long after its deadline an answer may still be on its way to its caller.
const HAND_ON_MARGIN: Duration = Duration::from_secs(2);

/// The way in to the services.
#[derive(Clone, Debug)]
pub(super) struct Edge {
    routes: Routes,
    max_header_list_bytes: usize,
    max_request_timeout: Duration,
    drain: Drain,
    /// What requests and answers are held out of.
    buffered: Buffered,
    telemetry: Telemetry,
}

impl Edge {
    pub(super) fn new(routes: Routes, config: &Config, drain: Drain, buffered: Buffered) -> Self {
        Self {
            routes: routes.prepare(),
            max_header_list_bytes: config.server.max_header_list_bytes as usize,
            max_request_timeout: config.limits.max_request_timeout,
            drain,
            buffered,
            telemetry: Telemetry::default(),
        }
    }

    pub(super) fn buffered(&self) -> &Buffered {
        &self.buffered
    }

    pub(super) fn set_telemetry(&mut self, telemetry: Telemetry) {
        self.telemetry = telemetry;
    }

    async fn serve(
        self,
        mut request: Request<Incoming>,
        peer: Option<IpAddr>,
        lingering: Lingering,
    ) -> Response<Ending<Answer>> {
        let arrival = Instant::now();
        let undelivered = Undelivered::default();
        let buffered = self.buffered.clone();
        let held = |response: Response<Body>, undelivered| {
            response.map(|body| Answer::new(body, undelivered, buffered, lingering))
        };
        if let Some(refusal) = refuse_other_protocols(&request) {
            return held(refusal, undelivered).map(Ending::of_none);
        }
        let rpc = Rpc::start(&self.telemetry, &request, arrival, peer);
        let record = Arc::clone(rpc.record());
        request.extensions_mut().insert(undelivered.clone());
        let answer = self.answer(request, arrival, Arc::clone(&record));
        let answer = correlate(record.ids(), answer).await;
        rpc.ends_with(held(answer, undelivered))
    }

    async fn answer(
        self,
        mut request: Request<Incoming>,
        arrival: Instant,
        record: Arc<Record>,
    ) -> Response<Body> {
        if let Err(status) = refuse_long_headers(&request, self.max_header_list_bytes) {
            record.reject("too_large");
            return status.into_http();
        }
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
        if !open_ended {
            ends_at(deadline.at + HAND_ON_MARGIN);
        }
        if open_ended {
            response.map(|inner| Body::new(UntilDrain::new(inner, drain.refusing(), answering)))
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
    pub(super) lingering: Lingering,
}

impl hyper::service::Service<Request<Incoming>> for FromPeer {
    type Response = Response<Ending<Answer>>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let lingering = self.lingering.clone();
        let answer = self.edge.clone().serve(request, self.peer, lingering);
        Box::pin(answer.map(Ok))
    }
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
