//! The admin port: `/metrics`, `/healthz` and `/readyz` over HTTP/1.1, until the drain
//! is over. Anybody may connect to it, so connections are few and short, for one request
//! each, and idle ones are closed first.

mod connections;

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use futures_util::future::{Ready, ready};
use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{ALLOW, CONTENT_TYPE},
};
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};

use self::connections::{Connections, Requested};
use super::{Readiness, accept::Acceptor};

pub(crate) use self::connections::MAX_CONNECTIONS;

/// Writes the metrics in Prometheus' text format, or says why it can't; `None` if
/// metrics are turned off.
pub type MetricsPage = Arc<dyn Fn() -> Option<Result<String, String>> + Send + Sync>;

/// Says whether new callers are welcome.
pub type ReadinessProbe = Arc<dyn Fn() -> Readiness + Send + Sync>;

/// Says what keeps the process from working, if anything does and a restart would help.
pub type LivenessProbe = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// A probe sends its request at once.
const HEADER_TIMEOUT: Duration = Duration::from_secs(2);
/// From the connection to the end of the response, which a slow reader may hold up.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(10);
/// Several times what Prometheus sends.
const MAX_HEADER_BYTES: usize = 16 << 10;

const PLAIN: &str = "text/plain; charset=utf-8";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The admin port, bound but not yet served.
#[derive(Debug)]
pub struct Admin {
    listener: TcpListener,
}

/// Binds `address`.
///
/// # Errors
/// The operating system's, with the setting and the address.
pub async fn bind(address: SocketAddr) -> io::Result<Admin> {
    match super::bind(address).await {
        Ok(listener) => Ok(Admin { listener }),
        Err(error) => Err(io::Error::new(
            error.kind(),
            format!("server.admin_listen: {error}"),
        )),
    }
}

impl Admin {
    /// The local address, with the actual port if port 0 was bound.
    ///
    /// # Errors
    /// The operating system's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until it is dropped.
    pub async fn run(
        self,
        metrics: MetricsPage,
        liveness: LivenessProbe,
        readiness: ReadinessProbe,
    ) {
        let acceptor = Acceptor::new(self.listener);
        let pages = Pages {
            metrics,
            liveness,
            readiness,
        };
        let mut tasks = JoinSet::new();
        let mut connections = Connections::default();
        loop {
            tokio::select! {
                stream = acceptor.accept() => {
                    connections.make_room().await;
                    let requested = Requested::default();
                    let service = Service { pages: pages.clone(), requested: requested.clone() };
                    connections.add(requested, tasks.spawn(serve(stream, service)));
                }
                Some(_) = tasks.join_next() => {}
            }
        }
    }
}

async fn serve(stream: TcpStream, service: Service) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_header_size(MAX_HEADER_BYTES)
        // One request per connection: nobody keeps one open.
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    if let Ok(Err(error)) = timeout(EXCHANGE_TIMEOUT, connection).await {
        tracing::debug!(?error, "a connection to the admin port failed");
    }
}

#[derive(Clone)]
struct Pages {
    metrics: MetricsPage,
    liveness: LivenessProbe,
    readiness: ReadinessProbe,
}

/// Serves the pages on one connection.
struct Service {
    pages: Pages,
    requested: Requested,
}

impl hyper::service::Service<Request<Incoming>> for Service {
    type Response = Response<String>;
    type Error = Infallible;
    type Future = Ready<Result<Response<String>, Infallible>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.requested.set();
        let (method, path) = (request.method(), request.uri().path());
        ready(Ok(self.pages.respond(method, path)))
    }
}

impl Pages {
    fn respond(&self, method: &Method, path: &str) -> Response<String> {
        let paths = ["/metrics", "/healthz", "/readyz"];
        if !paths.contains(&path) {
            let line = format!("no such page; there are {}", paths.join(", "));
            return page(StatusCode::NOT_FOUND, &line);
        }
        if method != Method::GET && method != Method::HEAD {
            let mut refusal = page(StatusCode::METHOD_NOT_ALLOWED, "GET or HEAD only");
            let allowed = HeaderValue::from_static("GET, HEAD");
            refusal.headers_mut().insert(ALLOW, allowed);
            return refusal;
        }
        match path {
            "/metrics" => self.metrics(),
            "/readyz" => self.readiness(),
            _ => self.liveness(),
        }
    }

    fn metrics(&self) -> Response<String> {
        match (self.metrics)() {
            None => page(
                StatusCode::NOT_FOUND,
                "no metrics: OTEL_METRICS_EXPORTER or OTEL_SDK_DISABLED says so",
            ),
            Some(Ok(text)) => {
                let mut response = Response::new(text);
                let kind = HeaderValue::from_static(PROMETHEUS);
                response.headers_mut().insert(CONTENT_TYPE, kind);
                response
            }
            Some(Err(problem)) => {
                tracing::warn!(problem, "can't write the metrics");
                page(StatusCode::INTERNAL_SERVER_ERROR, &problem)
            }
        }
    }

    fn liveness(&self) -> Response<String> {
        match (self.liveness)() {
            Ok(()) => page(StatusCode::OK, "ok"),
            Err(problem) => page(StatusCode::SERVICE_UNAVAILABLE, &problem),
        }
    }

    fn readiness(&self) -> Response<String> {
        match (self.readiness)() {
            Readiness::Starting => page(StatusCode::SERVICE_UNAVAILABLE, "starting"),
            Readiness::Ready => page(StatusCode::OK, "ready"),
            Readiness::Full => page(StatusCode::SERVICE_UNAVAILABLE, "full"),
            Readiness::Draining => page(StatusCode::SERVICE_UNAVAILABLE, "draining"),
        }
    }
}

fn page(status: StatusCode, line: &str) -> Response<String> {
    let mut response = Response::new(format!("{line}\n"));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static(PLAIN);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
