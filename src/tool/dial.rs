//! Opening a byte stream to a tool service. Tests put in-memory pipes here.

use std::io;

use futures_util::future::BoxFuture;
use http::Uri;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

/// A byte stream in both directions.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Opens byte streams to one tool service. The caller bounds the time.
pub trait Connect: Send + Sync + 'static {
    /// Opens one.
    fn connect(&self) -> BoxFuture<'static, io::Result<Box<dyn Io>>>;
}

/// Opens TCP connections to the host and port of a URL, trying each address
/// that the host's name resolves to.
#[derive(Clone, Debug)]
pub struct TcpConnect {
    host: String,
    port: u16,
}

impl TcpConnect {
    /// For `endpoint`, whose port is 80 if it names none.
    pub fn new(endpoint: &Uri) -> Self {
        let host = endpoint.host().unwrap_or_default();
        Self {
            // An IPv6 address stands in brackets in a URL.
            host: host.trim_matches(['[', ']']).to_owned(),
            port: endpoint.port_u16().unwrap_or(80),
        }
    }
}

impl Connect for TcpConnect {
    fn connect(&self) -> BoxFuture<'static, io::Result<Box<dyn Io>>> {
        let address = (self.host.clone(), self.port);
        Box::pin(async move {
            let stream = TcpStream::connect(address).await?;
            // Calls are small and latency is the product.
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn Io>)
        })
    }
}
