//! Counts the spans that have ended: those that wait for the collector, of which there may
//! be only so many, and those that were lost.
//!
//! The SDK's batch span processor has the same limit, but reveals nowhere how many spans it
//! drops, nor how many its exporter lost. So spans are counted before it gets them, against
//! its own limit, which it then never reaches.

use std::{
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use opentelemetry::Context;
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{BatchSpanProcessor, Span, SpanData, SpanProcessor},
};
use tonic::Status;

use super::{export::reason, log_throttle::LogThrottle};

/// The spans that wait, and those that were lost.
#[derive(Debug)]
pub(super) struct Backlog {
    max: usize,
    spans: Mutex<Spans>,
    queue_full: AtomicU64,
    export_failed: AtomicU64,
    log_throttle: LogThrottle,
}

/// How many there are, by where.
#[derive(Debug, Default)]
struct Spans {
    waiting: usize,
    leaving: usize,
    /// No more spans are sent.
    closed: bool,
}

impl Backlog {
    /// With room for `max` spans.
    pub(super) fn new(max: usize) -> Self {
        Self {
            max,
            spans: Mutex::default(),
            queue_full: AtomicU64::new(0),
            export_failed: AtomicU64::new(0),
            log_throttle: LogThrottle::default(),
        }
    }

    /// Whether there is room for one more span, which then waits. Without room it is lost.
    fn admits(&self) -> bool {
        let mut spans = self.lock();
        if spans.closed {
            self.export_failed.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        if spans.waiting < self.max {
            spans.waiting += 1;
            return true;
        }
        drop(spans);
        self.queue_full.fetch_add(1, Ordering::Relaxed);
        self.complain(None);
        false
    }

    /// Notes that the next `count` spans are being sent, until that has
    /// [`ended`](Self::ended). Whether they may be.
    pub(super) fn leave(&self, count: usize) -> bool {
        let mut spans = self.lock();
        if spans.closed {
            return false;
        }
        spans.waiting = spans.waiting.saturating_sub(count);
        spans.leaving = count;
        true
    }

    /// Notes how sending the last ones ended.
    pub(super) fn ended(&self, result: &Result<(), Status>) {
        let count = mem::take(&mut self.lock().leaving);
        if let Err(status) = result
            && count > 0
        {
            self.refused(count, status);
        }
    }

    /// Notes that `count` spans did not reach the collector, or were rejected by it.
    pub(super) fn refused(&self, count: usize, status: &Status) {
        self.export_failed
            .fetch_add(count as u64, Ordering::Relaxed);
        self.complain(Some(status));
    }

    /// Gives up what still waits, and what is being sent.
    pub(super) fn close(&self) {
        let mut spans = self.lock();
        let lost = mem::take(&mut spans.waiting) + mem::take(&mut spans.leaving);
        spans.closed = true;
        self.export_failed.fetch_add(lost as u64, Ordering::Relaxed);
    }

    /// Logs how many spans were lost in all, if any.
    pub(super) fn report(&self) {
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

    fn lock(&self) -> MutexGuard<'_, Spans> {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The SDK's batch processor, behind the limit of the backlog.
#[derive(Debug)]
pub(super) struct Bounded {
    pub(super) backlog: Arc<Backlog>,
    pub(super) batches: BatchSpanProcessor,
}

impl SpanProcessor for Bounded {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if self.backlog.admits() {
            self.batches.on_end(span);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.batches.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        // A provider that is dropped shuts down, too, and would block its thread.
        if self.backlog.lock().closed {
            return Ok(());
        }
        self.batches.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.batches.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{Span as _, Tracer as _, TracerProvider as _};
    use opentelemetry_sdk::trace::{SdkTracerProvider, SpanExporter};

    use super::*;

    #[test]
    fn what_does_not_fit_is_counted() {
        let backlog = Backlog::new(3);
        let admitted = || (0..5).filter(|_| backlog.admits()).count();
        assert_eq!(admitted(), 3);
        assert_eq!(backlog.lost(), [("queue_full", 2), ("export_failed", 0)]);
        assert!(backlog.leave(2));
        backlog.ended(&Ok(()));
        assert!(backlog.leave(1));
        backlog.ended(&Err(Status::unavailable("gone")));
        assert_eq!(backlog.lost(), [("queue_full", 2), ("export_failed", 1)]);
        // Those that are being sent make room for others.
        assert_eq!(admitted(), 3);
        assert!(backlog.leave(2));
        assert_eq!(admitted(), 2);
        assert_eq!(backlog.lost(), [("queue_full", 7), ("export_failed", 1)]);
        backlog.close();
        assert_eq!(backlog.lost(), [("queue_full", 7), ("export_failed", 6)]);
        assert!(!backlog.leave(3));
        backlog.ended(&Err(Status::unavailable("gone")));
        assert_eq!(backlog.lost(), [("queue_full", 7), ("export_failed", 6)]);
    }

    /// Never finishes an export.
    #[derive(Debug)]
    struct Stuck;

    impl SpanExporter for Stuck {
        async fn export(&self, _: Vec<SpanData>) -> OTelSdkResult {
            std::future::pending().await
        }
    }

    #[test]
    fn who_is_dropped_does_not_wait() {
        let backlog = Arc::new(Backlog::new(10));
        let processor = Bounded {
            backlog: Arc::clone(&backlog),
            batches: BatchSpanProcessor::builder(Stuck).build(),
        };
        let provider = SdkTracerProvider::builder().with_span_processor(processor);
        let provider = provider.build();
        provider.tracer("test").start("waits").end();
        backlog.close();
        assert_eq!(backlog.lost(), [("queue_full", 0), ("export_failed", 1)]);
        // The SDK would wait for so long.
        let for_ever = Duration::from_secs(1 << 30);
        assert!(provider.shutdown_with_timeout(for_ever).is_ok());
    }
}
