//! Makes a connection to one address: TCP, TLS where the endpoint asks for it, and HTTP/2.

use std::{sync::Arc, time::Duration};

use tokio::{sync::Notify, time::timeout};

use super::{
    address::Address,
    connection::{Connection, Driver},
    liveness::Keepalive,
    network::Network,
};

/// Makes a connection to `address` within `limit`, or says why there is none.
pub(super) async fn dial(
    network: Arc<dyn Network>,
    address: Arc<Address>,
    limit: Duration,
    keepalive: Keepalive,
    changed: Arc<Notify>,
) -> Result<(Connection, Driver), String> {
    let opened = async {
        let io = network.connect(address.socket()).await;
        let mut io = io.map_err(|error| error.to_string())?;
        if let Some(tls) = &address.endpoint().tls {
            let secured = tls.secure(io).await;
            io = secured.map_err(|error| format!("TLS: {error}"))?;
        }
        let opened = Connection::open(io, keepalive, Arc::clone(&address), changed).await;
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
