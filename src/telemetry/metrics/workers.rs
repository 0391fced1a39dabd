//! What the workers do, read when somebody asks.

use std::time::Duration;

use opentelemetry::{
    KeyValue,
    metrics::{AsyncInstrument, Meter},
};

use crate::{core::workers::Workers, telemetry::names};

pub(super) fn observe(meter: &Meter, workers: &Workers) {
    let connections = |workers: &Workers| workers.connections().map(|it| it as u64).collect();
    let stuck = |workers: &Workers| workers.stuck().map(|it| it.is_some().into()).collect();
    for (metric, read) in [
        (&names::WORKER_CONNECTIONS, connections as fn(&_) -> _),
        (&names::WORKER_STUCK, stuck),
    ] {
        meter
            .u64_observable_gauge(metric.name)
            .with_unit(metric.unit)
            .with_description(metric.meaning)
            .with_callback(of_each(workers, read))
            .build();
    }
    let busy = |workers: &Workers| {
        workers
            .busy()
            .map(|it| Duration::as_secs_f64(&it))
            .collect()
    };
    meter
        .f64_observable_counter(names::WORKER_BUSY.name)
        .with_unit(names::WORKER_BUSY.unit)
        .with_description(names::WORKER_BUSY.meaning)
        .with_callback(of_each(workers, busy))
        .build();
}

/// Observes what `read` says, of each worker in turn.
fn of_each<T>(
    workers: &Workers,
    read: fn(&Workers) -> Vec<T>,
) -> impl Fn(&dyn AsyncInstrument<T>) + Send + Sync + use<T> {
    let workers = workers.clone();
    move |observer| {
        for (index, value) in read(&workers).into_iter().enumerate() {
            observer.observe(value, &[KeyValue::new(names::WORKER, index as i64)]);
        }
    }
}
