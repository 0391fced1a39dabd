//! The endpoints of a tool service and the addresses behind them.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use http::{
    Uri,
    uri::{Authority, Parts, PathAndQuery, Scheme},
};

use super::tls::Tls;
use crate::{
    config,
    core::observer::{Peer, Target},
    transport::endpoint::host_and_port,
};

/// A `scheme://host:port`.
pub(super) struct Endpoint {
    pub(super) host: String,
    pub(super) port: u16,
    scheme: Scheme,
    authority: Option<Authority>,
    pub(super) tls: Option<Tls>,
    /// Its name in telemetry.
    pub(super) target: Target,
    /// How many connections were replaced because of cancelled calls.
    pub(super) worn: AtomicU64,
}

/// Where calls go: one address of a tool service.
pub struct Address {
    socket: SocketAddr,
    peer: Arc<Peer>,
    endpoint: Arc<Endpoint>,
    /// Whether it has failed since its last answer.
    suspect: AtomicBool,
    /// Calls in flight, on whatever connection.
    calls: AtomicUsize,
    /// Connections that take no new calls but still carry some.
    draining: Arc<AtomicUsize>,
}

/// A connection that takes no new calls. Counted until this is dropped.
pub(super) struct Draining(Arc<AtomicUsize>);

impl Drop for Draining {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Endpoint {
    /// The endpoint `uri` of `service`.
    pub(super) fn new(uri: &Uri, service: &config::Service) -> Self {
        let (host, port) = host_and_port(uri);
        let https = uri.scheme() == Some(&Scheme::HTTPS);
        Self {
            host: host.to_owned(),
            port,
            target: Target::new(host, port),
            worn: AtomicU64::new(0),
            scheme: if https { Scheme::HTTPS } else { Scheme::HTTP },
            authority: uri.authority().cloned(),
            tls: https.then(|| Tls::new(host, &service.tls.clone().unwrap_or_default())),
        }
    }

    /// What a request for `path` is sent to.
    pub(super) fn uri(&self, path: &PathAndQuery) -> Uri {
        let mut parts = Parts::default();
        parts.scheme = Some(self.scheme.clone());
        parts.authority.clone_from(&self.authority);
        parts.path_and_query = Some(path.clone());
        // The configuration takes no endpoint without a host.
        Uri::from_parts(parts).unwrap_or_default()
    }

    /// Its address if that needs no name server.
    pub(super) fn literal(&self) -> Option<SocketAddr> {
        let ip: IpAddr = self.host.parse().ok()?;
        Some(SocketAddr::new(ip, self.port))
    }
}

impl Address {
    pub(super) fn new(socket: SocketAddr, endpoint: Arc<Endpoint>) -> Self {
        Self {
            socket,
            peer: Arc::new(Peer::new(&endpoint.target, socket)),
            endpoint,
            suspect: AtomicBool::new(false),
            calls: AtomicUsize::new(0),
            draining: Arc::default(),
        }
    }

    /// The host as the endpoint names it.
    pub fn host(&self) -> &str {
        &self.endpoint.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.socket.port()
    }

    /// What the host stands for.
    pub fn socket(&self) -> SocketAddr {
        self.socket
    }

    /// Its name in telemetry.
    pub(crate) fn peer(&self) -> &Arc<Peer> {
        &self.peer
    }

    pub(super) fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    pub(super) fn is_suspect(&self) -> bool {
        self.suspect.load(Ordering::Relaxed)
    }

    pub(super) fn suspect(&self, suspect: bool) {
        self.suspect.store(suspect, Ordering::Relaxed);
    }

    /// Calls in flight.
    pub(super) fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    pub(super) fn calls_begin(&self, count: usize) {
        self.calls.fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn calls_end(&self, count: usize) {
        self.calls.fetch_sub(count, Ordering::Relaxed);
    }

    /// Takes a connection out of use, unless `max` are already.
    pub(super) fn drain(&self, max: usize) -> Option<Draining> {
        let draining = Draining(Arc::clone(&self.draining));
        (self.draining.fetch_add(1, Ordering::Relaxed) < max).then_some(draining)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// `127.0.0.1:50051`, and the name if it has one: `tools (127.0.0.1:50051)`.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.endpoint.literal().is_none() {
            return write!(f, "{} ({})", self.endpoint.host, self.socket);
        }
        self.socket.fmt(f)
    }
}
