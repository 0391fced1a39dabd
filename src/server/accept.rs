//! Accepts TCP connections, without spinning when the process is out of file
//! descriptors.

use std::{io, time::Duration};

use nix::errno::Errno;
use tokio::{
    net::{TcpListener, TcpStream},
    time::sleep,
};

use crate::core::overflow::Overflow;

/// How long to wait after `accept` failed for lack of resources. tonic's accept loop
/// retries at once, silently using up a core.
const BACKOFF: Duration = Duration::from_millis(200);

#[derive(Debug)]
pub(super) struct Acceptor(TcpListener);

impl Acceptor {
    pub(super) fn new(listener: TcpListener) -> Self {
        Self(listener)
    }

    /// The next connection.
    pub(super) async fn accept(&self) -> TcpStream {
        loop {
            match self.0.accept().await {
                Ok((stream, _)) => {
                    // Writes are whole messages: Nagle's algorithm would only delay them.
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%error, "a connection was closed before it was served");
                        continue;
                    }
                    return stream;
                }
                Err(error) if is_from_peer(&error) => {}
                Err(error) => {
                    if is_descriptor_limit(&error) {
                        Overflow::FileDescriptors.count();
                    }
                    let throttle = "accept";
                    tracing::warn!(throttle, %error, "can't accept connections");
                    sleep(BACKOFF).await;
                }
            }
        }
    }
}

/// Whether the peer closed the connection before it was accepted.
fn is_from_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}

fn is_descriptor_limit(error: &io::Error) -> bool {
    let number = error.raw_os_error().map(Errno::from_raw);
    matches!(number, Some(Errno::EMFILE | Errno::ENFILE))
}
