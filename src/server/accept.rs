//! Takes TCP connections: at most so many at a time, and without spinning when
//! the process is out of file descriptors.

use std::{io, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::sleep,
};

/// How long to wait after `accept` failed for want of resources. tonic's accept
/// loop retries at once and burns a core without a word.
const BACK_OFF: Duration = Duration::from_millis(200);

/// A listener with a bound on its open connections.
#[derive(Debug)]
pub(super) struct Acceptor {
    listener: TcpListener,
    places: Arc<Semaphore>,
}

impl Acceptor {
    pub(super) fn new(listener: TcpListener, max_connections: usize) -> Self {
        let places = max_connections.min(Semaphore::MAX_PERMITS);
        Self {
            listener,
            places: Arc::new(Semaphore::new(places)),
        }
    }

    /// The next connection; its place is free again when the permit is dropped.
    /// At the bound, callers wait in the kernel's backlog.
    pub(super) async fn accept(&self) -> (TcpStream, OwnedSemaphorePermit) {
        let mut warned = false;
        loop {
            // The semaphore is never closed.
            let Ok(place) = Arc::clone(&self.places).acquire_owned().await else {
                return std::future::pending().await;
            };
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    // Messages are small and complete: nothing to wait for.
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%error, "a connection was gone before it was served");
                        continue;
                    }
                    return (stream, place);
                }
                Err(error) if is_the_peers(&error) => {}
                Err(error) => {
                    if !warned {
                        tracing::warn!(%error, "can't accept connections");
                        warned = true;
                    }
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
