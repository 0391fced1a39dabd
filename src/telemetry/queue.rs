//! Finished spans that wait for the collector: a bounded queue, and a count of
//! what was lost.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{sync::Notify, time::Instant};

/// How often the log says that spans are lost.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Spans, encoded.
#[derive(Debug)]
pub(super) struct Queue {
    spans: Mutex<VecDeque<Bytes>>,
    max: usize,
    batch: usize,
    /// There is a batch.
    ready: Notify,
    lost: Lost,
}

/// Why a span did not reach the collector.
#[derive(Clone, Copy, Debug)]
pub(super) enum Loss {
    QueueFull,
    ExportFailed,
}

#[derive(Debug)]
struct Lost {
    queue_full: AtomicU64,
    export_failed: AtomicU64,
    logged: Mutex<Option<Instant>>,
}

impl Queue {
    /// For `max` spans, which leave in batches of `batch`.
    pub(super) fn new(max: usize, batch: usize) -> Self {
        Self {
            spans: Mutex::default(),
            max,
            batch,
            ready: Notify::new(),
            lost: Lost {
                queue_full: AtomicU64::new(0),
                export_failed: AtomicU64::new(0),
                logged: Mutex::new(None),
            },
        }
    }

    /// Takes a span, or loses it if there is no place.
    pub(super) fn push(&self, span: Bytes) {
        let mut spans = self.lock();
        if spans.len() >= self.max {
            drop(spans);
            return self.lose(Loss::QueueFull, 1);
        }
        spans.push_back(span);
        let ready = spans.len() >= self.batch;
        drop(spans);
        if ready {
            self.ready.notify_one();
        }
    }

    /// The next batch, of at least `least` spans; `None` if there are fewer.
    pub(super) fn pop(&self, least: usize) -> Option<Vec<Bytes>> {
        let mut spans = self.lock();
        let count = spans.len().min(self.batch);
        (count >= least.max(1)).then(|| spans.drain(..count).collect())
    }

    /// Comes true when there is a batch, or soon after.
    pub(super) async fn ready(&self) {
        self.ready.notified().await;
    }

    /// Notes that so many spans did not make it.
    pub(super) fn lose(&self, why: Loss, spans: usize) {
        let count = match why {
            Loss::QueueFull => &self.lost.queue_full,
            Loss::ExportFailed => &self.lost.export_failed,
        };
        count.fetch_add(spans as u64, Ordering::Relaxed);
        let mut logged = self
            .lost
            .logged
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if logged.is_none_or(|at| at.elapsed() >= LOG_INTERVAL) {
            *logged = Some(Instant::now());
            drop(logged);
            self.log("spans are lost: the collector does not take them");
        }
    }

    /// Loses what still waits.
    pub(super) fn close(&self) {
        let waiting = std::mem::take(&mut *self.lock()).len();
        self.lost
            .export_failed
            .fetch_add(waiting as u64, Ordering::Relaxed);
        if self.lost().iter().any(|(_, count)| *count > 0) {
            self.log("spans were lost");
        }
    }

    /// How many were lost, by reason.
    pub(super) fn lost(&self) -> [(&'static str, u64); 2] {
        let lost = &self.lost;
        [
            ("queue_full", lost.queue_full.load(Ordering::Relaxed)),
            ("export_failed", lost.export_failed.load(Ordering::Relaxed)),
        ]
    }

    fn log(&self, message: &str) {
        let [(_, queue_full), (_, export_failed)] = self.lost();
        tracing::warn!(queue_full, export_failed, "{message}");
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Bytes>> {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_counted() {
        let queue = Queue::new(3, 2);
        for _ in 0..5 {
            queue.push(Bytes::from_static(b"span"));
        }
        assert_eq!(queue.lost(), [("queue_full", 2), ("export_failed", 0)]);
        assert_eq!(queue.pop(2).map(|batch| batch.len()), Some(2));
        assert_eq!(queue.pop(2), None);
        queue.close();
        assert_eq!(queue.lost(), [("queue_full", 2), ("export_failed", 1)]);
        assert_eq!(queue.pop(1), None);
    }
}
