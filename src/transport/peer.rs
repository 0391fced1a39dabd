//! Which peer's connection the current task serves, for lines about what the peer sent.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

tokio::task_local! {
    static CONNECTION: Arc<Connection>;
}

/// A connection.
#[derive(Debug, Default)]
pub(crate) struct Connection {
    peer: Option<String>,
    ended: AtomicBool,
}

/// Runs `future`, which serves a connection to `peer`, if the address is known.
pub(crate) async fn connected_to<F: Future>(peer: Option<String>, future: F) -> F::Output {
    let connection = Connection {
        peer,
        ended: AtomicBool::new(false),
    };
    CONNECTION.scope(Arc::new(connection), future).await
}

/// The connection that the current task serves.
pub(crate) fn current() -> Option<Arc<Connection>> {
    CONNECTION.try_with(Arc::clone).ok()
}

impl Connection {
    /// Its other end.
    pub(crate) fn peer(&self) -> Option<&str> {
        self.peer.as_deref()
    }

    /// Notes that it ends. Whether that is the first time.
    pub(crate) fn ends(&self) -> bool {
        !self.ended.swap(true, Ordering::Relaxed)
    }
}
