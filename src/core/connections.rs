//! How many connections of callers there are, and may be.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Counts connections and keeps them under a bound. Clones share it.
#[derive(Clone, Debug)]
pub struct Connections {
    free: Arc<Semaphore>,
    max: usize,
}

/// One connection; counted until it is dropped.
#[derive(Debug)]
pub struct Connection {
    _permit: OwnedSemaphorePermit,
}

impl Connections {
    /// At most `max` at a time.
    pub fn new(max: usize) -> Self {
        let max = max.min(Semaphore::MAX_PERMITS);
        Self {
            free: Arc::new(Semaphore::new(max)),
            max,
        }
    }

    /// Counts one more; `None` if there are as many as there may be. Never waits.
    pub fn try_add(&self) -> Option<Connection> {
        let permit = Arc::clone(&self.free).try_acquire_owned();
        permit.ok().map(|permit| Connection { _permit: permit })
    }

    /// How many there are.
    pub fn open(&self) -> usize {
        self.max - self.free.available_permits()
    }

    /// How many there may be.
    pub fn max(&self) -> usize {
        self.max
    }

    /// Whether there are as many as there may be.
    pub fn are_full(&self) -> bool {
        self.free.available_permits() == 0
    }
}
