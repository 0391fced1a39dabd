//! How it goes with asking a service what it has.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use tokio::{sync::Notify, time::Instant};

/// For metrics, and for those who want it to be asked again.
#[derive(Debug)]
pub(in crate::catalog) struct Status {
    /// Notified if it seems to have other tools now.
    pub(in crate::catalog) stale: Arc<Notify>,
    tools: AtomicU64,
    left_out: AtomicU64,
    changes: AtomicU64,
    failures: AtomicU64,
    succeeded: Mutex<Option<Instant>>,
    /// When nobody had asked yet.
    began: Instant,
}

impl Status {
    pub(in crate::catalog) fn new() -> Self {
        Self {
            stale: Arc::default(),
            tools: AtomicU64::new(0),
            left_out: AtomicU64::new(0),
            changes: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            succeeded: Mutex::default(),
            began: Instant::now(),
        }
    }

    /// It could be asked.
    pub(in crate::catalog) fn succeeded(&self) {
        *self.last() = Some(Instant::now());
    }

    pub(in crate::catalog) fn failed(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    /// It has something else than before.
    pub(in crate::catalog) fn changed(&self) {
        self.changes.fetch_add(1, Ordering::Relaxed);
    }

    /// So many of what it has are tools, and so many are left out.
    pub(in crate::catalog) fn count(&self, tools: usize, left_out: usize) {
        self.tools.store(tools as u64, Ordering::Relaxed);
        self.left_out.store(left_out as u64, Ordering::Relaxed);
    }

    pub(in crate::catalog) fn tools(&self) -> u64 {
        self.tools.load(Ordering::Relaxed)
    }

    pub(in crate::catalog) fn left_out(&self) -> u64 {
        self.left_out.load(Ordering::Relaxed)
    }

    pub(in crate::catalog) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    pub(in crate::catalog) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// How many seconds ago it could last be asked; if never, since when it can't.
    pub(in crate::catalog) fn age(&self) -> u64 {
        let last = self.last().unwrap_or(self.began);
        last.elapsed().as_secs()
    }

    fn last(&self) -> MutexGuard<'_, Option<Instant>> {
        self.succeeded
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
