//! A network of HTTP/2 servers at the other end of pipes.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::BoxFuture;
use http::Uri;
use tokio::{
    io::duplex,
    runtime::Handle,
    sync::watch,
    task::{JoinHandle, yield_now},
};

use super::Upstream;
use crate::{
    config::Service,
    core::worker,
    net::{Io, Network},
};

pub(super) struct Net {
    background: Handle,
    state: Mutex<State>,
    /// Which address, if any, no dial gets to.
    held: watch::Sender<Option<u16>>,
}

#[derive(Default)]
struct State {
    refuses: bool,
    /// What the names have.
    resolved: u8,
    /// The last part of the address, and the worker that dialed it.
    dialed: Vec<(u16, Option<usize>)>,
    servers: Vec<JoinHandle<()>>,
}

pub(super) fn address(last: u8) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, last], 1))
}

impl Net {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            background: Handle::current(),
            state: Mutex::default(),
            held: watch::Sender::new(None),
        })
    }

    /// A service at the addresses 1 to `last`.
    pub(super) fn upstream(
        self: &Arc<Self>,
        last: u8,
        set: impl FnOnce(&mut Service),
    ) -> Arc<Upstream> {
        let uri = |last| Uri::try_from(format!("http://{}", address(last))).expect("a URI");
        let mut service = Service::new(uri(1));
        service.endpoints = (1..=last).map(uri).collect();
        service.connect_timeout = Duration::from_secs(60);
        set(&mut service);
        Arc::new(Upstream::new("tools", Arc::clone(self) as _, &service))
    }

    pub(super) fn dialed(&self) -> Vec<(u16, Option<usize>)> {
        self.state.lock().unwrap().dialed.clone()
    }

    pub(super) fn refuse(&self, refuses: bool) {
        self.state.lock().unwrap().refuses = refuses;
    }

    /// From now on all names have that address.
    pub(super) fn resolve_to(&self, last: u8) {
        self.state.lock().unwrap().resolved = last;
    }

    /// Dials of that address hang.
    pub(super) fn hold(&self, last: u16) {
        self.held.send_replace(Some(last));
    }

    pub(super) fn release(&self) {
        self.held.send_replace(None);
    }

    /// Closes the connection that was made as number `index`.
    pub(super) fn close(&self, index: usize) {
        self.state.lock().unwrap().servers[index].abort();
    }

    /// Waits until the first `count` connections are closed.
    pub(super) async fn closed(&self, count: usize) {
        let servers: Vec<_> = self.state.lock().unwrap().servers.drain(..count).collect();
        for server in servers {
            let _ = server.await;
        }
    }

    /// Waits until so many dials have begun.
    pub(super) async fn dials(&self, dials: usize) {
        while self.dialed().len() < dials {
            yield_now().await;
        }
    }

    /// Waits until no look-up is under way.
    pub(super) async fn looked_up(&self, upstream: &Upstream) {
        while upstream.state().names.is_looking_up() {
            yield_now().await;
        }
    }

    /// Waits until no dial is under way.
    pub(super) async fn settle(&self, upstream: &Upstream) {
        while upstream.state().is_being_dialed() {
            yield_now().await;
        }
    }
}

impl Network for Net {
    fn resolve(&self, _: &str, _: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        let resolved = self.state.lock().unwrap().resolved;
        Box::pin(async move { Ok(vec![address(resolved)]) })
    }

    fn connect(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn Io>>> {
        let SocketAddr::V4(v4) = address else {
            unreachable!("there are none");
        };
        let last = u16::from(v4.ip().octets()[3]);
        let mut state = self.state.lock().unwrap();
        state.dialed.push((last, worker::current()));
        if state.refuses {
            return Box::pin(async { Err(io::ErrorKind::ConnectionRefused.into()) });
        }
        let (ours, theirs) = duplex(1 << 16);
        state.servers.push(self.background.spawn(async move {
            let Ok(mut server) = h2::server::handshake(theirs).await else {
                return;
            };
            while server.accept().await.is_some() {}
        }));
        let mut held = self.held.subscribe();
        Box::pin(async move {
            let _ = held.wait_for(|held| *held != Some(last)).await;
            Ok(Box::new(ours) as Box<dyn Io>)
        })
    }
}
