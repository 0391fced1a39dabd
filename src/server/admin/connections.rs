//! The connections to the admin port. When there are too many, the oldest is closed,
//! idle ones first, so that probes need not wait behind them.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    task::AbortHandle,
    time::{Instant, sleep_until},
};

use crate::core::overflow::Overflow;

/// For some scrapers and probes, and room for those that leak connections.
pub(crate) const MAX_CONNECTIONS: usize = 128;
/// How long a connection may be idle before it can be closed: a probe sends its request
/// at once.
const IDLE: Duration = Duration::from_millis(50);
/// How long a response may be unread before its connection can be closed.
const UNREAD: Duration = Duration::from_millis(500);

/// The connections, oldest first.
#[derive(Debug, Default)]
pub(super) struct Connections(VecDeque<Connection>);

#[derive(Debug)]
struct Connection {
    since: Instant,
    requested: Requested,
    task: AbortHandle,
}

/// Whether a request has arrived on a connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Requested(Arc<AtomicBool>);

impl Requested {
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Connections {
    /// Waits, for a moment at most, until there is room for one more.
    pub(super) async fn make_room(&mut self) {
        loop {
            self.0.retain(|connection| !connection.task.is_finished());
            if self.0.len() < MAX_CONNECTIONS {
                return;
            }
            let idle = self.0.iter().position(|it| !it.requested.get());
            let (index, patience) = idle.map_or((0, UNREAD), |index| (index, IDLE));
            let closes_at = self.0[index].since + patience;
            if closes_at > Instant::now() {
                // Its request may arrive by then.
                sleep_until(closes_at).await;
            } else if let Some(connection) = self.0.remove(index) {
                connection.task.abort();
                Overflow::AdminConnections.count();
                tracing::warn!(
                    throttle = "admin_connections",
                    connections = MAX_CONNECTIONS,
                    silent = idle.is_some(),
                    "closed the oldest connection to the admin port: there are too many"
                );
            }
        }
    }

    /// Adds one that is served by `task`.
    pub(super) fn add(&mut self, requested: Requested, task: AbortHandle) {
        let since = Instant::now();
        self.0.push_back(Connection {
            since,
            requested,
            task,
        });
    }
}
