//! What every RPC passes first: its deadline is set the moment it arrives, its request
//! is received, and whatever goes wrong inside becomes a proper gRPC status.
//!
//! tonic would ignore a malformed `grpc-timeout`, start the clock only when the
//! request is complete, and turn a panic into a reset stream.

use std::{
    convert::Infallible, future::ready, net::IpAddr, panic::AssertUnwindSafe, sync::Arc,
    time::Duration,
};

use futures_util::{FutureExt as _, future::BoxFuture};
use http::{HeaderName, HeaderValue, Request, Response, request::Parts};
use hyper::body::Incoming;
use opentelemetry::context::FutureExt as _;
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout_at},
};
use tonic::{Code, Status, body::Body};

use super::{
    answer::{Answer, Lingering},
    arriving::Arriving,
    leftover::{Inbound, Leftovers},
    methods::{self, Bounds, Method, Served, check_message},
    open_ended::{OpenEnded, UntilAnswered},
    parting::Work,
    protocol::{self, refuse_long_headers, refuse_other_protocols},
    receive::{ENCODING, Rejection, Until, receive},
    services::{Responding, Services},
    stream_task::ends_at,
};
use crate::{
    config::Config,
    core::{
        buffered::Buffered,
        deadline::Deadline,
        drain::{Drain, DrainController, drain},
        reservation::{InProgress, Undelivered},
    },
    orchestrator::{
        RequestContext,
        wire::status::{
            ACCEPTED_ENCODINGS, answer_is_late, internal, malformed, no_such_method, no_time_left,
        },
    },
    telemetry::{
        Telemetry,
        rpc::{Ending, Record, Rpc},
    },
};

const ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");

/// Open-ended streams that a connection may have at a time: a client has one health
/// watch on a connection, and a tool that explores an API one or two of reflection.
const MAX_OPEN_ENDED: usize = 8;

/// How long after its deadline an answer may still be on its way to its caller.
const HAND_ON_MARGIN: Duration = Duration::from_secs(2);

/// The way in to the services.
#[derive(Clone, Debug)]
pub(super) struct Edge {
    services: Services,
    max_header_list_bytes: usize,
    bounds: Bounds,
    receive_timeout: Duration,
    max_request_timeout: Duration,
    /// What requests and answers are held out of.
    buffered: Buffered,
    arriving: Arriving,
    leftovers: Leftovers,
    telemetry: Telemetry,
}

impl Edge {
    pub(super) fn new(services: Services, config: &Config, buffered: Buffered) -> Self {
        let bounds = Bounds {
            max_bytes: config.limits.max_request_bytes,
            max_calls: config.limits.max_calls_per_request,
            served: Served::of(services.name(), config.server.reflection),
        };
        Self {
            services,
            max_header_list_bytes: config.server.max_header_list_bytes as usize,
            bounds,
            receive_timeout: config.server.receive_timeout,
            max_request_timeout: config.limits.max_request_timeout,
            arriving: Arriving::new(buffered.clone(), bounds.max_bytes),
            leftovers: Leftovers::new(bounds.max_bytes),
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

    /// The way in for the requests of one connection, from `peer`, if it has an
    /// address; and what ends its open-ended streams.
    pub(super) fn for_connection(&self, peer: Option<IpAddr>) -> (FromPeer, DrainController) {
        let (controller, ending) = drain();
        let mut edge = self.clone();
        edge.arriving = self.arriving.on_another_connection();
        let from = Connection {
            edge,
            peer,
            ending,
            open_ended: Arc::new(Semaphore::new(MAX_OPEN_ENDED)),
            lingering: Lingering::default(),
            running: Arc::default(),
        };
        (FromPeer(Arc::new(from)), controller)
    }
}

/// The way in for the requests of one connection.
#[derive(Clone, Debug)]
pub(super) struct FromPeer(Arc<Connection>);

#[derive(Debug)]
pub(super) struct Connection {
    edge: Edge,
    peer: Option<IpAddr>,
    /// Of this connection: by age, or with the process.
    ending: Drain,
    open_ended: Arc<Semaphore>,
    lingering: Lingering,
    /// See [`Work`].
    running: Arc<()>,
}

impl FromPeer {
    /// What is under way on the connection.
    pub(super) fn work(&self) -> Work {
        Work {
            running: Arc::downgrade(&self.0.running),
            requests: Arc::downgrade(&self.0),
            answers: self.0.lingering.clone(),
        }
    }
}

impl hyper::service::Service<Request<Incoming>> for FromPeer {
    type Response = Response<Ending<Answer>>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let arrival = Instant::now();
        let connection = Arc::clone(&self.0);
        let edge = &connection.edge;
        let (head, body) = request.into_parts();
        let body = Inbound::new(body, edge.leftovers.clone());
        let undelivered = Undelivered::default();
        if let Some(refusal) = refuse_other_protocols(&head) {
            let response = connection.hold(refusal, undelivered);
            return Box::pin(ready(Ok(response.map(Ending::of_none))));
        }
        let rpc = Rpc::start(&edge.telemetry, &head, arrival, connection.peer);
        let record = Arc::clone(rpc.record());
        let answer = answer(
            Arc::clone(&connection),
            (head, body),
            arrival,
            (record, undelivered.clone()),
        );
        let answer = answer.with_context(rpc.record().context().clone());
        Box::pin(answer.map(move |answer| {
            let mut response = answer.unwrap_or_else(|Rejection { status, reason }| {
                if let Some(reason) = reason {
                    rpc.record().reject(reason);
                }
                status.into_http()
            });
            let encodings = HeaderValue::from_static(ACCEPTED_ENCODINGS);
            response.headers_mut().insert(ACCEPT_ENCODING, encodings);
            Ok(rpc.ends_with(connection.hold(response, undelivered)))
        }))
    }
}

/// Not an `async fn`: that has its arguments twice
/// (<https://github.com/rust-lang/rust/issues/62958>), and they are most of it.
#[expect(clippy::manual_async_fn, reason = "see above")]
fn answer(
    connection: Arc<Connection>,
    (mut head, mut body): (Parts, Inbound),
    arrival: Instant,
    (record, undelivered): (Arc<Record>, Undelivered),
) -> impl Future<Output = Result<Response<Body>, Rejection>> + Send {
    async move {
        let edge = &connection.edge;
        refuse_long_headers(&head, edge.max_header_list_bytes)
            .map_err(|status| Rejection::new("too_large", status))?;
        let timeout =
            protocol::timeout(&head.headers).map_err(|status| Rejection::new("invalid", status))?;
        let deadline = Deadline::of_request(arrival, timeout, edge.max_request_timeout);
        record.set_deadline(deadline);
        if deadline.remaining(arrival).is_zero() {
            return Err(Rejection::new("expired", no_time_left()));
        }
        let Some(method) = edge.bounds.method(head.uri.path()) else {
            let status = no_such_method(head.uri.path(), &edge.bounds.served.names());
            let reason = None;
            return Err(Rejection { status, reason });
        };
        let mut open_ended = method
            .open_ended
            .then(|| connection.open_stream(deadline, method))
            .transpose()?;
        let mut in_progress = None;
        let response = match method.request {
            methods::Request::Single { max, max_calls } => {
                let until = Until {
                    arrival,
                    timeout: edge.receive_timeout,
                    deadline: deadline.at,
                };
                let arriving = &edge.arriving;
                let received = receive(&mut body, &head.headers, max, arriving, until).await?;
                drop(body);
                check_message(received.message(), max_calls)
                    .map_err(|status| Rejection::new("invalid", status))?;
                // It is inflated already.
                head.headers.remove(ENCODING);
                let running = Arc::clone(&connection.running);
                let held = InProgress::new(received.held, running);
                in_progress = Some(held.clone());
                head.extensions.insert(RequestContext {
                    record: Arc::clone(&record),
                    deadline,
                    received: held,
                    undelivered,
                });
                edge.services.call(Request::from_parts(head, received.body))
            }
            methods::Request::Stream => {
                let body = match &mut open_ended {
                    Some(stream) => Body::new(UntilAnswered::new(body, stream)),
                    None => Body::new(body),
                };
                edge.services.route(Request::from_parts(head, body))
            }
        };
        let response = call(response, deadline, &record).await;
        drop(in_progress);
        Ok(match open_ended {
            Some(stream) => stream.of(response),
            None => {
                ends_at(deadline.at + HAND_ON_MARGIN);
                response
            }
        })
    }
}

async fn call(response: Responding, deadline: Deadline, record: &Record) -> Response<Body> {
    let response = AssertUnwindSafe(response).catch_unwind();
    let response = match timeout_at(deadline.at, response).await {
        Ok(Ok(Ok(response))) => response,
        Ok(Ok(Err(impossible))) => match impossible {},
        Ok(Err(_panic)) => internal().into_http(),
        // Answers are given earlier, by the reply margin.
        Err(_elapsed) => {
            record.reject("expired");
            answer_is_late().into_http()
        }
    };
    with_standard_code(response, record)
}

impl Connection {
    /// The response with what its body holds.
    fn hold(&self, response: Response<Body>, undelivered: Undelivered) -> Response<Answer> {
        let buffered = self.edge.buffered.clone();
        let lingering = self.lingering.clone();
        response.map(|body| Answer::new(body, undelivered, buffered, lingering))
    }

    /// A place for one more open-ended stream.
    fn open_stream(&self, deadline: Deadline, method: Method) -> Result<OpenEnded, Rejection> {
        let held = self.edge.buffered.try_hold(OpenEnded::BYTES);
        let held = held.ok_or_else(Rejection::overloaded)?;
        let place = Arc::clone(&self.open_ended).try_acquire_owned();
        let place = place.map_err(|_| Rejection::too_many_streams(MAX_OPEN_ENDED))?;
        let deadline = method.ends_at(deadline);
        Ok(OpenEnded::new(
            self.ending.refusing(),
            deadline,
            (place, held),
        ))
    }
}

/// Answers of tonic's that blame the wrong side, and rejections that nobody counted. A
/// message over the size limit gets OUT_OF_RANGE, of which no service here has a use of
/// its own; gRPC's code for that is RESOURCE_EXHAUSTED. A message that can't be decoded
/// gets INTERNAL from services with tonic's codec.
fn with_standard_code(mut response: Response<Body>, record: &Record) -> Response<Body> {
    const MALFORMED: &str = "the request is malformed: ";
    const NOT_DECODED: &str = "failed to decode Protobuf message: ";
    let is = |code: &HeaderValue, expected: Code| *code == HeaderValue::from(expected as i32);
    let Some(code) = response.headers_mut().get_mut(Status::GRPC_STATUS) else {
        return response;
    };
    if is(code, Code::OutOfRange) {
        *code = HeaderValue::from(Code::ResourceExhausted as i32);
        record.reject("too_large");
    } else if is(code, Code::Internal) || is(code, Code::InvalidArgument) {
        let status = Status::from_header_map(response.headers());
        let message = status.as_ref().map_or("", Status::message);
        let how = message.strip_prefix(MALFORMED).unwrap_or(message);
        if how.starts_with(NOT_DECODED) {
            record.reject("invalid");
            return malformed(how).into_http();
        }
    }
    response
}
