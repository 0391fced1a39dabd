//! The network that services are reached through: the system's resolver and TCP, or what
//! a test puts in their place.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, lookup_host},
};

use crate::config;

/// A byte stream in both directions.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// How names become addresses, and addresses byte streams. The caller bounds the
/// time.
pub trait Network: Send + Sync + 'static {
    /// The addresses that `host` has now. An error and an empty answer leave the
    /// last ones in use.
    fn resolve(&self, host: &str, port: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>>;

    /// Opens a byte stream.
    fn connect(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn Io>>>;
}

/// Opens byte streams to one tool service, wherever that is.
pub trait Connect: Send + Sync + 'static {
    /// Opens one.
    fn connect(&self) -> BoxFuture<'static, io::Result<Box<dyn Io>>>;
}

/// TCP's keepalive probes within the time for an answer: some may get lost.
const PROBES: u32 = 4;

/// The system's resolver, and TCP.
#[derive(Clone, Copy, Debug)]
pub struct Internet {
    /// How long a connection may be quiet before TCP probes it.
    quiet: Duration,
    /// How long the other host may then not answer; it has `quiet` and this long to
    /// acknowledge what it is sent.
    patience: Duration,
}

impl Internet {
    /// That notices the end of a host as the settings of `service` say.
    pub fn of(service: &config::Service) -> Self {
        Self {
            quiet: service.keepalive_interval,
            patience: service.keepalive_timeout,
        }
    }

    /// Has the kernel find out when the other host is gone: probes if nothing comes
    /// (RFC 9293, 3.8.4), and a bound on what is not acknowledged (RFC 5482, gRFC A18).
    /// Peers' gRPC libraries know nothing of either.
    fn watch(self, stream: &TcpStream) -> io::Result<()> {
        const SECOND: Duration = Duration::from_secs(1);
        // Linux's bounds.
        const LONGEST: Duration = Duration::from_secs(32_767);
        let probes = TcpKeepalive::new()
            .with_time(self.quiet.clamp(SECOND, LONGEST))
            .with_interval((self.patience / PROBES).clamp(SECOND, LONGEST));
        let socket = SockRef::from(stream);
        socket.set_tcp_keepalive(&probes)?;
        // Ends it after unanswered probes, too: then it counts from what came last.
        #[cfg(target_os = "linux")]
        socket.set_tcp_user_timeout(Some((self.quiet + self.patience).max(SECOND)))?;
        Ok(())
    }
}

impl Default for Internet {
    /// As the default settings of a service say.
    fn default() -> Self {
        Self::of(&config::Service::new(http::Uri::default()))
    }
}

impl Network for Internet {
    fn resolve(&self, host: &str, port: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        let host = host.to_owned();
        Box::pin(async move { Ok(lookup_host((host, port)).await?.collect()) })
    }

    fn connect(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn Io>>> {
        let this = *self;
        Box::pin(async move {
            let stream = TcpStream::connect(address).await?;
            this.watch(&stream)?;
            // Calls are small and latency is the product.
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn Io>)
        })
    }
}

/// A network in which every name is one address, and that leads to one place.
pub(crate) struct OneAddress(pub(crate) Arc<dyn Connect>);

impl Network for OneAddress {
    fn resolve(&self, _: &str, port: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        Box::pin(async move { Ok(vec![SocketAddr::from(([0; 4], port))]) })
    }

    fn connect(&self, _: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn Io>>> {
        self.0.connect()
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn the_kernel_looks_after_the_other_host() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        for (quiet, patience, expected) in [(90_000, 5_000, (90, 1, 95)), (1, 1, (1, 1, 1))] {
            let internet = Internet {
                quiet: Duration::from_millis(quiet),
                patience: Duration::from_millis(patience),
            };
            let stream = TcpStream::connect(address).await.unwrap();
            internet.watch(&stream).unwrap();
            let socket = SockRef::from(&stream);
            assert!(socket.keepalive().unwrap());
            let seconds = (
                socket.tcp_keepalive_time().unwrap().as_secs(),
                socket.tcp_keepalive_interval().unwrap().as_secs(),
                socket.tcp_user_timeout().unwrap().unwrap().as_secs(),
            );
            assert_eq!(seconds, expected);
        }
    }
}
