//! What requests depend on, as one: it is replaced as a whole, and a request keeps to what
//! was in force when it began. What requests share with those of before and after, such as
//! the calls in flight, is elsewhere.

use std::sync::Arc;

use tokio::sync::watch;

use super::Catalog;
use crate::config::Limits;

/// One generation of it.
#[derive(Debug)]
pub struct Snapshot {
    /// What a request may use.
    pub limits: Limits,
    /// Which tools there are.
    pub catalog: Catalog,
}

/// The snapshot in force, whichever that is when it is asked for. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Snapshots(watch::Receiver<Arc<Snapshot>>);

/// Replaces the snapshot in force.
#[derive(Debug)]
pub struct Publisher(watch::Sender<Arc<Snapshot>>);

impl Snapshots {
    /// One that is never replaced.
    pub fn fixed(snapshot: Snapshot) -> Self {
        Publisher::new(snapshot).snapshots()
    }

    /// The one in force now.
    pub fn current(&self) -> Arc<Snapshot> {
        Arc::clone(&self.0.borrow())
    }
}

impl Publisher {
    /// With `snapshot` in force.
    pub fn new(snapshot: Snapshot) -> Self {
        snapshot.catalog.describe();
        Self(watch::Sender::new(Arc::new(snapshot)))
    }

    /// For those who follow it.
    pub fn snapshots(&self) -> Snapshots {
        Snapshots(self.0.subscribe())
    }

    /// From here on `next` is in force. Requests that run go on with the one before, which
    /// ends with the last of them.
    pub fn replace(&self, mut next: Snapshot) {
        next.catalog.describe();
        self.0.send_modify(|current| {
            next.catalog.continue_counting(&current.catalog);
            *current = Arc::new(next);
        });
    }
}
