//! The gauges of tools and tool services. Whoever knows those in force is asked for each
//! page and each push; nothing is kept in between, so that what is replaced goes.

use std::{collections::HashSet, sync::Arc};

use opentelemetry::{KeyValue, metrics::AsyncInstrument};
use prometheus::proto::MetricFamily;

use super::Metrics;
use crate::telemetry::names::{self, Metric};

/// Something to read of each tool, or of each tool service.
#[derive(Clone, Copy, Debug)]
pub enum Gauge {
    /// Of a tool: calls that wait for their turn.
    QueuedCalls,
    /// Of a tool: calls that are with it.
    ActiveCalls,
    /// Of a tool: 0 closed, 1 half-open, 2 open.
    ToolBreakerState,
    /// Of a tool: how often its circuit breaker has opened.
    ToolBreakerOpenings,
    /// Of a service: as of a tool.
    BreakerState,
    /// Of a service: as of a tool.
    BreakerOpenings,
    /// Of a service: open connections.
    Connections,
    /// Of a service: whether it can be reached, as a `ConnectivityState`.
    Connectivity,
    /// Of a service: addresses that get no calls.
    EjectedAddresses,
    /// Of a service: how many connections were worn by cancels.
    WornConnections,
    /// Of a service that is asked for its tools: how many there are.
    Tools,
    /// Of such a service: how many of what it has are no tools.
    LeftOutTools,
    /// Of such a service: how often it had something else than before.
    ToolChanges,
    /// Of such a service: how often it could not be asked.
    FailedRefreshes,
    /// Of such a service: since how many seconds it could not be asked.
    RefreshAge,
}

/// Who knows the tools and tool services in force.
pub trait GaugeSource: Send + Sync {
    /// Reports the name and the value of each tool or service that has this gauge.
    fn read(&self, gauge: Gauge, report: &mut dyn FnMut(&str, u64));
}

const GAUGES: [(Gauge, &Metric); 8] = [
    (Gauge::ToolBreakerState, &names::TOOL_BREAKER_STATE),
    (Gauge::BreakerState, &names::BREAKER_STATE),
    (Gauge::Connections, &names::CONNECTIONS),
    (Gauge::Connectivity, &names::CONNECTIVITY),
    (Gauge::EjectedAddresses, &names::EJECTED),
    (Gauge::Tools, &names::SERVICE_TOOLS),
    (Gauge::LeftOutTools, &names::LEFT_OUT_TOOLS),
    (Gauge::RefreshAge, &names::REFRESH_AGE),
];
const COUNTERS: [(Gauge, &Metric); 5] = [
    (Gauge::ToolBreakerOpenings, &names::TOOL_BREAKER_OPENINGS),
    (Gauge::BreakerOpenings, &names::BREAKER_OPENINGS),
    (Gauge::WornConnections, &names::WORN_CONNECTIONS),
    (Gauge::ToolChanges, &names::TOOL_CHANGES),
    (Gauge::FailedRefreshes, &names::FAILED_REFRESHES),
];
const CALLS: [(Gauge, &Metric); 2] = [
    (Gauge::ActiveCalls, &names::ACTIVE_CALLS),
    (Gauge::QueuedCalls, &names::QUEUE_LENGTH),
];

impl Metrics {
    /// Reports what `source` knows, too.
    pub(in crate::telemetry) fn watch(&self, source: &Arc<dyn GaugeSource>) {
        let meter = self.meter();
        for (gauge, metric) in GAUGES {
            meter
                .u64_observable_gauge(metric.name)
                .with_unit(metric.unit)
                .with_description(metric.meaning)
                .with_callback(reader(source, gauge, metric, |value| value))
                .build();
        }
        for (gauge, metric) in COUNTERS {
            meter
                .u64_observable_counter(metric.name)
                .with_unit(metric.unit)
                .with_description(metric.meaning)
                .with_callback(reader(source, gauge, metric, |value| value))
                .build();
        }
        for (gauge, metric) in CALLS {
            meter
                .i64_observable_up_down_counter(metric.name)
                .with_unit(metric.unit)
                .with_description(metric.meaning)
                .with_callback(reader(source, gauge, metric, |value| value as i64))
                .build();
        }
    }
}

fn reader<T>(
    source: &Arc<dyn GaugeSource>,
    gauge: Gauge,
    metric: &Metric,
    convert: fn(u64) -> T,
) -> impl Fn(&dyn AsyncInstrument<T>) + Send + Sync + use<T> {
    let (source, label) = (Arc::clone(source), metric.attributes[0]);
    move |observer| {
        source.read(gauge, &mut |name, value| {
            let label = KeyValue::new(label, name.to_owned());
            observer.observe(convert(value), &[label]);
        });
    }
}

/// Takes off the page what was counted of tools that are no more: the SDK keeps it.
pub(super) fn forget_removed_tools(families: &mut Vec<MetricFamily>) {
    let tool = names::TOOL_NAME.replace('.', "_");
    let active = names::ACTIVE_CALLS.name.replace('.', "_");
    let Some(of_all) = families.iter().find(|family| family.name() == active) else {
        return;
    };
    let labels = of_all.get_metric().iter().flat_map(|it| it.get_label());
    let names = labels.filter(|label| label.name() == tool);
    let known: HashSet<String> = names.map(|label| label.value().to_owned()).collect();
    families.retain_mut(|family| {
        let mut metrics = family.take_metric();
        metrics.retain(|metric| {
            let mut labels = metric.get_label().iter();
            let name = labels.find(|label| label.name() == tool);
            name.is_none_or(|it| it.value() == names::OTHER || known.contains(it.value()))
        });
        family.set_metric(metrics);
        // One without metrics can't be written.
        !family.get_metric().is_empty()
    });
}
