//! When to hedge a call: after a fixed delay, or after the recent 95th percentile of the
//! tool's latencies.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::config::HedgeDelay;

/// The hedging delay of one tool.
#[derive(Debug)]
pub(super) struct Hedging {
    delay: HedgeDelay,
    // std's Mutex: held for a few instructions, never across an await.
    latencies: Mutex<Estimator>,
}

impl Hedging {
    pub(super) fn new(delay: HedgeDelay) -> Self {
        Self {
            delay,
            latencies: Mutex::default(),
        }
    }

    /// How long an attempt may take before another is made; `None` until enough latencies
    /// are known.
    pub(super) fn delay(&self) -> Option<Duration> {
        match self.delay {
            HedgeDelay::Fixed(delay) => Some(delay),
            HedgeDelay::P95 => self.latencies().p95(),
        }
    }

    /// Records the latency of a first attempt.
    pub(super) fn answered(&self, latency: Duration) {
        if self.delay == HedgeDelay::P95 {
            self.latencies().record(latency);
        }
    }

    /// Records a first attempt that was given up after that time. Without these, the slow
    /// attempts, which lose to their hedges, would be missing, and the delay would sink.
    pub(super) fn given_up(&self, after: Duration) {
        if self.delay == HedgeDelay::P95 && self.latencies().p95().is_some_and(|p95| after >= p95) {
            self.latencies().record(after);
        }
    }

    fn latencies(&self) -> MutexGuard<'_, Estimator> {
        self.latencies
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The bounds of the buckets grow by the fourth root of 2, so an estimate is at
/// most a fifth too high.
const PER_OCTAVE: f64 = 4.0;
/// The upper bound of the first bucket.
const SHORTEST: Duration = Duration::from_micros(100);
/// The last one is open; the one before it ends after 39 hours.
const BUCKETS: usize = 124;
/// How many recorded latencies make an estimate.
const ENOUGH: u32 = 20;
/// At this many all counts are halved, so that old latencies fade.
const MANY: u32 = 1000;

/// Estimates the recent 95th percentile in constant space. Pure.
#[derive(Debug)]
struct Estimator {
    counts: [u16; BUCKETS],
    total: u32,
    p95: Option<Duration>,
}

impl Default for Estimator {
    fn default() -> Self {
        Self {
            counts: [0; BUCKETS],
            total: 0,
            p95: None,
        }
    }
}

impl Estimator {
    fn p95(&self) -> Option<Duration> {
        self.p95
    }

    fn record(&mut self, latency: Duration) {
        self.counts[bucket(latency)] += 1;
        self.total += 1;
        if self.total >= MANY {
            for count in &mut self.counts {
                *count /= 2;
            }
            self.total = self.counts.iter().copied().map(u32::from).sum();
        }
        // It moves slowly, and finding it costs more than counting.
        if self.total >= ENOUGH && (self.total.is_multiple_of(8) || self.p95.is_none()) {
            self.p95 = Some(self.find_p95());
        }
    }

    fn find_p95(&self) -> Duration {
        let mut above = self.total / 20;
        let index = self.counts.iter().rposition(|&count| {
            let count = u32::from(count);
            let here = count > above;
            above = above.saturating_sub(count);
            here
        });
        upper_bound(index.unwrap_or(0))
    }
}

fn bucket(latency: Duration) -> usize {
    let octaves = (latency.as_secs_f64() / SHORTEST.as_secs_f64()).log2();
    // The cast saturates: 0 for anything below the first bound.
    ((octaves * PER_OCTAVE).ceil() as usize).min(BUCKETS - 1)
}

fn upper_bound(bucket: usize) -> Duration {
    SHORTEST.mul_f64((bucket as f64 / PER_OCTAVE).exp2())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn nothing_is_known_before_there_is_enough() {
        let hedging = Hedging::new(HedgeDelay::P95);
        for _ in 1..ENOUGH {
            hedging.answered(ms(10));
            assert_eq!(hedging.delay(), None);
        }
        hedging.answered(ms(10));
        let delay = hedging.delay().unwrap();
        assert!(delay >= ms(10) && delay <= ms(12), "{delay:?}");
        assert_eq!(Hedging::new(HedgeDelay::Fixed(ms(7))).delay(), Some(ms(7)));
    }

    #[test]
    fn the_slow_attempts_that_lose_keep_it_from_sinking() {
        let hedging = Hedging::new(HedgeDelay::P95);
        let mut hedges = 0;
        for call in 0..5000 {
            // One in 25 would take a second.
            let latency = if call % 25 == 0 {
                ms(1000)
            } else {
                ms(10 + call % 25)
            };
            match hedging.delay() {
                Some(delay) if delay < latency => {
                    hedges += 1;
                    hedging.given_up(delay + ms(10));
                }
                _ => hedging.answered(latency),
            }
        }
        // A twentieth, and some for the width of the buckets.
        assert!((200..=400).contains(&hedges), "{hedges}");
        // A caller that leaves early says nothing about the tool.
        let before = hedging.delay();
        for _ in 0..100 {
            hedging.given_up(Duration::ZERO);
        }
        assert_eq!(hedging.delay(), before);
    }

    #[test]
    fn it_follows_the_tool() {
        let mut estimator = Estimator::default();
        for _ in 0..10_000 {
            estimator.record(ms(10));
        }
        for _ in 0..2000 {
            estimator.record(ms(100));
        }
        assert!(estimator.p95().unwrap() >= ms(100));
        for _ in 0..5000 {
            estimator.record(ms(10));
        }
        assert!(estimator.p95().unwrap() <= ms(12));
    }

    proptest! {
        #[test]
        fn the_estimate_is_at_most_a_fifth_above_the_truth(
            micros in proptest::collection::vec(1..100_000_000_u64, 20..800),
        ) {
            let mut estimator = Estimator::default();
            for &micros in &micros {
                estimator.record(Duration::from_micros(micros));
            }
            let mut sorted = micros;
            sorted.sort_unstable();
            let above = sorted.len() / 20;
            let truth = Duration::from_micros(sorted[sorted.len() - 1 - above]);
            let found = estimator.find_p95();
            prop_assert!(found >= truth.mul_f64(0.999), "{:?} < {:?}", found, truth);
            prop_assert!(found <= truth.max(SHORTEST).mul_f64(1.2), "{:?} > {:?}", found, truth);
        }
    }
}
