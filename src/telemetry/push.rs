//! Metrics on their way to a collector. The SDK would tell nobody if they do not get
//! there.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use opentelemetry_otlp::MetricExporter;
use opentelemetry_sdk::{
    error::OTelSdkResult,
    metrics::{Temporality, data::ResourceMetrics, exporter::PushMetricExporter},
};

use super::complaint::Complaint;

/// An exporter whose failures are logged.
#[derive(Debug)]
pub(super) struct Push {
    exporter: MetricExporter,
    failed: AtomicU64,
    complaint: Complaint,
}

impl Push {
    pub(super) fn new(exporter: MetricExporter) -> Self {
        Self {
            exporter,
            failed: AtomicU64::new(0),
            complaint: Complaint::default(),
        }
    }
}

impl PushMetricExporter for Push {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        let result = self.exporter.export(metrics).await;
        if let Err(error) = &result {
            let failed = 1 + self.failed.fetch_add(1, Ordering::Relaxed);
            if self.complaint.is_due() {
                tracing::warn!(failed, %error, "metrics do not get to the collector");
            }
        }
        result
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn temporality(&self) -> Temporality {
        self.exporter.temporality()
    }
}
