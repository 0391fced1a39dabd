//! The instruments: what is measured, and the two ways out of them, a page for
//! Prometheus and pushes to a collector.
//!
//! Labels are bounded: tools are those of the catalogue, and methods those that are
//! served; anything else is `_OTHER`. Gauges are plain counters that are
//! read when somebody asks.

pub(super) mod gauges;
mod series;
mod target_info;
pub(super) mod tool;
mod workers;

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use opentelemetry::{
    InstrumentationScope, KeyValue,
    metrics::{Counter, Histogram, Meter, MeterProvider as _},
};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    metrics::{Instrument, PeriodicReader, SdkMeterProvider, Stream},
};
use prometheus::{Registry, TextEncoder, proto::MetricFamily};

use self::series::MethodSeries;
use super::{
    backlog::Backlog,
    names::{self, Metric},
    push::Push,
};
use crate::{
    core::{
        admission::Admission, buffered::Buffered, connections::Connections, overflow,
        workers::Workers,
    },
    logging,
};

/// Seconds; what the RPC conventions advise.
const RPC_SECONDS: [f64; 14] = [
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
];
/// Seconds; what the GenAI conventions advise.
const TOOL_SECONDS: [f64; 14] = [
    0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92,
];
/// Seconds; most calls do not wait at all.
const WAIT_SECONDS: [f64; 10] = [0.000_1, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0];
const BATCH_CALLS: [f64; 10] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 1024.0];

/// More than the ways in which calls of one tool end. Beyond so many series of one
/// metric, of all tools, the SDK would throw the rest into one; by default beyond
/// 2000. It never forgets the series of a tool that is gone: there is room for twice as
/// many tools as there are at the start.
const SERIES_OF_A_TOOL: usize = 20;
const LEAST_TOOLS: usize = 100;

/// The instruments that code records to.
#[derive(Debug)]
pub(super) struct Metrics {
    server_duration: Histogram<f64>,
    client_duration: Histogram<f64>,
    tool_duration: Histogram<f64>,
    pub(super) queue_wait: Histogram<f64>,
    pub(super) request_rejections: Counter<u64>,
    pub(super) tool_rejections: Counter<u64>,
    pub(super) retries: Counter<u64>,
    pub(super) timeouts: Counter<u64>,
    pub(super) context_left_out: Counter<u64>,
    batch_size: Histogram<u64>,
    saved_time: Counter<f64>,
    pub(super) deadline_slack: Histogram<f64>,
    by_method: MethodSeries,
    /// Tells its series from those of other metrics in the same process.
    owner: u64,
    provider: SdkMeterProvider,
    page: Option<Page>,
}

/// What the page for Prometheus is made of.
#[derive(Debug)]
struct Page {
    registry: Registry,
    target_info: MetricFamily,
}

/// The RPCs that run, in the order of [`names::METHODS`].
pub(super) type Running = [AtomicI64; names::METHODS.len()];

/// Where metrics go.
#[derive(Debug)]
pub(super) struct Readers {
    pub(super) prometheus: bool,
    pub(super) otlp: Option<PeriodicReader<Push>>,
    /// How many settings of the environment are not followed.
    pub(super) ignored_settings: usize,
}

impl Metrics {
    /// With room for the series of so many tools; `None` if they go nowhere.
    pub(super) fn new(
        readers: Readers,
        resource: Resource,
        tools: usize,
        running: &Arc<Running>,
        spans: Option<Arc<Backlog>>,
    ) -> Option<Self> {
        if !readers.prometheus && readers.otlp.is_none() {
            return None;
        }
        let series = SERIES_OF_A_TOOL * tools.saturating_mul(2).max(LEAST_TOOLS);
        let target_info = target_info::family(&resource);
        let mut provider = SdkMeterProvider::builder()
            .with_resource(resource)
            .with_view(move |_: &Instrument| {
                let stream = Stream::builder().with_cardinality_limit(series);
                stream.build().ok()
            });
        let mut page = None;
        if readers.prometheus {
            let registry = Registry::new();
            let reader = opentelemetry_prometheus::exporter()
                .with_registry(registry.clone())
                .scope_info_enabled(false)
                .without_target_info()
                .build();
            // Fails only for a registry that has it already.
            if let Ok(reader) = reader {
                provider = provider.with_reader(reader);
                page = Some(Page {
                    registry,
                    target_info,
                });
            }
        }
        if let Some(reader) = readers.otlp {
            provider = provider.with_reader(reader);
        }
        let provider = provider.build();
        let meter = meter(&provider);
        observe_requests(&meter, running);
        let ignored = readers.ignored_settings as u64;
        observe(&meter, &names::IGNORED_SETTINGS, move || ignored);
        if let Some(backlog) = spans {
            observe_losses(&meter, &names::DROPPED_SPANS, move || backlog.lost());
        }
        observe_losses(&meter, &names::DROPPED_LINES, logging::dropped_lines);
        observe_losses(&meter, &names::OVERFLOWS, overflow::counts);
        let seconds = |metric: &Metric, bounds: &[f64]| {
            meter
                .f64_histogram(metric.name)
                .with_unit(metric.unit)
                .with_description(metric.meaning)
                .with_boundaries(bounds.to_vec())
                .build()
        };
        let counter = |metric: &Metric| {
            meter
                .u64_counter(metric.name)
                .with_unit(metric.unit)
                .with_description(metric.meaning)
                .build()
        };
        Some(Self {
            server_duration: seconds(&names::SERVER_DURATION, &RPC_SECONDS),
            client_duration: seconds(&names::CLIENT_DURATION, &RPC_SECONDS),
            tool_duration: seconds(&names::TOOL_DURATION, &TOOL_SECONDS),
            queue_wait: seconds(&names::QUEUE_WAIT, &WAIT_SECONDS),
            deadline_slack: seconds(&names::DEADLINE_SLACK, &RPC_SECONDS),
            request_rejections: counter(&names::REQUEST_REJECTIONS),
            tool_rejections: counter(&names::TOOL_REJECTIONS),
            retries: counter(&names::RETRIES),
            timeouts: counter(&names::TIMEOUTS),
            context_left_out: counter(&names::CONTEXT_LEFT_OUT),
            batch_size: meter
                .u64_histogram(names::REQUEST_BATCH_SIZE.name)
                .with_unit(names::REQUEST_BATCH_SIZE.unit)
                .with_description(names::REQUEST_BATCH_SIZE.meaning)
                .with_boundaries(BATCH_CALLS.to_vec())
                .build(),
            saved_time: meter
                .f64_counter(names::SAVED_TIME.name)
                .with_unit(names::SAVED_TIME.unit)
                .with_description(names::SAVED_TIME.meaning)
                .build(),
            by_method: MethodSeries::default(),
            owner: series::new_owner(),
            provider,
            page,
        })
    }

    fn meter(&self) -> Meter {
        meter(&self.provider)
    }

    /// Reports on the calls in flight, too.
    pub(super) fn watch_admission(&self, admission: &Admission) {
        self.observe(&names::IN_FLIGHT_CALLS, admission, Admission::in_flight);
        self.observe(&names::IN_FLIGHT_LIMIT, admission, Admission::max);
    }

    /// Reports on the bytes that are held, too.
    pub(super) fn watch_buffered(&self, buffered: &Buffered) {
        self.observe(&names::BUFFERED_BYTES, buffered, Buffered::held);
        self.observe(&names::BUFFERED_LIMIT, buffered, Buffered::max);
    }

    /// Reports on the connections of callers, too.
    pub(super) fn watch_connections(&self, connections: &Connections) {
        self.observe(&names::SERVER_CONNECTIONS, connections, Connections::open);
        let limit = &names::SERVER_CONNECTIONS_LIMIT;
        self.observe(limit, connections, Connections::max);
    }

    pub(super) fn watch_workers(&self, workers: &Workers) {
        workers::observe(&self.meter(), workers);
    }

    fn observe<T>(&self, metric: &Metric, of: &T, read: fn(&T) -> usize)
    where
        T: Clone + Send + Sync + 'static,
    {
        let of = of.clone();
        observe(&self.meter(), metric, move || read(&of) as u64);
    }

    /// The page for Prometheus, in its text format; `None` if there is none.
    pub(super) fn page(&self) -> Option<Result<String, prometheus::Error>> {
        let page = self.page.as_ref()?;
        let mut families = page.registry.gather();
        gauges::forget_removed_tools(&mut families);
        families.push(page.target_info.clone());
        Some(TextEncoder::new().encode_to_string(&families))
    }

    /// Pushes once more. Blocks for up to 5 s, the SDK's limit.
    pub(super) fn shutdown(&self) -> OTelSdkResult {
        self.provider.shutdown()
    }
}

fn meter(provider: &SdkMeterProvider) -> Meter {
    let scope = InstrumentationScope::builder(names::SCOPE)
        .with_version(env!("CARGO_PKG_VERSION"))
        .with_schema_url(names::SCHEMA_URL);
    provider.meter_with_scope(scope.build())
}

fn observe(meter: &Meter, metric: &Metric, read: impl Fn() -> u64 + Send + Sync + 'static) {
    meter
        .u64_observable_gauge(metric.name)
        .with_unit(metric.unit)
        .with_description(metric.meaning)
        .with_callback(move |observer| observer.observe(read(), &[]))
        .build();
}

fn observe_requests(meter: &Meter, running: &Arc<Running>) {
    let running = Arc::clone(running);
    meter
        .i64_observable_up_down_counter(names::ACTIVE_REQUESTS.name)
        .with_unit(names::ACTIVE_REQUESTS.unit)
        .with_description(names::ACTIVE_REQUESTS.meaning)
        .with_callback(move |observer| {
            for (method, count) in names::METHODS.iter().zip(running.iter()) {
                let count = count.load(Ordering::Relaxed);
                observer.observe(count, &[KeyValue::new(names::RPC_METHOD, *method)]);
            }
        })
        .build();
}

/// Reports how many were lost in each way.
fn observe_losses<L>(
    meter: &Meter,
    metric: &'static Metric,
    losses: impl Fn() -> L + Send + Sync + 'static,
) where
    L: IntoIterator<Item = (&'static str, u64)>,
{
    meter
        .u64_observable_counter(metric.name)
        .with_unit(metric.unit)
        .with_description(metric.meaning)
        .with_callback(move |observer| {
            let label = metric.attributes[0];
            for (reason, count) in losses() {
                observer.observe(count, &[KeyValue::new(label, reason)]);
            }
        })
        .build();
}
