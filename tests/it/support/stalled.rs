//! Replicas of a tool service behind pipes, each of which can fall silent: what is sent
//! to it still leaves, and nothing comes back, as of a process with SIGSTOP.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};

use fanfare::{
    catalog::Catalog,
    config::Config,
    net::{Connect as _, Io, Network},
};
use futures_util::future::BoxFuture;

use super::{
    hooked::{Hook, Hooked},
    pipes::{self, Client},
    service::Service,
};

#[derive(Clone)]
pub struct Replicas(Arc<Vec<(Service, Arc<Stall>)>>);

/// Whether anything comes through the pipes that are on it.
#[derive(Default)]
pub struct Stall(Mutex<(bool, Vec<Waker>)>);

impl Replicas {
    pub fn of(services: impl IntoIterator<Item = Service>) -> Self {
        let stalls = services.into_iter().map(|it| (it, Arc::default()));
        Self(Arc::new(stalls.collect()))
    }

    /// A client of Fanfare with this configuration: `ENDPOINTS` in it are theirs.
    pub async fn client(&self, toml: &str) -> Client {
        let endpoint = |index| format!("'http://127.0.0.1:{}'", 1 + index);
        let endpoints: Vec<_> = (0..self.0.len()).map(endpoint).collect();
        let toml = toml.replace("ENDPOINTS", &format!("[{}]", endpoints.join(", ")));
        let config = Config::parse(&toml).expect("a configuration");
        let catalog = Catalog::with_network(&config, |_| Arc::new(self.clone()));
        pipes::client(&config, catalog).await
    }

    /// Whether nothing comes from that replica.
    pub fn stall(&self, index: usize, stalled: bool) {
        self.0[index].1.set(stalled);
    }
}

impl Stall {
    /// That pipe is on it from now on.
    pub fn on<T>(self: &Arc<Self>, io: T) -> Hooked<T, Stallable> {
        let hook = Stallable(Arc::clone(self));
        Hooked { io, hook }
    }

    pub fn set(&self, stalled: bool) {
        let mut stall = self.0.lock().expect("it");
        stall.0 = stalled;
        stall.1.drain(..).for_each(Waker::wake);
    }
}

pub struct Stallable(Arc<Stall>);

impl<T> Hook<T> for Stallable {
    fn poll_may_read(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut stall = self.0.0.lock().expect("it");
        if stall.0 {
            stall.1.push(context.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(())
    }
}

impl Network for Replicas {
    fn resolve(&self, _: &str, _: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        Box::pin(async { Err(io::ErrorKind::NotFound.into()) })
    }

    fn connect(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn Io>>> {
        let (service, stall) = &self.0[usize::from(address.port()) - 1];
        let (io, stall) = (service.connect(), Arc::clone(stall));
        Box::pin(async move { Ok(Box::new(stall.on(io.await?)) as Box<dyn Io>) })
    }
}
