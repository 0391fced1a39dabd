//! What metrics read of the tools and tool services in force, when somebody asks.

use std::sync::Arc;

use super::{Catalog, Entry, snapshot::Snapshots, source::status::Status};
use crate::{
    core::call::ToolName,
    net::{Connectivity, Upstream},
    policy::{Breaker, BreakerState},
    telemetry::{Gauge, GaugeSource, ToolGauges},
};

impl GaugeSource for Snapshots {
    fn read(&self, gauge: Gauge, report: &mut dyn FnMut(&str, u64)) {
        let snapshot = self.current();
        let catalog = &snapshot.catalog;
        match gauge {
            Gauge::QueuedCalls => catalog.calls(ToolGauges::queued, report),
            Gauge::ActiveCalls => catalog.calls(ToolGauges::active, report),
            Gauge::ToolBreakerState => catalog.breakers(state, report),
            Gauge::ToolBreakerOpenings => catalog.breakers(Breaker::times_opened, report),
            Gauge::BreakerState => catalog.service_breakers(state, report),
            Gauge::BreakerOpenings => catalog.service_breakers(Breaker::times_opened, report),
            Gauge::Connections => catalog.upstreams(|it| it.connections() as u64, report),
            Gauge::Connectivity => catalog.upstreams(connectivity, report),
            Gauge::EjectedAddresses => catalog.upstreams(|it| it.ejected() as u64, report),
            Gauge::WornConnections => catalog.upstreams(Upstream::worn, report),
            Gauge::Tools => catalog.sources(Status::tools, report),
            Gauge::LeftOutTools => catalog.sources(Status::left_out, report),
            Gauge::ToolChanges => catalog.sources(Status::changes, report),
            Gauge::FailedRefreshes => catalog.sources(Status::failures, report),
            Gauge::RefreshAge => catalog.sources(Status::age, report),
        }
    }
}

impl Catalog {
    /// Those that have series of their own: of the tools that services have by themselves,
    /// which may be thousands, only those that were called.
    fn measured(&self) -> impl Iterator<Item = (&ToolName, &Entry)> {
        let has_series = |entry: &Entry| !entry.exposed || entry.gauges.is_used();
        self.tools
            .iter()
            .filter(move |(_, entry)| has_series(entry))
    }

    fn calls(&self, read: fn(&ToolGauges) -> u64, report: &mut dyn FnMut(&str, u64)) {
        for (name, entry) in self.measured() {
            report(name.as_str(), read(&entry.gauges));
        }
    }

    fn breakers(&self, read: fn(&Breaker) -> u64, report: &mut dyn FnMut(&str, u64)) {
        for (name, entry) in self.measured() {
            if let Some(remote) = &entry.remote {
                report(name.as_str(), read(remote.breakers.breaker()));
            }
        }
    }

    fn service_breakers(&self, read: fn(&Breaker) -> u64, report: &mut dyn FnMut(&str, u64)) {
        for (name, service) in &self.services {
            report(name, read(service.breakers.breaker()));
        }
    }

    fn upstreams(&self, read: fn(&Upstream) -> u64, report: &mut dyn FnMut(&str, u64)) {
        for (name, service) in &self.services {
            report(name, read(&service.upstream));
        }
    }

    fn sources(&self, read: fn(&Status) -> u64, report: &mut dyn FnMut(&str, u64)) {
        for (name, service) in &self.services {
            if let Some(status) = &service.source {
                report(name, read(status));
            }
        }
    }

    /// Goes on counting the calls of tools that `earlier` has as well where it does: some
    /// of them may be under way.
    pub(super) fn continue_counting(&mut self, earlier: &Self) {
        for (name, entry) in &mut self.tools {
            if let Some(Entry { gauges, .. }) = earlier.tools.get(name) {
                entry.gauges = Arc::clone(gauges);
            }
        }
    }
}

/// The values of [`Gauge::ToolBreakerState`] and [`Gauge::BreakerState`].
fn state(breaker: &Breaker) -> u64 {
    match breaker.state() {
        BreakerState::Closed => 0,
        BreakerState::HalfOpen => 1,
        BreakerState::Open => 2,
    }
}

/// The values of [`Gauge::Connectivity`], which are those of the `ConnectivityState` that
/// callers see.
fn connectivity(upstream: &Upstream) -> u64 {
    match upstream.connectivity() {
        Connectivity::Idle => 1,
        Connectivity::Connecting => 2,
        Connectivity::Ready => 3,
        Connectivity::TransientFailure => 4,
    }
}
