//! Who is connected to the operators' page, and who goes when there are too many: those
//! who say nothing, the oldest first. Probes must not wait behind them.

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

/// Some scrapers and probes, and room for a leak of theirs.
pub(crate) const MAX_CONNECTIONS: usize = 128;
/// How long a connection may be silent before it gives way: a probe speaks in its first
/// packet, a round trip after it is connected.
const SILENCE: Duration = Duration::from_millis(50);
/// How long an answer may be unread before its connection gives way.
const UNREAD: Duration = Duration::from_millis(500);

/// The connections, in the order of their arrival.
#[derive(Debug, Default)]
pub(super) struct Visitors(VecDeque<Visitor>);

#[derive(Debug)]
struct Visitor {
    since: Instant,
    asked: Asked,
    task: AbortHandle,
}

/// Whether a visitor has asked for something.
#[derive(Clone, Debug, Default)]
pub(super) struct Asked(Arc<AtomicBool>);

impl Asked {
    /// It has.
    pub(super) fn note(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_noted(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Visitors {
    /// Waits until there is room for one more, which takes a moment at most.
    pub(super) async fn make_room(&mut self) {
        loop {
            self.0.retain(|visitor| !visitor.task.is_finished());
            if self.0.len() < MAX_CONNECTIONS {
                return;
            }
            let silent = self.0.iter().position(|visitor| !visitor.asked.is_noted());
            let (index, patience) = silent.map_or((0, UNREAD), |index| (index, SILENCE));
            let goes_at = self.0[index].since + patience;
            if goes_at > Instant::now() {
                // It may have asked by then.
                sleep_until(goes_at).await;
            } else if let Some(visitor) = self.0.remove(index) {
                visitor.task.abort();
                Overflow::AdminConnections.count();
                tracing::warn!(
                    throttle = "admin_connections",
                    connections = MAX_CONNECTIONS,
                    silent = silent.is_some(),
                    "closed the oldest connection to the admin port: there are too many"
                );
            }
        }
    }

    /// Notes one that is served by `task`.
    pub(super) fn add(&mut self, asked: Asked, task: AbortHandle) {
        let since = Instant::now();
        self.0.push_back(Visitor { since, asked, task });
    }
}
