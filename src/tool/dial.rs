//! Opening a byte stream to a tool service. Tests put their own network here, or
//! in-memory pipes.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, lookup_host},
    time::timeout,
};

use super::{
    address::Address,
    link::{Keepalive, Link},
};

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

/// The system's resolver, and TCP.
#[derive(Clone, Copy, Debug, Default)]
pub struct Internet;

impl Network for Internet {
    fn resolve(&self, host: &str, port: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        let host = host.to_owned();
        Box::pin(async move { Ok(lookup_host((host, port)).await?.collect()) })
    }

    fn connect(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn Io>>> {
        Box::pin(async move {
            let stream = TcpStream::connect(address).await?;
            // Calls are small and latency is the product.
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn Io>)
        })
    }
}

/// A network in which every name is one address, and that leads to one place.
pub(crate) struct OnePlace(pub(crate) Arc<dyn Connect>);

impl Network for OnePlace {
    fn resolve(&self, _: &str, port: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        Box::pin(async move { Ok(vec![SocketAddr::from(([0; 4], port))]) })
    }

    fn connect(&self, _: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn Io>>> {
        self.0.connect()
    }
}

/// Makes a link to `address` within `limit`, or says why there is none.
pub(super) async fn dial(
    network: Arc<dyn Network>,
    address: Arc<Address>,
    limit: Duration,
    keepalive: Keepalive,
) -> Result<Link, String> {
    let opened = async {
        let io = network.connect(address.socket()).await;
        let mut io = io.map_err(|error| error.to_string())?;
        if let Some(tls) = &address.endpoint().tls {
            let secured = tls.secure(io).await;
            io = secured.map_err(|error| format!("TLS: {error}"))?;
        }
        let opened = Link::open(io, keepalive, Arc::clone(&address)).await;
        // In TLS 1.3 the peer looks at our certificate after the handshake.
        opened.map_err(|error| match address.endpoint().tls {
            Some(_) => format!("over TLS: {error}"),
            None => error,
        })
    };
    match timeout(limit, opened).await {
        Ok(result) => result,
        Err(_) => Err(format!("no connection within {limit:?}")),
    }
}
