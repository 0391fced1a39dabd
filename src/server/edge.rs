//! The entry of every RPC: sets its deadline on arrival, receives its request, calls
//! its service, and turns whatever goes wrong into a gRPC status.
//!
//! tonic would ignore a malformed `grpc-timeout`, start the clock only when the
//! request is complete, and turn a panic into a reset stream.

use std::{
    convert::Infallible,
    future::ready,
    net::IpAddr,
    panic::AssertUnwindSafe,
    sync::{Arc, Weak},
    time::Duration,
};

use bytes::Buf as _;
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
    activity::Activity,
    long_lived::LongLived,
    methods::{self, Method, Methods, Runs, ServiceSet, check_message},
    protocol::{self, check_header_size, refuse_other_protocols},
    receive::{ENCODING, PREFIX_BYTES, ReceiveDeadline, Rejection, receive},
    receive_budget::ReceiveBudget,
    request_body::{BodyDrain, RequestBody},
    response_body::{FinishedBacklog, ResponseBody},
    services::{ResponseFuture, Services},
    stream_task::set_send_deadline,
};
use crate::{
    config::Config,
    core::{
        buffered::Buffered,
        deadline::Deadline,
        drain::{Drain, DrainController, drain},
        reservation::{RunningRequest, UnsentReservation},
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

/// Long-lived streams per connection: a client has one health watch on it, and an API
/// explorer one or two streams of reflection.
const MAX_LONG_LIVED: usize = 8;

/// How long after the deadline a response may still be sent.
const SEND_MARGIN: Duration = Duration::from_secs(2);

/// The entry to the services.
#[derive(Clone, Debug)]
pub(super) struct Edge {
    services: Services,
    max_header_list_bytes: usize,
    methods: Methods,
    receive_timeout: Duration,
    max_request_timeout: Duration,
    /// The memory budget of requests and responses.
    buffered: Buffered,
    receive_budget: ReceiveBudget,
    body_drain: BodyDrain,
    telemetry: Telemetry,
}

impl Edge {
    pub(super) fn new(
        services: Services,
        set: ServiceSet,
        config: &Config,
        buffered: Buffered,
    ) -> Self {
        let max_request_bytes = config.limits.max_request_bytes;
        let methods = Methods {
            max_request_bytes,
            max_calls: config.limits.max_calls_per_request,
            services: set,
        };
        Self {
            services,
            max_header_list_bytes: config.server.max_header_list_bytes as usize,
            methods,
            receive_timeout: config.server.receive_timeout,
            max_request_timeout: config.limits.max_request_timeout,
            receive_budget: ReceiveBudget::new(buffered.clone(), max_request_bytes),
            body_drain: BodyDrain::new(max_request_bytes),
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

    /// The entry of one connection, from `peer` if it has an address; and what ends its
    /// long-lived streams.
    pub(super) fn for_connection(
        &self,
        peer: Option<IpAddr>,
    ) -> (ConnectionService, DrainController) {
        let (controller, ending) = drain();
        let mut edge = self.clone();
        edge.receive_budget = self.receive_budget.for_connection();
        let connection = Connection {
            edge,
            peer,
            ending,
            long_lived: Arc::new(Semaphore::new(MAX_LONG_LIVED)),
            backlog: FinishedBacklog::default(),
            running: Arc::default(),
        };
        (ConnectionService(Arc::new(connection)), controller)
    }
}

/// Serves the requests of one connection.
#[derive(Clone, Debug)]
pub(super) struct ConnectionService(Arc<Connection>);

#[derive(Debug)]
struct Connection {
    edge: Edge,
    peer: Option<IpAddr>,
    /// Of this connection: by age, or with the process.
    ending: Drain,
    long_lived: Arc<Semaphore>,
    backlog: FinishedBacklog,
    /// See [`Activity`].
    running: Arc<()>,
}

impl ConnectionService {
    pub(super) fn activity(&self) -> Activity {
        let connection: Weak<Connection> = Arc::downgrade(&self.0);
        Activity {
            running: Arc::downgrade(&self.0.running),
            requests: connection,
            responses: self.0.backlog.clone(),
        }
    }
}

impl hyper::service::Service<Request<Incoming>> for ConnectionService {
    type Response = Response<Ending<ResponseBody>>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let arrival = Instant::now();
        let connection = Arc::clone(&self.0);
        let edge = &connection.edge;
        let (head, body) = request.into_parts();
        let body = RequestBody::new(body, edge.body_drain.clone());
        let unsent = UnsentReservation::default();
        if let Some(refusal) = refuse_other_protocols(&head) {
            let response = connection.hold(refusal, unsent);
            return Box::pin(ready(Ok(response.map(Ending::of_none))));
        }
        let rpc = Rpc::start(&edge.telemetry, &head, arrival, connection.peer);
        let record = Arc::clone(rpc.record());
        let response = serve(
            Arc::clone(&connection),
            (head, body),
            arrival,
            (record, unsent.clone()),
        );
        let response = response.with_context(rpc.record().context().clone());
        Box::pin(response.map(move |response| {
            let mut response = response.unwrap_or_else(|Rejection { status, reason }| {
                if let Some(reason) = reason {
                    rpc.record().reject(reason);
                }
                status.into_http()
            });
            let encodings = HeaderValue::from_static(ACCEPTED_ENCODINGS);
            response.headers_mut().insert(ACCEPT_ENCODING, encodings);
            Ok(rpc.ends_with(connection.hold(response, unsent)))
        }))
    }
}

/// Not an `async fn`: its future would hold the arguments, the largest part of it, twice
/// (<https://github.com/rust-lang/rust/issues/62958>).
#[expect(clippy::manual_async_fn, reason = "see above")]
fn serve(
    connection: Arc<Connection>,
    (mut head, mut body): (Parts, RequestBody),
    arrival: Instant,
    (record, unsent): (Arc<Record>, UnsentReservation),
) -> impl Future<Output = Result<Response<Body>, Rejection>> + Send {
    async move {
        let edge = &connection.edge;
        check_header_size(&head, edge.max_header_list_bytes)
            .map_err(|status| Rejection::new("too_large", status))?;
        let timeout =
            protocol::timeout(&head.headers).map_err(|status| Rejection::new("invalid", status))?;
        let deadline = Deadline::of_request(arrival, timeout, edge.max_request_timeout);
        record.set_deadline(deadline);
        if deadline.remaining(arrival).is_zero() {
            return Err(Rejection::new("expired", no_time_left()));
        }
        let Some(method) = edge.methods.find(head.uri.path()) else {
            let status = no_such_method(head.uri.path(), &edge.methods.services.names());
            let reason = None;
            return Err(Rejection { status, reason });
        };
        let mut long_lived = method
            .long_lived
            .then(|| connection.open_stream(deadline, method))
            .transpose()?;
        let mut running_request = None;
        let mut limit = Some(deadline.at);
        let response = match method.request {
            methods::Request::Unary { max, runs } => {
                let until = ReceiveDeadline {
                    arrival,
                    timeout: edge.receive_timeout,
                    deadline: deadline.at,
                };
                let budget = &edge.receive_budget;
                let received = receive(&mut body, &head.headers, max, budget, until).await?;
                drop(body);
                check_message(received.message(), runs)
                    .map_err(|status| Rejection::new("invalid", status))?;
                let running = Arc::clone(&connection.running);
                let held = RunningRequest::new(received.held, running);
                running_request = Some(held.clone());
                let context = RequestContext {
                    record: Some(Arc::clone(&record)),
                    deadline,
                    received: Some(held),
                    unsent,
                };
                if let Some(Runs { answer, .. }) = runs
                    && let Some(orchestrator) = edge.services.orchestrator()
                {
                    drop(head);
                    let mut message = received.body;
                    message.advance(PREFIX_BYTES);
                    // It keeps to the deadline itself.
                    limit = None;
                    Box::pin(orchestrator.answer(answer, message, context).map(Ok))
                } else {
                    // The message is inflated already.
                    head.headers.remove(ENCODING);
                    head.extensions.insert(context);
                    let request = Request::from_parts(head, received.body.into());
                    edge.services.call(request)
                }
            }
            methods::Request::Streaming => {
                let body = match &mut long_lived {
                    Some(stream) => stream.request(body),
                    None => Body::new(body),
                };
                edge.services.route(Request::from_parts(head, body))
            }
        };
        let response = call(response, limit, &record).await;
        drop(running_request);
        Ok(match long_lived {
            Some(stream) => stream.response(response),
            None => {
                set_send_deadline(deadline.at + SEND_MARGIN);
                response
            }
        })
    }
}

async fn call(response: ResponseFuture, limit: Option<Instant>, record: &Record) -> Response<Body> {
    let response = AssertUnwindSafe(response).catch_unwind();
    let response = match limit {
        Some(at) => timeout_at(at, response).await,
        None => Ok(response.await),
    };
    let response = match response {
        Ok(Ok(Ok(response))) => response,
        Ok(Ok(Err(impossible))) => match impossible {},
        Ok(Err(_panic)) => internal().into_http(),
        Err(_elapsed) => {
            record.reject("expired");
            answer_is_late().into_http()
        }
    };
    with_standard_code(response, record)
}

impl Connection {
    fn hold(&self, response: Response<Body>, unsent: UnsentReservation) -> Response<ResponseBody> {
        let buffered = self.edge.buffered.clone();
        let backlog = self.backlog.clone();
        response.map(|body| ResponseBody::new(body, unsent, buffered, backlog))
    }

    fn open_stream(&self, deadline: Deadline, method: Method) -> Result<LongLived, Rejection> {
        let held = self.edge.buffered.try_hold(LongLived::BYTES);
        let held = held.ok_or_else(Rejection::overloaded)?;
        let permit = Arc::clone(&self.long_lived).try_acquire_owned();
        let permit = permit.map_err(|_| Rejection::too_many_streams(MAX_LONG_LIVED))?;
        let deadline = method.stream_deadline(deadline);
        Ok(LongLived::new(
            self.ending.refusing(),
            deadline,
            (permit, held),
        ))
    }
}

/// Corrects tonic's code for a message that can't be decoded, and records that rejection,
/// which only tonic sees. Its own codec, that of health, says INTERNAL, which blames the
/// server. The words of a tool stay as they are.
fn with_standard_code(response: Response<Body>, record: &Record) -> Response<Body> {
    const MALFORMED: &str = "the request is malformed: ";
    const UNDECODABLE: &str = "failed to decode Protobuf message: ";
    let is = |code: &HeaderValue, expected: Code| *code == HeaderValue::from(expected as i32);
    let Some(code) = response.headers().get(Status::GRPC_STATUS) else {
        return response;
    };
    let is_tonics = is(code, Code::Internal) && record.is_routine();
    let is_ours = is(code, Code::InvalidArgument) && !record.runs_calls();
    if is_tonics || is_ours {
        let status = Status::from_header_map(response.headers());
        let message = status.as_ref().map_or("", Status::message);
        let how = if is_ours {
            message.strip_prefix(MALFORMED).unwrap_or("")
        } else {
            message
        };
        if how.starts_with(UNDECODABLE) {
            record.reject("invalid");
            return if is_ours {
                response
            } else {
                malformed(how).into_http()
            };
        }
    }
    response
}
