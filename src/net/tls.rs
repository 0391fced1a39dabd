//! TLS to tool services: what the service must prove, and what we show it. The
//! files were read with the configuration.

use std::{io, sync::Arc};

use tokio_rustls::{TlsConnector, rustls::pki_types::ServerName};

use super::network::Io;
use crate::config;

/// The protocol that is agreed on in the handshake (ALPN).
const HTTP_2: &[u8] = b"h2";

/// How to secure the connections to one endpoint.
#[derive(Clone)]
pub(super) struct Tls {
    connector: TlsConnector,
    /// `None` if the host is nothing that a certificate can name.
    server_name: Option<ServerName<'static>>,
}

impl Tls {
    /// For an endpoint on `host`.
    pub(super) fn new(host: &str, config: &config::Tls) -> Self {
        let name = config.server_name().cloned();
        Self {
            connector: TlsConnector::from(Arc::clone(config.client())),
            server_name: name.or_else(|| ServerName::try_from(host.to_owned()).ok()),
        }
    }

    /// Secures `io`.
    ///
    /// # Errors
    /// If either side does not accept the other, or the service does not speak
    /// HTTP/2.
    pub(super) async fn secure(&self, io: Box<dyn Io>) -> io::Result<Box<dyn Io>> {
        let refused = |why| Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        let Some(name) = self.server_name.clone() else {
            return refused("the endpoint's host is no name that a certificate has");
        };
        let stream = self.connector.connect(name, io).await?;
        if stream.get_ref().1.alpn_protocol() != Some(HTTP_2) {
            return refused("the server does not offer HTTP/2 (ALPN)");
        }
        Ok(Box::new(stream))
    }
}
