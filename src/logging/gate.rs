//! Throttles lines that are alike, and writes a line about those that were left out.
//!
//! Lines of `INFO` and above are throttled. `DEBUG` and `TRACE` are not: they are only written
//! if `RUST_LOG` asks for them, and then all are wanted. If it asks for `DEBUG` of all our own
//! lines, none of them is throttled.
//!
//! Lines that peers can cause have a field `throttle`, which is not written: those with the
//! same value are alike, and those where it has no value are never throttled.

use std::{
    fmt::{self, Write as _},
    hash::{DefaultHasher, Hasher as _},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{Layer, layer::Context};

use super::{
    Sink,
    fields::{Fields, THROTTLE},
    filter::OURS,
    throttle::{Limit, Origin, REPORT_AFTER, Throttle, Verdict},
};

/// Of lines of libraries, which are about frames and handshakes.
pub(super) const LIBRARY: Limit = limit(10, 1000);
/// Of lines that peers can cause, such as those about failed calls.
const OF_PEERS: Limit = limit(20, 500);
/// Of our other lines, such as those about the state of a service or an address.
const OF_OURS: Limit = limit(100, 100);

/// How many lines this process has left out.
static LEFT_OUT: AtomicU64 = AtomicU64::new(0);

const fn limit(burst: u32, interval_ms: u64) -> Limit {
    Limit {
        burst,
        interval: Duration::from_millis(interval_ms),
    }
}

/// How many lines were left out so far.
pub(super) fn left_out() -> u64 {
    LEFT_OUT.load(Ordering::Relaxed)
}

/// Decides which lines are written.
#[derive(Clone, Debug)]
pub(super) struct Gate {
    pub(super) throttle: Arc<Throttle>,
    /// Whether our own lines are never left out.
    pub(super) all_of_ours: bool,
    pub(super) sink: Sink,
}

impl Gate {
    /// Whether the line is written.
    pub(super) fn lets(
        &self,
        origin: &Origin,
        key: u64,
        limit: Limit,
        sample: impl FnOnce() -> String,
    ) -> bool {
        let now = Instant::now();
        match self.throttle.decide(origin, key, limit, now, sample) {
            Verdict::Written => true,
            Verdict::LeftOut { first } => {
                LEFT_OUT.fetch_add(1, Ordering::Relaxed);
                if first {
                    self.sink.queue.wake_by(now + REPORT_AFTER);
                }
                false
            }
        }
    }

    /// Writes how many lines were left out since the last report.
    pub(super) fn report(&self) {
        for report in self.throttle.reports(Instant::now()) {
            let seconds = report.period.as_secs_f64().ceil().max(1.0);
            let count = report.count;
            let fields = Fields {
                message: format!("{count} more like this in the last {seconds} s were left out"),
                rest: vec![("left_out", count.into()), ("like", report.sample.into())],
            };
            let Origin { level, target, .. } = report.origin;
            self.sink.line(level, target, &fields);
        }
    }
}

/// A layer, not a filter of the layer that writes: there, tracing-subscriber 0.3.23 panics in
/// debug builds when a filter decides about single events.
impl<S: Subscriber> Layer<S> for Gate {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        let ours = metadata.target().starts_with(OURS);
        if *metadata.level() > Level::INFO || ours && self.all_of_ours {
            return true;
        }
        let (key, limit) = if metadata.fields().field(THROTTLE).is_some() {
            let mut key = Key(None);
            event.record(&mut key);
            match key.0 {
                Some(hasher) => (hasher.finish(), OF_PEERS),
                None => return true,
            }
        } else if ours {
            (0, OF_OURS)
        } else {
            (0, LIBRARY)
        };
        self.lets(&Origin::of(metadata), key, limit, || {
            Fields::of(event).to_text()
        })
    }
}

/// A hash of the field `throttle`, if it has a value.
struct Key(Option<DefaultHasher>);

impl Visit for Key {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == THROTTLE {
            // This can't fail.
            let _ = write!(self, "{value:?}");
        }
    }
}

impl fmt::Write for Key {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let hasher = self.0.get_or_insert_with(DefaultHasher::new);
        hasher.write(text.as_bytes());
        Ok(())
    }
}
