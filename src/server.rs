//! The server: its services, how it accepts connections, and its graceful shutdown.
//!
//! hyper serves the connections. tonic's `Server` would answer expired requests with
//! CANCELLED, leave streams and malformed frames unbounded, use up a core when file
//! descriptors run out, and wait forever on shutdown for a peer that never speaks.
//! tonic's services and codecs are used as they are.

mod accept;
mod activity;
pub mod admin;
mod connection;
mod edge;
mod long_lived;
mod methods;
pub mod open_files;
mod protocol;
mod receive;
mod receive_budget;
mod reflection;
mod request_body;
mod response_body;
mod services;
mod stream_task;
mod supervision;

use std::{io, iter, net::IpAddr, sync::Arc, time::Duration};

use futures_util::FutureExt as _;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};
use tonic::codec::CompressionEncoding;
use tonic_health::{ServingStatus, server::HealthReporter};

use crate::{
    catalog::{
        Catalog,
        snapshot::{Snapshot, Snapshots},
    },
    config::{self, Config},
    core::{
        admission::Admission,
        buffered::Buffered,
        connections::{Connection, Connections},
        drain::{Drain, DrainController, drain},
        overflow::Overflow,
        workers::Workers,
    },
    orchestrator::Orchestrator,
    pb::{
        orchestrator_service_server::OrchestratorServiceServer,
        tool_service_server::{ToolService, ToolServiceServer},
    },
    telemetry::Telemetry,
    transport::peer::connected_to,
};
use accept::Acceptor;
use edge::Edge;
use methods::ServiceSet;
use reflection::with_reflection;
use services::Services;
use supervision::supervise;

/// How long callers have to read their results after the drain timed out, and workers then
/// to drop their connections.
const ABORT_GRACE: Duration = Duration::from_millis(500);

/// A server that is ready to accept connections.
#[derive(Debug)]
pub struct Server {
    edge: Edge,
    settings: config::Server,
    max_request_timeout: Duration,
    health: HealthReporter,
    connections: Connections,
    readiness: watch::Sender<Readiness>,
    services: ServiceSet,
    controller: DrainController,
    drain: Drain,
    /// Where connections are served, if not where they are accepted.
    workers: Option<Workers>,
    /// What telemetry sees of an orchestrator.
    orchestrator: Option<(Admission, Snapshots)>,
}

/// Whether new connections are accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Not yet.
    Starting,
    /// They are.
    Ready,
    /// Not now: `server.max_connections` are open.
    Full,
    /// Not any more: the drain delay has begun.
    Draining,
}

impl Server {
    /// Serves `OrchestratorService` and `ToolService` with the tools of `catalog`, health,
    /// and reflection if configured.
    pub async fn orchestrator(config: &Config, catalog: Catalog) -> Self {
        let limits = config.limits.clone();
        let snapshots = Snapshots::fixed(Snapshot { limits, catalog });
        Self::following(config, snapshots).await
    }

    /// The same with the tools and the limits of requests of whichever snapshot is in
    /// force. What is not of one request stays as it is in `config`.
    pub async fn following(config: &Config, snapshots: Snapshots) -> Self {
        let (controller, drain) = drain();
        let buffered = Buffered::new(config.limits.max_buffered_bytes);
        let orchestrator = Orchestrator::new(snapshots.clone(), buffered.clone(), drain.clone());
        let admission = orchestrator.admission().clone();
        let orchestrator = Arc::new(orchestrator);
        let service = OrchestratorServiceServer::from_arc(Arc::clone(&orchestrator))
            .max_decoding_message_size(config.limits.max_request_bytes);
        let services = match config.server.compression {
            config::Compression::Gzip => {
                Services::new(service.send_compressed(CompressionEncoding::Gzip))
            }
            config::Compression::None => {
                Services::new(service).answered_by(Arc::clone(&orchestrator))
            }
        };
        let mut tools = ToolServiceServer::from_arc(orchestrator)
            .max_decoding_message_size(config.limits.max_request_bytes);
        if config.server.compression == config::Compression::Gzip {
            tools = tools.send_compressed(CompressionEncoding::Gzip);
        }
        let services = services.with(|routes| routes.add_service(tools));
        let mut server = Self::new(services, config, buffered, controller, drain).await;
        server.orchestrator = Some((admission, snapshots));
        server
    }

    /// Serves a `ToolService`, with the same settings, health and reflection.
    pub async fn tools(config: &Config, tools: impl ToolService) -> Self {
        let (controller, drain) = drain();
        let service = ToolServiceServer::new(tools)
            .max_decoding_message_size(config.limits.max_request_bytes)
            .max_encoding_message_size(usize::MAX);
        Self::new(
            Services::new(service),
            config,
            Buffered::new(config.limits.max_buffered_bytes),
            controller,
            drain,
        )
        .await
    }

    async fn new(
        services: Services,
        config: &Config,
        buffered: Buffered,
        controller: DrainController,
        drain: Drain,
    ) -> Self {
        let (health, health_service) = tonic_health::server::health_reporter();
        let set = ServiceSet::new(services.name(), config.server.reflection);
        let services = services.with(|routes| {
            let routes = routes.add_service(health_service);
            with_reflection(routes, set, &config.server)
        });
        let server = Self {
            edge: Edge::new(services, set, config, buffered),
            settings: config.server.clone(),
            max_request_timeout: config.limits.max_request_timeout,
            health,
            connections: Connections::new(config.server.max_connections),
            readiness: watch::Sender::new(Readiness::Starting),
            services: set,
            controller,
            drain,
            workers: None,
            orchestrator: None,
        };
        // tonic-health begins with SERVING.
        server.set_health(ServingStatus::NotServing).await;
        server
    }

    /// Has `workers` serve the connections.
    #[must_use]
    pub fn on(mut self, workers: Workers) -> Self {
        self.workers = Some(workers);
        self
    }

    /// Has `telemetry` observe the requests.
    #[must_use]
    pub fn with_telemetry(mut self, telemetry: Telemetry) -> Self {
        if let Some((admission, snapshots)) = &self.orchestrator {
            telemetry.watch_admission(admission);
            telemetry.watch(snapshots.clone());
        }
        telemetry.watch_buffered(self.edge.buffered());
        telemetry.watch_connections(&self.connections);
        if let Some(workers) = &self.workers {
            telemetry.watch_workers(workers);
        }
        if let Some(least) = self.settings.slow_call {
            telemetry.log_slow_calls(least);
        }
        self.edge.set_telemetry(telemetry);
        self
    }

    /// The memory budget of its requests and responses.
    pub fn buffered(&self) -> &Buffered {
        self.edge.buffered()
    }

    /// Returns the current readiness whenever it is called.
    pub fn readiness(&self) -> impl Fn() -> Readiness + Clone + Send + Sync + 'static {
        let (readiness, connections) = (self.readiness.subscribe(), self.connections.clone());
        move || match *readiness.borrow() {
            Readiness::Ready if connections.are_full() => Readiness::Full,
            readiness => readiness,
        }
    }

    /// Accepts connections from `listener` until `shutdown` completes, then drains:
    /// reports NOT_SERVING but keeps serving for `drain_delay`; refuses new requests and
    /// waits up to `drain_timeout` for running ones; ends the rest with CANCELLED
    /// results, and returns.
    pub async fn run(self, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        tokio::select! {
            () = self.accept_and_drain(listener, shutdown) => {}
            () = supervise(self.workers.as_ref()) => {}
        }
    }

    async fn accept_and_drain(&self, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        let acceptor = Acceptor::new(listener);
        let mut connections = JoinSet::new();
        self.set_health(ServingStatus::Serving).await;
        self.readiness.send_replace(Readiness::Ready);
        self.accept_until(&acceptor, &mut connections, shutdown)
            .await;

        self.readiness.send_replace(Readiness::Draining);
        tracing::info!(
            delay = self.settings.drain_delay.as_secs_f64(),
            "shutting down: no longer ready"
        );
        self.set_health(ServingStatus::NotServing).await;
        let delay = sleep(self.settings.drain_delay);
        self.accept_until(&acceptor, &mut connections, delay).await;

        drop(acceptor);
        self.controller.refuse();
        let limit = self.settings.drain_timeout;
        tracing::info!(
            connections = connections.len(),
            limit = limit.as_secs_f64(),
            "draining"
        );
        if timeout(limit, join_all(&mut connections)).await.is_err() {
            tracing::warn!(
                connections = connections.len(),
                "the drain timed out: cancelling the requests that still run"
            );
            self.controller.abort();
            // Then the connections of frozen peers are dropped.
            let _ = timeout(ABORT_GRACE, join_all(&mut connections)).await;
        }
        // A worker that is stuck drops nothing.
        let _ = timeout(ABORT_GRACE, connections.shutdown()).await;
    }

    /// Serves one open connection, such as an in-memory pipe. Dropping the future
    /// closes it.
    pub fn serve_connection<T>(&self, io: T) -> impl Future<Output = ()> + Send + use<T>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        self.serve(None, || Ok(io))
    }

    /// Serves what `open` opens, which the runtime that serves it must do.
    fn serve<T, F>(
        &self,
        peer: Option<IpAddr>,
        open: F,
    ) -> impl Future<Output = ()> + Send + use<T, F>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        F: FnOnce() -> io::Result<T> + Send,
    {
        let (service, long_lived) = self.edge.for_connection(peer);
        let (settings, drain) = (self.settings.clone(), self.drain.clone());
        let max_timeout = self.max_request_timeout;
        async move {
            let serve = async {
                match open() {
                    Ok(io) => {
                        connection::serve(io, service, &settings, max_timeout, &drain, &long_lived)
                            .await
                    }
                    Err(error) => tracing::warn!(%error, "can't serve a connection"),
                }
            };
            connected_to(peer.map(|peer| peer.to_string()), serve).await;
        }
    }

    /// Serves a connection in a task of `tasks`.
    fn spawn(
        &self,
        tasks: &mut JoinSet<()>,
        stream: TcpStream,
        peer: Option<IpAddr>,
        counted: Connection,
    ) {
        let Some(workers) = &self.workers else {
            let connection = self.serve(peer, || Ok(stream));
            tasks.spawn(connection.map(|()| drop(counted)));
            return;
        };
        let place = workers.place();
        let handle = place.handle().clone();
        // A stream belongs to the runtime that waits for it.
        let stream = stream.into_std();
        let connection = self.serve(peer, || TcpStream::from_std(stream?));
        tasks.spawn_on(connection.map(|()| drop((counted, place))), &handle);
    }

    async fn accept_until(
        &self,
        acceptor: &Acceptor,
        connections: &mut JoinSet<()>,
        end: impl Future<Output = ()>,
    ) {
        let mut end = std::pin::pin!(end);
        loop {
            tokio::select! {
                () = &mut end => return,
                stream = acceptor.accept() => {
                    let peer = stream.peer_addr().ok().map(|address| address.ip());
                    let Some(counted) = self.connections.try_add() else {
                        self.reject(stream, peer);
                        continue;
                    };
                    self.spawn(connections, stream, peer, counted);
                }
                Some(_) = connections.join_next() => {}
            }
        }
    }

    /// Closes a connection over the limit without a word: gRPC clients then try another
    /// address, or reconnect after a backoff. After a GOAWAY they would reconnect at
    /// once; in the kernel's backlog they would wait indefinitely.
    fn reject(&self, stream: TcpStream, peer: Option<IpAddr>) {
        Overflow::Connections.count();
        drop(stream);
        let peer = peer.map(tracing::field::display);
        tracing::warn!(
            throttle = "max_connections",
            peer,
            connections = self.connections.max(),
            "closed a new connection: server.max_connections are open"
        );
    }

    async fn set_health(&self, status: ServingStatus) {
        for service in iter::once("").chain(self.services.own()) {
            self.health.set_service_status(service, status).await;
        }
    }
}

async fn join_all(connections: &mut JoinSet<()>) {
    while connections.join_next().await.is_some() {}
}

/// Binds `address`.
///
/// # Errors
/// The operating system's, with the address.
pub async fn bind(address: std::net::SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        io::Error::new(error.kind(), format!("can't listen on {address}: {error}"))
    })
}
