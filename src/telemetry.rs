//! Telemetry: spans, metrics and the trace context, wrapped around both edges.
//!
//! `rpc` observes a request from its arrival to the end of its response, `batch` its
//! calls, `attempt` each attempt at a tool. They write to `spans` and `metrics`, under the
//! names in [`names`], what [`settings`] asks for. Of calls and attempts they learn as the
//! core's [`Observer`](crate::core::observer::Observer).
//!
//! Nothing here waits for a collector: spans go into a bounded queue, metrics are
//! counters, and what does not get through is counted.

pub(crate) mod attempt;
mod backlog;
pub(crate) mod batch;
mod content;
pub mod export;
mod log_throttle;
mod metrics;
pub mod names;
mod propagation;
mod push;
pub(crate) mod rpc;
pub mod settings;
mod span;
mod spans;

use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use opentelemetry_sdk::metrics::PeriodicReader;
use tokio::{task::spawn_blocking, time::timeout};

use crate::core::{
    admission::Admission, buffered::Buffered, connections::Connections, workers::Workers,
};
pub use metrics::gauges::{Gauge, GaugeSource};
pub(crate) use metrics::tool::ToolGauges;
use metrics::{Metrics, Readers, Running};
use push::Push;
use settings::{Propagators, Settings};
use spans::Spans;

/// The telemetry of a server. Cheap to clone. The default passes the caller's
/// context on to tools and does nothing else.
#[derive(Clone)]
pub struct Telemetry(Arc<Inner>);

struct Inner {
    propagators: Propagators,
    spans: Option<Spans>,
    metrics: Option<Metrics>,
    /// The most of arguments and of an observation that a span has, in bytes.
    capture_content: Option<usize>,
    /// From when on a call is slow; if ever.
    slow_call: OnceLock<Duration>,
    /// Of calls whose names no tool has.
    other_tools: Arc<ToolGauges>,
    running: Arc<Running>,
}

impl Telemetry {
    /// Starts what `settings` ask for, for a server with about so many tools. Does not wait
    /// for a collector. Tells the log what of the environment is ignored.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub fn start(settings: &Settings, tools: usize) -> Self {
        for ignored in &settings.ignored {
            let (variable, problem) = (&*ignored.key, &*ignored.problem);
            tracing::warn!(variable, problem, "a setting of telemetry is ignored");
        }
        let resource = export::resource(&settings.resource);
        let traces = settings.traces.as_ref();
        let spans = traces.map(|traces| Spans::start(traces, &resource));
        let otlp = settings.metrics.otlp.as_ref().map(|metrics| {
            let reader = PeriodicReader::builder(Push::new(metrics));
            reader.with_interval(metrics.interval).build()
        });
        let readers = Readers {
            prometheus: settings.metrics.prometheus,
            otlp,
            ignored_settings: settings.ignored.len(),
        };
        let running = Arc::default();
        let backlog = spans.as_ref().map(|spans| Arc::clone(spans.backlog()));
        Self(Arc::new(Inner {
            propagators: settings.propagators,
            metrics: Metrics::new(readers, resource, tools, &running, backlog),
            spans,
            capture_content: settings.capture_content,
            slow_call: OnceLock::new(),
            other_tools: Arc::new(ToolGauges::other()),
            running,
        }))
    }

    /// Sends what is left, for at most `limit`, and ends. What an unreachable
    /// collector does not take by then is lost.
    pub async fn shutdown(self, limit: Duration) {
        let inner = Arc::clone(&self.0);
        // The SDK blocks, and longer than this: its limit can't be set.
        let metrics = spawn_blocking(move || {
            if let Some(metrics) = &inner.metrics {
                let _ = metrics.shutdown();
            }
        });
        let spans = async {
            if let Some(spans) = &self.0.spans {
                spans.shutdown(limit).await;
            }
        };
        let (_, pushed) = tokio::join!(spans, timeout(limit, metrics));
        if pushed.is_err() {
            tracing::warn!(
                limit = limit.as_secs_f64(),
                "the collector did not take the last metrics in time"
            );
        }
    }

    /// From now on each call that takes so long or longer has a line in the log. Only
    /// the first of several times counts.
    pub fn log_slow_calls(&self, least: Duration) {
        let _ = self.0.slow_call.set(least);
    }

    /// Has the metrics report on the tools and tool services that `source` knows, too.
    pub fn watch(&self, source: impl GaugeSource + 'static) {
        if let Some(metrics) = &self.0.metrics {
            metrics.watch(&(Arc::new(source) as Arc<dyn GaugeSource>));
        }
    }

    /// Has the metrics report on the calls in flight, too.
    pub fn watch_admission(&self, admission: &Admission) {
        if let Some(metrics) = &self.0.metrics {
            metrics.watch_admission(admission);
        }
    }

    /// Has the metrics report on the bytes that are held, too.
    pub fn watch_buffered(&self, buffered: &Buffered) {
        if let Some(metrics) = &self.0.metrics {
            metrics.watch_buffered(buffered);
        }
    }

    /// Has the metrics report on the connections of callers, too.
    pub fn watch_connections(&self, connections: &Connections) {
        if let Some(metrics) = &self.0.metrics {
            metrics.watch_connections(connections);
        }
    }

    /// Reports what the workers do.
    pub fn watch_workers(&self, workers: &Workers) {
        if let Some(metrics) = &self.0.metrics {
            metrics.watch_workers(workers);
        }
    }

    /// The page for Prometheus, in its text format; `None` if there is none.
    ///
    /// # Errors
    /// If two metrics contradict each other.
    pub fn page(&self) -> Option<Result<String, prometheus::Error>> {
        self.0.metrics.as_ref()?.page()
    }
}

impl Default for Telemetry {
    fn default() -> Self {
        Self(Arc::new(Inner {
            propagators: Propagators {
                trace_context: true,
                baggage: true,
            },
            spans: None,
            metrics: None,
            capture_content: None,
            slow_call: OnceLock::new(),
            other_tools: Arc::new(ToolGauges::other()),
            running: Arc::default(),
        }))
    }
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry")
            .field("propagators", &self.0.propagators)
            .field("spans", &self.0.spans.is_some())
            .field("metrics", &self.0.metrics.is_some())
            .finish_non_exhaustive()
    }
}
