//! Sends metrics to a collector, and logs when that fails, which the SDK does not.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http::uri::PathAndQuery;
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_sdk::{
    error::{OTelSdkError, OTelSdkResult},
    metrics::{Temporality, data::ResourceMetrics, exporter::PushMetricExporter},
};
use tokio::runtime::Handle;

use super::{
    export::{Export, Exporter, reason},
    log_throttle::LogThrottle,
    settings::OtlpMetrics,
};

impl Export for ExportMetricsServiceRequest {
    type Answer = ExportMetricsServiceResponse;
    const METHOD: PathAndQuery = PathAndQuery::from_static(
        "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
    );
}

/// The exporter that the SDK calls.
pub(super) struct Push {
    exporter: Arc<Exporter>,
    temporality: Temporality,
    /// The SDK calls this from a thread of its own.
    runtime: Handle,
    failed: AtomicU64,
    log_throttle: LogThrottle,
}

impl Push {
    /// Does not connect.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub(super) fn new(metrics: &OtlpMetrics) -> Self {
        Self {
            exporter: Arc::new(Exporter::new(metrics.otlp.clone())),
            temporality: metrics.temporality,
            runtime: Handle::current(),
            failed: AtomicU64::new(0),
            log_throttle: LogThrottle::default(),
        }
    }
}

impl PushMetricExporter for Push {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        let export = ExportMetricsServiceRequest::from(metrics);
        let exporter = Arc::clone(&self.exporter);
        let sent = self
            .runtime
            .spawn(async move { exporter.send(export).await });
        let problem = match sent.await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(status)) => reason(&status),
            Err(_) => "the process ends".to_owned(),
        };
        let failed = 1 + self.failed.fetch_add(1, Ordering::Relaxed);
        if self.log_throttle.is_due() {
            tracing::warn!(
                failed,
                error = problem,
                "metrics do not get to the collector"
            );
        }
        Err(OTelSdkError::InternalFailure(problem))
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }

    fn temporality(&self) -> Temporality {
        self.temporality
    }
}

impl fmt::Debug for Push {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Push")
            .field("temporality", &self.temporality)
            .finish_non_exhaustive()
    }
}
