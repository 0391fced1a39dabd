//! Replicas of a tool service behind pipes, each of which can fall silent: what is sent
//! to it still leaves, and nothing comes back, as of a process with SIGSTOP.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};

use fanfare::{
    catalog::Registry,
    config::Config,
    net::{Connect as _, Io, Network},
};
use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    pipes::{self, Client},
    service::Service,
};

#[derive(Clone)]
pub struct Replicas(Arc<Vec<(Service, Arc<Stall>)>>);

#[derive(Default)]
struct Stall(Mutex<(bool, Vec<Waker>)>);

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
        let registry = Registry::with_network(&config, |_| Arc::new(self.clone()));
        pipes::client(&config, registry).await
    }

    /// Whether nothing comes from that replica.
    pub fn stall(&self, index: usize, stalled: bool) {
        let mut stall = self.0[index].1.0.lock().expect("it");
        stall.0 = stalled;
        stall.1.drain(..).for_each(Waker::wake);
    }
}

impl Network for Replicas {
    fn resolve(&self, _: &str, _: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        Box::pin(async { Err(io::ErrorKind::NotFound.into()) })
    }

    fn connect(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn Io>>> {
        let (service, stall) = &self.0[usize::from(address.port()) - 1];
        let (io, stall) = (service.connect(), Arc::clone(stall));
        Box::pin(async move {
            let io = io.await?;
            Ok(Box::new(Stallable { io, stall }) as Box<dyn Io>)
        })
    }
}

struct Stallable {
    io: Box<dyn Io>,
    stall: Arc<Stall>,
}

impl AsyncRead for Stallable {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut stall = self.stall.0.lock().expect("it");
        if stall.0 {
            stall.1.push(context.waker().clone());
            return Poll::Pending;
        }
        drop(stall);
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl AsyncWrite for Stallable {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}
