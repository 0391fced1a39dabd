//! Takes TCP connections, without spinning when the process is out of file
//! descriptors.

use std::{io, time::Duration};

use nix::errno::Errno;
use tokio::{
    net::{TcpListener, TcpStream},
    time::sleep,
};

use crate::core::overflow::Overflow;

/// How long to wait after `accept` failed for want of resources. tonic's accept
/// loop retries at once and burns a core without a word.
const BACK_OFF: Duration = Duration::from_millis(200);

/// A listener.
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
                    // Messages are small and complete: nothing to wait for.
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%error, "a connection was gone before it was served");
                        continue;
                    }
                    return stream;
                }
                Err(error) if is_the_peers(&error) => {}
                Err(error) => {
                    if is_of_descriptors(&error) {
                        Overflow::FileDescriptors.count();
                    }
                    let throttle = "accept";
                    tracing::warn!(throttle, %error, "can't accept connections");
                    sleep(BACK_OFF).await;
                }
            }
        }
    }
}

/// Errors of one connection that ended before it was accepted.
fn is_the_peers(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}

fn is_of_descriptors(error: &io::Error) -> bool {
    let number = error.raw_os_error().map(Errno::from_raw);
    matches!(number, Some(Errno::EMFILE | Errno::ENFILE))
}
