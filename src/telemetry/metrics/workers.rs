//! What the workers do, read when somebody asks.

use opentelemetry::{KeyValue, metrics::Meter};

use crate::{core::workers::Workers, telemetry::names};

pub(super) fn observe(meter: &Meter, workers: &Workers) {
    let (connections, stuck, busy) = (workers.clone(), workers.clone(), workers.clone());
    meter
        .u64_observable_gauge(names::WORKER_CONNECTIONS.name)
        .with_unit(names::WORKER_CONNECTIONS.unit)
        .with_description(names::WORKER_CONNECTIONS.meaning)
        .with_callback(move |observer| {
            for (index, count) in connections.connections().enumerate() {
                observer.observe(count as u64, &[label(index)]);
            }
        })
        .build();
    meter
        .u64_observable_gauge(names::WORKER_STUCK.name)
        .with_unit(names::WORKER_STUCK.unit)
        .with_description(names::WORKER_STUCK.meaning)
        .with_callback(move |observer| {
            for (index, time) in stuck.stuck().enumerate() {
                observer.observe(u64::from(time.is_some()), &[label(index)]);
            }
        })
        .build();
    meter
        .f64_observable_counter(names::WORKER_BUSY.name)
        .with_unit(names::WORKER_BUSY.unit)
        .with_description(names::WORKER_BUSY.meaning)
        .with_callback(move |observer| {
            for (index, time) in busy.busy().enumerate() {
                observer.observe(time.as_secs_f64(), &[label(index)]);
            }
        })
        .build();
}

fn label(index: usize) -> KeyValue {
    KeyValue::new(names::WORKER, index as i64)
}
