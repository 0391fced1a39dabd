//! What is counted of the calls of one tool, with the labels ready.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, AtomicI64, Ordering},
};

use opentelemetry::{KeyValue, metrics::BoundHistogram};

use crate::{
    core::{call::ToolName, observer::Target},
    telemetry::names,
};

/// At most so many endpoints of one tool have a series of their own that is bound.
const TARGETS: usize = 4;

/// The calls of one tool that are under way. Whoever has the tool has it, so that it goes
/// with the tool.
#[derive(Debug)]
pub(crate) struct ToolGauges {
    name: Arc<str>,
    span_name: String,
    queued: AtomicI64,
    active: AtomicI64,
    used: AtomicBool,
    series: OnceLock<ToolSeries>,
}

/// The series of a tool that nearly all values go to, each bound with its first value.
#[derive(Debug, Default)]
pub(super) struct ToolSeries {
    /// Whose they are: of the first that recorded a call of the tool.
    owner: u64,
    /// Of calls that succeeded.
    pub(super) duration: OnceLock<BoundHistogram<f64>>,
    /// Of attempts that succeeded, by endpoint.
    pub(super) attempts: [OnceLock<(Target, BoundHistogram<f64>)>; TARGETS],
}

impl ToolGauges {
    /// Of a tool of that name, of which no call is under way.
    pub(crate) fn new(name: &ToolName) -> Self {
        Self::with_label(name.as_str())
    }

    /// Of all names that no tool has.
    pub(in crate::telemetry) fn other() -> Self {
        Self::with_label(names::OTHER)
    }

    fn with_label(label: &str) -> Self {
        Self {
            name: Arc::from(label),
            span_name: format!("{} {label}", names::EXECUTE_TOOL),
            queued: AtomicI64::new(0),
            active: AtomicI64::new(0),
            used: AtomicBool::new(false),
            series: OnceLock::new(),
        }
    }

    /// How many wait for their turn.
    pub(crate) fn queued(&self) -> u64 {
        count(&self.queued)
    }

    /// Whether it was ever called.
    pub(crate) fn is_used(&self) -> bool {
        self.used.load(Ordering::Relaxed)
    }

    /// How many are with the tool.
    pub(crate) fn active(&self) -> u64 {
        count(&self.active)
    }

    pub(in crate::telemetry) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The label with its name.
    pub(in crate::telemetry) fn label(&self) -> KeyValue {
        KeyValue::new(names::TOOL_NAME, Arc::clone(&self.name))
    }

    /// The series that belong to `owner`, unless the tool has those of another one.
    pub(super) fn series(&self, owner: u64) -> Option<&ToolSeries> {
        let series = self.series.get_or_init(|| ToolSeries {
            owner,
            ..ToolSeries::default()
        });
        (series.owner == owner).then_some(series)
    }

    pub(in crate::telemetry) fn span_name(&self) -> &str {
        &self.span_name
    }

    /// A call begins: it waits for its turn.
    pub(in crate::telemetry) fn begin(&self) {
        self.add_queued(1);
        // The line is shared: it is not written to without need.
        if !self.is_used() {
            self.used.store(true, Ordering::Relaxed);
        }
    }

    pub(in crate::telemetry) fn add_queued(&self, calls: i64) {
        self.queued.fetch_add(calls, Ordering::Relaxed);
    }

    pub(in crate::telemetry) fn add_active(&self, calls: i64) {
        self.active.fetch_add(calls, Ordering::Relaxed);
    }
}

fn count(counter: &AtomicI64) -> u64 {
    counter.load(Ordering::Relaxed).try_into().unwrap_or(0)
}
