//! A byte stream to a collector, secured if its endpoint is `https`.

use std::{io, sync::Arc, time::Duration};

use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, rustls::pki_types::ServerName};

use crate::telemetry::settings::{Otlp, Protocol};

/// Enough for a few lost packets; a lost SYN would otherwise be repeated for two
/// minutes.
const MAX_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Both directions.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// As hyper wants it.
pub(super) type Io = TokioIo<Box<dyn Stream>>;

/// Opens one to the collector.
pub(super) async fn connect(otlp: &Otlp) -> io::Result<Io> {
    let limit = otlp.timeout.min(MAX_CONNECT_TIMEOUT);
    match timeout(limit, open(otlp)).await {
        Ok(stream) => Ok(TokioIo::new(stream?)),
        Err(_) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("no connection within {limit:?}"),
        )),
    }
}

async fn open(otlp: &Otlp) -> io::Result<Box<dyn Stream>> {
    let host = otlp.endpoint.host().unwrap_or_default();
    // An IPv6 address stands in brackets in a URL.
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let standard = if otlp.tls.is_some() { 443 } else { 80 };
    let port = otlp.endpoint.port_u16().unwrap_or(standard);
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    let Some(tls) = &otlp.tls else {
        return Ok(Box::new(stream));
    };
    let refused = |why| Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    let Ok(name) = ServerName::try_from(host.to_owned()) else {
        return refused("the endpoint's host is no name that a certificate has");
    };
    let connector = TlsConnector::from(Arc::clone(&tls.0));
    let stream = connector.connect(name, stream).await?;
    let speaks_http_2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    if otlp.protocol == Protocol::Grpc && !speaks_http_2 {
        return refused("the collector does not offer HTTP/2 (ALPN)");
    }
    Ok(Box::new(stream))
}
