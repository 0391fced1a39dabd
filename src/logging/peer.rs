//! Whose connection the code that runs serves, for lines about what came on it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

tokio::task_local! {
    static CONNECTION: Arc<Connection>;
}

/// A connection, as the log knows it.
#[derive(Debug, Default)]
pub(super) struct Connection {
    peer: Option<String>,
    ended: AtomicBool,
}

/// Runs `future` as that of a connection to `peer`, if it is known who that is.
pub(crate) async fn connected_to<F: Future>(peer: Option<String>, future: F) -> F::Output {
    let connection = Connection {
        peer,
        ended: AtomicBool::new(false),
    };
    CONNECTION.scope(Arc::new(connection), future).await
}

/// The connection that the code which asks serves.
pub(super) fn current() -> Option<Arc<Connection>> {
    CONNECTION.try_with(Arc::clone).ok()
}

impl Connection {
    /// At its other end.
    pub(super) fn peer(&self) -> Option<&str> {
        self.peer.as_deref()
    }

    /// Notes that it ends; whether that is news.
    pub(super) fn ends(&self) -> bool {
        !self.ended.swap(true, Ordering::Relaxed)
    }
}
