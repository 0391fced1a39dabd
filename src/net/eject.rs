//! Outlier detection: an address that fails several times in a row is ejected. It gets no
//! calls for a time, which grows with each probe that fails; the first success ends the
//! ejection (as in gRFC A50 and Envoy, but with a probe instead of a full return).
//!
//! A call that times out is such a failure, as for Envoy, which counts it among the "local
//! origin failures" (`consecutive_local_origin_failure`,
//! <https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/outlier>).
//! But timeouts count only as often as the tool answers in between: a tool that is always
//! too slow says nothing about an address ([`Answers`]). A moving average of latencies, as
//! linkerd uses (peak EWMA), would also hold slow tools against an address.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use tokio::time::Instant;

/// The most timeouts that past answers can account for; too few to eject two addresses.
const MAX_ANSWERS: u32 = 8;

/// The answers of one tool, from whatever address, that no timeout has been set against
/// yet.
#[derive(Debug, Default)]
pub(crate) struct Answers(AtomicU32);

impl Answers {
    /// Takes note of one.
    pub(crate) fn note(&self) {
        let answers = self.0.load(Ordering::Relaxed);
        // Two at the same time may count as one.
        if answers < MAX_ANSWERS {
            self.0.store(answers + 1, Ordering::Relaxed);
        }
    }

    /// Whether a timeout counts against its address.
    pub(crate) fn speak_against_a_timeout(&self) -> bool {
        let one_less = |answers: u32| answers.checked_sub(1);
        let taken = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less);
        taken.is_ok()
    }
}

/// What is configured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// Failures in a row.
    pub(crate) after_failures: u32,
    /// The first and the longest ejection.
    pub(crate) time: Duration,
    pub(crate) max_time: Duration,
    /// How many of a service's addresses may be ejected at a time.
    pub(crate) max_percent: usize,
}

impl Rules {
    /// Whether one more of `total` addresses may be ejected.
    pub(crate) fn allow_one_more(&self, ejected: usize, total: usize) -> bool {
        (ejected + 1) * 100 <= total * self.max_percent
    }
}

/// The health of an address, as its calls show it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Health {
    failures: u32,
    ejection: Option<Ejection>,
}

#[derive(Clone, Copy, Debug)]
struct Ejection {
    time: Duration,
    until: Instant,
    /// A probe is under way.
    probed: bool,
}

impl Health {
    /// Whether it is ejected, even if a probe is due.
    pub(crate) fn is_ejected(&self) -> bool {
        self.ejection.is_some()
    }

    /// Whether it may get a call: it is not ejected, or a probe is due.
    pub(crate) fn admits(&self, now: Instant) -> bool {
        self.ejection.is_none_or(|ejection| ejection.until <= now)
    }

    /// Takes note of a call that it gets. If it is ejected, that is a probe, and the next
    /// one is due after the same time again.
    pub(crate) fn called(&mut self, now: Instant) {
        if let Some(ejection) = &mut self.ejection {
            ejection.until = now + ejection.time;
            ejection.probed = true;
        }
    }

    /// Takes note of an answer.
    pub(crate) fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// Takes note of a new connection: a probe is due now.
    pub(crate) fn connected(&mut self, now: Instant) {
        if let Some(ejection) = &mut self.ejection {
            ejection.until = now;
        }
    }

    /// Takes note that it stopped answering. Returns whether that ejects it.
    pub(crate) fn fell_silent(&mut self, now: Instant, rules: &Rules, may_eject: bool) -> bool {
        self.failures = self.failures.max(rules.after_failures.saturating_sub(1));
        self.failed(now, rules, may_eject)
    }

    /// Takes note of a failure. Returns whether that ejects it, which it does only if
    /// `may_eject`: not too many other addresses are ejected.
    pub(crate) fn failed(&mut self, now: Instant, rules: &Rules, may_eject: bool) -> bool {
        self.failures = self.failures.saturating_add(1);
        match &mut self.ejection {
            Some(ejection) if ejection.probed => {
                ejection.time = (ejection.time * 2).min(rules.max_time);
                ejection.until = now + ejection.time;
                ejection.probed = false;
                false
            }
            // Calls that were in flight when it was ejected.
            Some(_) => false,
            None if self.failures >= rules.after_failures && may_eject => {
                self.ejection = Some(Ejection {
                    time: rules.time,
                    until: now + rules.time,
                    probed: false,
                });
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    const RULES: Rules = Rules {
        after_failures: 3,
        time: Duration::from_secs(5),
        max_time: Duration::from_secs(12),
        max_percent: 50,
    };

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    /// As it is after being ejected at `now`.
    fn ejected(now: Instant) -> Health {
        let mut health = Health::default();
        for last in [false, false, true] {
            assert!(health.admits(now));
            assert_eq!(health.failed(now, &RULES, true), last);
        }
        health
    }

    #[test]
    fn failures_in_a_row_eject_it_and_a_success_between_does_not() {
        let now = Instant::now();
        let mut health = Health::default();
        for _ in 0..9 {
            assert!(!health.failed(now, &RULES, true));
            assert!(!health.failed(now, &RULES, true));
            health.succeeded();
            assert!(!health.is_ejected());
        }
        let health = ejected(now);
        assert!(!health.admits(now + seconds(5) - Duration::from_nanos(1)));
        assert!(health.admits(now + seconds(5)));
    }

    #[test]
    fn one_probe_at_a_time_decides_and_the_times_grow_to_the_longest() {
        let mut now = Instant::now();
        let mut health = ejected(now);
        for time in [5, 10, 12, 12] {
            now += seconds(time);
            assert!(health.admits(now));
            health.called(now);
            assert!(!health.admits(now), "a second probe after {time} s");
            health.failed(now, &RULES, true);
        }
        now += seconds(12);
        health.called(now);
        health.succeeded();
        assert!(health.admits(now));
        assert!(!health.is_ejected());
    }

    #[test]
    fn a_probe_of_which_nothing_is_heard_is_followed_by_another() {
        let now = Instant::now();
        let mut health = ejected(now);
        health.called(now + seconds(5));
        assert!(!health.admits(now + seconds(9)));
        assert!(health.admits(now + seconds(10)));
    }

    #[test]
    fn late_failures_do_not_prolong_it() {
        let now = Instant::now();
        let mut health = ejected(now);
        for _ in 0..100 {
            health.failed(now + seconds(4), &RULES, true);
        }
        assert!(health.admits(now + seconds(5)));
    }

    #[test]
    fn a_connection_brings_the_probe_forward() {
        let now = Instant::now();
        let mut health = ejected(now);
        health.connected(now + seconds(1));
        assert!(health.admits(now + seconds(1)));
        assert!(health.is_ejected());
    }

    #[test]
    fn at_most_a_share_is_ejected() {
        let most = |total| {
            let ejected = 0..=total;
            let allowed = ejected.take_while(|&ejected| RULES.allow_one_more(ejected, total));
            allowed.count()
        };
        assert_eq!([0, 1, 2, 3, 4, 5].map(most), [0, 0, 1, 1, 2, 2]);
        let mut health = Health::default();
        let now = Instant::now();
        for _ in 0..99 {
            assert!(!health.failed(now, &RULES, false));
        }
        assert!(health.admits(now));
    }

    #[test]
    fn silence_ejects_at_once_but_not_too_many() {
        let now = Instant::now();
        let mut health = Health::default();
        assert!(!health.fell_silent(now, &RULES, false));
        assert!(health.admits(now));
        assert!(health.fell_silent(now, &RULES, true));
        assert!(!health.admits(now + seconds(4)));
        // Failures of its other connections.
        assert!(!health.fell_silent(now + seconds(1), &RULES, true));
        assert!(health.admits(now + seconds(5)));
    }

    #[test]
    fn timeouts_count_as_long_as_the_tool_is_answered() {
        let answers = Answers::default();
        assert!(!answers.speak_against_a_timeout());
        for _ in 0..3 {
            answers.note();
            assert!(answers.speak_against_a_timeout());
            assert!(!answers.speak_against_a_timeout());
        }
        (0..100).for_each(|_| answers.note());
        let counted = (0..100).filter(|_| answers.speak_against_a_timeout());
        assert_eq!(counted.count(), MAX_ANSWERS as usize);
    }

    proptest! {
        #[test]
        fn whatever_happens_a_probe_is_due_within_the_longest_time(
            steps in vec((0..4_u8, 0..7_000_u64), 0..60),
        ) {
            let mut now = Instant::now();
            let mut health = Health::default();
            for (step, millis) in steps {
                now += Duration::from_millis(millis);
                match step {
                    0 => health.succeeded(),
                    1 if health.admits(now) => health.called(now),
                    2 => health.connected(now),
                    _ => drop(health.failed(now, &RULES, true)),
                }
                prop_assert!(health.admits(now + RULES.max_time));
                prop_assert!(health.is_ejected() || health.admits(now));
            }
        }
    }
}
