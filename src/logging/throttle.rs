//! Limits how many lines that are alike are written. Peers decide how often something
//! happens on their connections; they must not decide how much is logged. Lines that are left
//! out are counted.
//!
//! Lines are alike if they come from the same place in the code and have the same key, or
//! both have none. Keys are made from what is configured or specified (a tool that exists, a
//! status), so there are few.

use std::{
    collections::HashMap,
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use tracing::{Level, Metadata, callsite::Identifier};

/// How long after the first line that was left out their number is reported.
pub(super) const REPORT_AFTER: Duration = Duration::from_secs(5);
/// More than there are at a time, of places in the code, with tools and statuses.
const MAX_KINDS: usize = 4096;
/// How much a report shows of a line that was left out, in bytes.
const MAX_SAMPLE_BYTES: usize = 200;

/// A token bucket: `burst` lines at once, and one more after each `interval`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    pub(super) burst: u32,
    pub(super) interval: Duration,
}

/// Where lines come from, and their level and target.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    /// The place in the code.
    pub(super) place: Identifier,
    pub(super) level: Level,
    pub(super) target: &'static str,
}

impl Origin {
    pub(super) fn of(metadata: &'static Metadata<'static>) -> Self {
        Self {
            place: metadata.callsite(),
            level: *metadata.level(),
            target: metadata.target(),
        }
    }
}

/// How many lines of each kind were written lately.
#[derive(Debug, Default)]
pub(super) struct Throttle(Mutex<HashMap<(Identifier, u64), Bucket>>);

#[derive(Debug)]
struct Bucket {
    origin: Origin,
    /// When the bucket will be full again.
    full_at: Instant,
    left_out: Option<LeftOut>,
}

/// Lines that were left out.
#[derive(Debug)]
struct LeftOut {
    count: u64,
    since: Instant,
    sample: String,
}

/// What a report says of lines that were left out.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) origin: Origin,
    pub(super) count: u64,
    /// How long ago the first of them was left out.
    pub(super) period: Duration,
    /// The first of them, cut to size.
    pub(super) sample: String,
}

/// Whether a line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Written,
    /// It is not; `first`: it is the first of its kind since the last report.
    LeftOut {
        first: bool,
    },
}

impl Throttle {
    /// Decides about a line. `sample` gives its text, for the report.
    pub(super) fn decide(
        &self,
        origin: &Origin,
        key: u64,
        limit: Limit,
        now: Instant,
        sample: impl FnOnce() -> String,
    ) -> Verdict {
        let mut buckets = self.lock();
        let mut kind = (origin.place.clone(), key);
        if buckets.len() >= MAX_KINDS && !buckets.contains_key(&kind) {
            buckets.retain(|_, bucket| !bucket.is_idle(now));
            if buckets.len() >= MAX_KINDS {
                kind.1 = 0;
            }
        }
        let bucket = buckets.entry(kind).or_insert_with(|| Bucket {
            origin: origin.clone(),
            full_at: now,
            left_out: None,
        });
        let missing = bucket.full_at.saturating_duration_since(now);
        if missing + limit.interval <= limit.interval * limit.burst {
            bucket.full_at = now + missing + limit.interval;
            return Verdict::Written;
        }
        let first = bucket.left_out.is_none();
        let left_out = bucket.left_out.get_or_insert_with(|| LeftOut {
            count: 0,
            since: now,
            sample: cut(sample()),
        });
        left_out.count += 1;
        Verdict::LeftOut { first }
    }

    /// What was left out since the last call.
    pub(super) fn reports(&self, now: Instant) -> Vec<Report> {
        let mut buckets = self.lock();
        let mut reports = Vec::new();
        buckets.retain(|_, bucket| {
            if let Some(left_out) = mem::take(&mut bucket.left_out) {
                reports.push(Report {
                    origin: bucket.origin.clone(),
                    count: left_out.count,
                    period: now.saturating_duration_since(left_out.since),
                    sample: left_out.sample,
                });
            }
            !bucket.is_idle(now)
        });
        reports
    }

    /// No code panics while it holds the lock.
    fn lock(&self) -> MutexGuard<'_, HashMap<(Identifier, u64), Bucket>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bucket {
    /// Whether it can be forgotten: it is full, and there is nothing to report.
    fn is_idle(&self, now: Instant) -> bool {
        self.full_at <= now && self.left_out.is_none()
    }
}

fn cut(mut sample: String) -> String {
    sample.truncate(sample.floor_char_boundary(MAX_SAMPLE_BYTES));
    sample
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};
    use tracing::Callsite as _;

    use super::*;

    const LIMIT: Limit = Limit {
        burst: 5,
        interval: Duration::from_millis(100),
    };

    fn metadata() -> &'static Metadata<'static> {
        let callsite = tracing::callsite! {
            name: "event",
            kind: tracing::metadata::Kind::EVENT,
            target: "there",
            level: tracing::Level::WARN,
            fields: message
        };
        callsite.metadata()
    }

    fn decide(throttle: &Throttle, key: u64, now: Instant) -> Verdict {
        throttle.decide(&Origin::of(metadata()), key, LIMIT, now, || key.to_string())
    }

    #[test]
    fn each_kind_has_its_burst_and_then_its_rate() {
        let (throttle, start) = (Throttle::default(), Instant::now());
        for key in [0, 1] {
            for _ in 0..5 {
                assert_eq!(decide(&throttle, key, start), Verdict::Written);
            }
            for first in [true, false] {
                let expected = Verdict::LeftOut { first };
                assert_eq!(decide(&throttle, key, start), expected);
            }
        }
        let later = start + LIMIT.interval;
        assert_eq!(decide(&throttle, 0, later), Verdict::Written);
        let expected = Verdict::LeftOut { first: false };
        assert_eq!(decide(&throttle, 0, later), expected);

        let mut reports = throttle.reports(start + Duration::from_secs(3));
        reports.sort_by(|a, b| a.sample.cmp(&b.sample));
        let told: Vec<_> = reports.iter().map(|r| (&*r.sample, r.count)).collect();
        assert_eq!(told, [("0", 3), ("1", 2)]);
        assert_eq!(reports[0].period, Duration::from_secs(3));
        assert_eq!(reports[0].origin.target, "there");
        assert!(throttle.reports(later).is_empty());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        for key in 0..3 * MAX_KINDS as u64 {
            decide(&throttle, key, now);
        }
        assert!(throttle.lock().len() <= MAX_KINDS + 1);
        // They share one bucket, and nothing gets lost uncounted.
        let reports = throttle.reports(now);
        let left_out: u64 = reports.iter().map(|report| report.count).sum();
        assert!(left_out >= 2 * MAX_KINDS as u64 - 5, "{left_out}");
        throttle.reports(now + Duration::from_secs(60));
        assert!(throttle.lock().is_empty());
    }

    proptest! {
        #[test]
        fn every_line_is_written_or_counted_and_few_are_written(
            steps in vec((0..300u64, 0..3u64), 1..400),
            report_every in 1..50usize,
        ) {
            let (throttle, start) = (Throttle::default(), Instant::now());
            let (mut now, mut written, mut told) = (start, [0u64; 3], 0);
            for (index, (pause, key)) in steps.iter().enumerate() {
                now += Duration::from_millis(*pause);
                if decide(&throttle, *key, now) == Verdict::Written {
                    written[*key as usize] += 1;
                }
                if index % report_every == 0 {
                    told += throttle.reports(now).iter().map(|r| r.count).sum::<u64>();
                }
            }
            told += throttle.reports(now).iter().map(|r| r.count).sum::<u64>();
            let passed = (now - start).as_millis() as u64;
            for written in written {
                prop_assert!(written <= 5 + passed / 100);
            }
            prop_assert_eq!(written.iter().sum::<u64>() + told, steps.len() as u64);
        }
    }
}
