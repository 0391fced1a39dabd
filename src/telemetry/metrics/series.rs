//! The series that nearly all values go to, each bound to its labels ("Bind" in the
//! OpenTelemetry metrics API): to look a series up by its labels costs more than all else
//! about recording a value. What is rare is recorded by its labels.
//!
//! A series is bound when it gets its first value: before, it would show as one of zeros.

use std::{
    array::from_fn,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use opentelemetry::{
    KeyValue,
    metrics::{BoundCounter, BoundHistogram},
};

use super::{Metrics, tool::ToolGauges};
use crate::{
    core::observer::Target,
    telemetry::names::{self, METHODS},
};

/// The status of what has not failed.
const OK: &str = "OK";
/// The series of each of [`METHODS`].
#[derive(Debug)]
pub(super) struct MethodSeries([OfMethod; METHODS.len()]);

#[derive(Debug, Default)]
struct OfMethod {
    /// Of those that were served.
    duration: OnceLock<BoundHistogram<f64>>,
    batch_size: OnceLock<BoundHistogram<u64>>,
    saved_time: OnceLock<BoundCounter<f64>>,
}

impl Default for MethodSeries {
    fn default() -> Self {
        Self(from_fn(|_| OfMethod::default()))
    }
}

/// A number that no other [`Metrics`] has.
pub(super) fn new_owner() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Ordering::Relaxed)
}

impl Metrics {
    /// An RPC of that method ended so many seconds after its arrival.
    pub(in crate::telemetry) fn rpc_ended(
        &self,
        method: usize,
        code: &'static str,
        is_error: bool,
        seconds: f64,
    ) {
        let labels = || {
            [
                KeyValue::new(names::RPC_SYSTEM, names::GRPC),
                KeyValue::new(names::RPC_METHOD, METHODS[method]),
                KeyValue::new(names::STATUS_CODE, code),
                KeyValue::new(names::ERROR_TYPE, code),
            ]
        };
        if code == OK {
            let series = &self.by_method.0[method].duration;
            let series = series.get_or_init(|| self.server_duration.bind(&labels()[..3]));
            series.record(seconds);
        } else {
            let count = if is_error { 4 } else { 3 };
            self.server_duration.record(seconds, &labels()[..count]);
        }
    }

    /// An RPC of that method has so many calls.
    pub(in crate::telemetry) fn batch_started(&self, method: usize, calls: usize) {
        let series = &self.by_method.0[method].batch_size;
        let series = series.get_or_init(|| self.batch_size.bind(&[label_of_method(method)]));
        series.record(calls as u64);
    }

    /// The calls of an RPC of that method took so many seconds less than one after the other.
    pub(in crate::telemetry) fn time_saved(&self, method: usize, seconds: f64) {
        let series = &self.by_method.0[method].saved_time;
        let series = series.get_or_init(|| self.saved_time.bind(&[label_of_method(method)]));
        series.add(seconds);
    }

    /// A call of that tool ended after so many seconds.
    pub(in crate::telemetry) fn call_ended(
        &self,
        tool: &ToolGauges,
        error: Option<&'static str>,
        seconds: f64,
    ) {
        let labels = || {
            [
                tool.label(),
                KeyValue::new(names::TOOL_TYPE, names::EXTENSION),
                KeyValue::new(names::ERROR_TYPE, error.unwrap_or_default()),
            ]
        };
        if error.is_none()
            && let Some(series) = tool.series(self.owner)
        {
            let bind = || self.tool_duration.bind(&labels()[..2]);
            series.duration.get_or_init(bind).record(seconds);
        } else {
            let count = if error.is_some() { 3 } else { 2 };
            self.tool_duration.record(seconds, &labels()[..count]);
        }
    }

    /// An attempt at a call of that tool, at that endpoint, ended after so many seconds.
    pub(in crate::telemetry) fn attempt_ended(
        &self,
        tool: &ToolGauges,
        target: &Target,
        code: &'static str,
        seconds: f64,
    ) {
        let labels = || {
            [
                KeyValue::new(names::RPC_SYSTEM, names::GRPC),
                KeyValue::new(names::RPC_METHOD, names::CALL_TOOL),
                KeyValue::new(names::SERVER_ADDRESS, target.host().clone()),
                KeyValue::new(names::SERVER_PORT, i64::from(target.port())),
                tool.label(),
                KeyValue::new(names::STATUS_CODE, code),
                KeyValue::new(names::ERROR_TYPE, code),
            ]
        };
        if code != OK {
            self.client_duration.record(seconds, &labels());
            return;
        }
        let attempts = tool.series(self.owner).map(|series| &series.attempts);
        for place in attempts.into_iter().flatten() {
            let bind = || (target.clone(), self.client_duration.bind(&labels()[..6]));
            let (known, series) = place.get_or_init(bind);
            if known == target {
                series.record(seconds);
                return;
            }
        }
        self.client_duration.record(seconds, &labels()[..6]);
    }
}

fn label_of_method(method: usize) -> KeyValue {
    KeyValue::new(names::RPC_METHOD, METHODS[method])
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use opentelemetry_sdk::Resource;

    use super::*;
    use crate::telemetry::metrics::Readers;

    fn metrics() -> Metrics {
        let readers = Readers {
            prometheus: true,
            otlp: None,
            ignored_settings: 0,
        };
        let resource = Resource::builder_empty().build();
        Metrics::new(readers, resource, 1, &Arc::default(), None).expect("a page")
    }

    /// The values of the series that have all these texts in their line.
    fn values(metrics: &Metrics, texts: &[&str]) -> Vec<f64> {
        let page = metrics.page().expect("a page").unwrap();
        let lines = page
            .lines()
            .filter(|line| texts.iter().all(|text| line.contains(text)));
        let value = |line: &str| line.rsplit(' ').next().and_then(|it| it.parse().ok());
        lines.filter_map(value).collect()
    }

    #[test]
    fn each_endpoint_status_and_method_has_a_series_of_its_own() {
        let (metrics, tool) = (metrics(), ToolGauges::other());
        let attempts = "client_call_duration_seconds_count";
        assert!(values(&metrics, &[attempts]).is_empty());
        // More of them than are bound; each is equal to another one that was made anew.
        for _ in 0..2 {
            for port in 0..6 {
                let target = Target::new("tools", port);
                metrics.attempt_ended(&tool, &target, "OK", 1.0);
            }
        }
        metrics.attempt_ended(&tool, &Target::new("tools", 0), "UNAVAILABLE", 1.0);
        for port in 0..6 {
            let port = format!("server_port=\"{port}\"");
            let ok = [attempts, &port, "status_code=\"OK\""];
            assert_eq!(values(&metrics, &ok), [2.0], "{port}");
        }
        let failed = [attempts, "server_port=\"0\"", "error_type=\"UNAVAILABLE\""];
        assert_eq!(values(&metrics, &failed), [1.0]);

        for (method, code) in [(0, "OK"), (1, "OK"), (0, "OK"), (0, "INTERNAL")] {
            metrics.rpc_ended(method, code, code != "OK", 1.0);
            metrics.batch_started(method, 3);
            metrics.time_saved(method, 0.5);
        }
        let of = |name: &str, texts: &[&str]| values(&metrics, &[&[name], texts].concat());
        let (unary, ok) = (format!("{}\"", METHODS[0]), "status_code=\"OK\"");
        let rpcs = "server_call_duration_seconds_count";
        assert_eq!(of(rpcs, &[&unary, ok]), [2.0]);
        assert_eq!(of(rpcs, &[&unary, "error_type=\"INTERNAL\""]), [1.0]);
        assert_eq!(of(rpcs, &[METHODS[1], ok]), [1.0]);
        assert_eq!(of("batch_size_sum", &[&unary]), [9.0]);
        assert_eq!(of("saved", &[&unary]), [1.5]);
    }

    #[test]
    fn a_tool_that_two_servers_have_is_measured_by_each() {
        let (one, other, tool) = (metrics(), metrics(), ToolGauges::other());
        let target = Target::new("tools", 1);
        for (metrics, calls) in [(&one, 1), (&other, 2)] {
            for _ in 0..calls {
                metrics.call_ended(&tool, None, 1.0);
                metrics.attempt_ended(&tool, &target, "OK", 1.0);
            }
        }
        for (metrics, calls) in [(&one, 1.0), (&other, 2.0)] {
            for name in [
                "execute_tool_duration_seconds_count",
                "client_call_duration_seconds_count",
            ] {
                assert_eq!(values(metrics, &[name]), [calls], "{name}");
            }
        }
    }
}
