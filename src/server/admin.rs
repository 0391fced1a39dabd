//! A page for operators, on a port of its own, over HTTP/1.1: `/metrics`,
//! `/healthz` and `/readyz`. It serves until the drain is over, and it takes what
//! anybody sends it: connections are few, short and for one request each, and those
//! that say nothing give way.
//!
//! What the metrics are, and when the server is ready, others know.

mod visitors;

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

use self::visitors::{Asked, Visitors};
use super::{Readiness, accept::Acceptor};

pub(crate) use self::visitors::MAX_CONNECTIONS;

/// Writes the metrics in Prometheus' text format, or says why it can't; `None` if
/// there are none.
pub type MetricsPage = Arc<dyn Fn() -> Option<Result<String, String>> + Send + Sync>;

/// Says whether new callers are welcome.
pub type ReadinessProbe = Arc<dyn Fn() -> Readiness + Send + Sync>;

/// A probe speaks in its first packet; those who do not make others wait.
const HEADER_TIMEOUT: Duration = Duration::from_secs(2);
/// From the connection to the end of the answer, which a slow reader may hold up.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(10);
/// What a scraper's request has at most: several times what Prometheus sends.
const MAX_HEADER_BYTES: usize = 16 << 10;

const PLAIN: &str = "text/plain; charset=utf-8";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The operators' page, bound and not served yet.
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
    /// Where it listens: with the port that was found for port 0.
    ///
    /// # Errors
    /// The operating system's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until it is dropped.
    pub async fn run(self, metrics: MetricsPage, readiness: ReadinessProbe) {
        let acceptor = Acceptor::new(self.listener);
        let pages = Pages { metrics, readiness };
        let mut connections = JoinSet::new();
        let mut visitors = Visitors::default();
        loop {
            tokio::select! {
                stream = acceptor.accept() => {
                    visitors.make_room().await;
                    let asked = Asked::default();
                    let visit = Visit { pages: pages.clone(), asked: asked.clone() };
                    visitors.add(asked, connections.spawn(serve(stream, visit)));
                }
                Some(_) = connections.join_next() => {}
            }
        }
    }
}

async fn serve(stream: TcpStream, visit: Visit) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_header_size(MAX_HEADER_BYTES)
        // One request each: nobody holds a place by being there.
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), visit);
    if let Ok(Err(error)) = timeout(EXCHANGE_TIMEOUT, connection).await {
        tracing::debug!(?error, "a connection to the admin port broke");
    }
}

#[derive(Clone)]
struct Pages {
    metrics: MetricsPage,
    readiness: ReadinessProbe,
}

/// The pages, for one visitor.
struct Visit {
    pages: Pages,
    asked: Asked,
}

impl hyper::service::Service<Request<Incoming>> for Visit {
    type Response = Response<String>;
    type Error = Infallible;
    type Future = Ready<Result<Response<String>, Infallible>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.asked.note();
        let (method, path) = (request.method(), request.uri().path());
        ready(Ok(self.pages.answer(method, path)))
    }
}

impl Pages {
    fn answer(&self, method: &Method, path: &str) -> Response<String> {
        let paths = ["/metrics", "/healthz", "/readyz"];
        if !paths.contains(&path) {
            let sentence = format!("no such page; there are {}", paths.join(", "));
            return page(StatusCode::NOT_FOUND, &sentence);
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
            _ => page(StatusCode::OK, "ok"),
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
