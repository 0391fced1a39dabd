//! Opens byte streams to a collector, secured if its endpoint is `https`.

use std::{
    fmt, io,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::{BoxFuture, FutureExt as _};
use http::Uri;
use hyper_util::{
    client::legacy::connect::{Connected, Connection},
    rt::TokioIo,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, rustls::pki_types::ServerName};
use tower::Service;

use crate::{
    telemetry::settings::{Otlp, Protocol},
    transport::endpoint::host_and_port,
};

/// Long enough for a few lost packets. The kernel would go on for two minutes.
const MAX_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// As the client wants it.
#[derive(Clone)]
pub(super) struct Connector(Arc<Otlp>);

/// A connection to a collector.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Connection for Box<dyn Stream> {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Connector {
    pub(super) fn new(otlp: &Otlp) -> Self {
        Self(Arc::new(otlp.clone()))
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector")
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Box<dyn Stream>>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let otlp = Arc::clone(&self.0);
        let limit = otlp.timeout.min(MAX_CONNECT_TIMEOUT);
        async move {
            match timeout(limit, open(&otlp)).await {
                Ok(stream) => Ok(TokioIo::new(stream?)),
                Err(_) => Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("no connection within {limit:?}"),
                )),
            }
        }
        .boxed()
    }
}

async fn open(otlp: &Otlp) -> io::Result<Box<dyn Stream>> {
    let (host, port) = host_and_port(&otlp.endpoint);
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    let Some(tls) = &otlp.tls else {
        return Ok(Box::new(stream));
    };
    let refused = |why| Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    let Ok(name) = ServerName::try_from(host.to_owned()) else {
        return refused("no certificate can name the endpoint's host");
    };
    let connector = TlsConnector::from(Arc::clone(&tls.0));
    let stream = connector.connect(name, stream).await?;
    let speaks_http_2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    if otlp.protocol == Protocol::Grpc && !speaks_http_2 {
        return refused("the collector does not offer HTTP/2 (ALPN)");
    }
    Ok(Box::new(stream))
}
