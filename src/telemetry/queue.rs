//! Finished spans that wait for the collector: a bounded queue, and a count of
//! what was lost, in it or after.

use std::{
    collections::VecDeque,
    error::Error,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use tokio::sync::Notify;
use tonic::Status;

use super::{log_throttle::LogThrottle, names};

/// Spans, encoded.
#[derive(Debug)]
pub(super) struct Queue {
    spans: Mutex<VecDeque<Bytes>>,
    max: usize,
    batch: usize,
    /// There is a batch.
    ready: Notify,
    /// How many are on their way.
    leaving: AtomicUsize,
    queue_full: AtomicU64,
    export_failed: AtomicU64,
    log_throttle: LogThrottle,
}

impl Queue {
    /// For `max` spans, which leave in batches of `batch`.
    pub(super) fn new(max: usize, batch: usize) -> Self {
        Self {
            spans: Mutex::default(),
            max,
            batch,
            ready: Notify::new(),
            leaving: AtomicUsize::new(0),
            queue_full: AtomicU64::new(0),
            export_failed: AtomicU64::new(0),
            log_throttle: LogThrottle::default(),
        }
    }

    /// Takes a span, or loses it if there is no place.
    pub(super) fn push(&self, span: Bytes) {
        let mut spans = self.lock();
        if spans.len() >= self.max {
            drop(spans);
            self.queue_full.fetch_add(1, Ordering::Relaxed);
            return self.complain(None);
        }
        spans.push_back(span);
        let ready = spans.len() >= self.batch;
        drop(spans);
        if ready {
            self.ready.notify_one();
        }
    }

    /// The next batch, of at least `least` spans; `None` if there are fewer. It is on
    /// its way until that has [`ended`](Self::ended).
    pub(super) fn pop(&self, least: usize) -> Option<Vec<Bytes>> {
        let mut spans = self.lock();
        let count = spans.len().min(self.batch);
        if count < least.max(1) {
            return None;
        }
        self.leaving.store(count, Ordering::Relaxed);
        Some(spans.drain(..count).collect())
    }

    /// Notes how the way of the last batch ended.
    pub(super) fn ended(&self, result: &Result<(), Status>) {
        let spans = self.leaving.swap(0, Ordering::Relaxed);
        if let Err(status) = result {
            self.refused(spans, status);
        }
    }

    /// Comes true when there is a batch, or soon after.
    pub(super) async fn ready(&self) {
        self.ready.notified().await;
    }

    /// Notes that the collector did not get, or not take, so many spans.
    pub(super) fn refused(&self, spans: usize, status: &Status) {
        self.export_failed
            .fetch_add(spans as u64, Ordering::Relaxed);
        self.complain(Some(status));
    }

    /// Loses what still waits, and what is on its way.
    pub(super) fn close(&self) {
        let waiting = std::mem::take(&mut *self.lock()).len();
        let lost = waiting + self.leaving.swap(0, Ordering::Relaxed);
        self.export_failed.fetch_add(lost as u64, Ordering::Relaxed);
        if self.lost().iter().any(|(_, count)| *count > 0) {
            self.log("spans were lost", None);
        }
    }

    /// How many were lost, by reason.
    pub(super) fn lost(&self) -> [(&'static str, u64); 2] {
        [
            ("queue_full", self.queue_full.load(Ordering::Relaxed)),
            ("export_failed", self.export_failed.load(Ordering::Relaxed)),
        ]
    }

    fn complain(&self, status: Option<&Status>) {
        if self.log_throttle.is_due() {
            self.log("spans are lost: the collector does not take them", status);
        }
    }

    fn log(&self, message: &str, status: Option<&Status>) {
        let [(_, queue_full), (_, export_failed)] = self.lost();
        let error = status.map(reason);
        tracing::warn!(queue_full, export_failed, error, "{message}");
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Bytes>> {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The status in short, with what is at the bottom of it, such as "Connection refused".
pub(super) fn reason(status: &Status) -> String {
    let mut bottom = status.source();
    while let Some(deeper) = bottom.and_then(Error::source) {
        bottom = Some(deeper);
    }
    let (code, message) = (names::code(status.code()), status.message());
    match bottom {
        Some(bottom) => format!("{code}: {message}: {bottom}"),
        None => format!("{code}: {message}"),
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
        queue.ended(&Ok(()));
        assert_eq!(queue.pop(2), None);
        assert_eq!(queue.pop(1).map(|batch| batch.len()), Some(1));
        queue.ended(&Err(Status::unavailable("gone")));
        assert_eq!(queue.lost(), [("queue_full", 2), ("export_failed", 1)]);
        for _ in 0..3 {
            queue.push(Bytes::from_static(b"span"));
        }
        // At the end two are on their way, and one waits.
        assert_eq!(queue.pop(2).map(|batch| batch.len()), Some(2));
        queue.close();
        assert_eq!(queue.lost(), [("queue_full", 2), ("export_failed", 4)]);
        assert_eq!(queue.pop(1), None);
    }
}
