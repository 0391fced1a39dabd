//! What tool services and circuit breakers tell when somebody asks.

use std::{fmt, sync::Arc};

use opentelemetry::{KeyValue, metrics::AsyncInstrument};

use super::Metrics;
use crate::telemetry::names::{self, Metric};

type Read = Box<dyn Fn() -> u64 + Send + Sync>;

/// What there is to see of one circuit breaker.
pub struct BreakerGauges {
    /// Whose it is.
    pub name: Arc<str>,
    /// 0 closed, 1 half-open, 2 open.
    pub state: Read,
    /// How often it has opened.
    pub openings: Read,
}

/// What there is to see of one tool service.
pub struct ServiceGauges {
    /// Of its circuit breaker, and its name.
    pub breaker: BreakerGauges,
    /// Open connections.
    pub connections: Read,
    /// Whether it can be reached: a `ConnectivityState`.
    pub connectivity: Read,
    /// Addresses that get no calls.
    pub ejected: Read,
    /// How many connections were worn by cancels.
    pub worn: Read,
}

impl Metrics {
    /// Reports on these tool services, and the breakers of these tools, too.
    pub(in crate::telemetry) fn watch(
        &self,
        services: Vec<ServiceGauges>,
        tools: Vec<BreakerGauges>,
    ) {
        let label = |metric: &Metric, name: &Arc<str>| {
            KeyValue::new(metric.attributes[0], Arc::clone(name))
        };
        let services: Arc<[ServiceGauges]> = services.into();
        let of_services = |metric: &'static Metric, read: fn(&ServiceGauges) -> u64| {
            let services = Arc::clone(&services);
            move |observer: &dyn AsyncInstrument<u64>| {
                for service in services.iter() {
                    let labels = [label(metric, &service.breaker.name)];
                    observer.observe(read(service), &labels);
                }
            }
        };
        let tools: Arc<[BreakerGauges]> = tools.into();
        let of_tools = |metric: &'static Metric, read: fn(&BreakerGauges) -> u64| {
            let tools = Arc::clone(&tools);
            move |observer: &dyn AsyncInstrument<u64>| {
                for tool in tools.iter() {
                    observer.observe(read(tool), &[label(metric, &tool.name)]);
                }
            }
        };
        let metric = &names::BREAKER_STATE;
        self.gauge(metric, of_services(metric, |s| (s.breaker.state)()));
        let metric = &names::CONNECTIONS;
        self.gauge(metric, of_services(metric, |s| (s.connections)()));
        let metric = &names::CONNECTIVITY;
        self.gauge(metric, of_services(metric, |s| (s.connectivity)()));
        let metric = &names::EJECTED;
        self.gauge(metric, of_services(metric, |s| (s.ejected)()));
        let metric = &names::WORN_CONNECTIONS;
        self.counter(metric, of_services(metric, |s| (s.worn)()));
        let metric = &names::BREAKER_OPENINGS;
        self.counter(metric, of_services(metric, |s| (s.breaker.openings)()));
        let metric = &names::TOOL_BREAKER_STATE;
        self.gauge(metric, of_tools(metric, |tool| (tool.state)()));
        let metric = &names::TOOL_BREAKER_OPENINGS;
        self.counter(metric, of_tools(metric, |tool| (tool.openings)()));
    }

    fn gauge(
        &self,
        metric: &Metric,
        observe: impl Fn(&dyn AsyncInstrument<u64>) + Send + Sync + 'static,
    ) {
        self.meter()
            .u64_observable_gauge(metric.name)
            .with_unit(metric.unit)
            .with_description(metric.meaning)
            .with_callback(observe)
            .build();
    }

    fn counter(
        &self,
        metric: &Metric,
        observe: impl Fn(&dyn AsyncInstrument<u64>) + Send + Sync + 'static,
    ) {
        self.meter()
            .u64_observable_counter(metric.name)
            .with_unit(metric.unit)
            .with_description(metric.meaning)
            .with_callback(observe)
            .build();
    }
}

impl fmt::Debug for BreakerGauges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BreakerGauges")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for ServiceGauges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceGauges")
            .field("name", &self.breaker.name)
            .finish_non_exhaustive()
    }
}
