//! When to dial again after a failure, and how fast to replace connections that were
//! closed because too many of their calls were cancelled ("worn").

use std::time::Duration;

use tokio::time::Instant;

/// The first and the longest pause. The longest is far below the 2 minutes of gRPC's
/// clients: a service that is back should be found within a second, and a dial every half
/// second is no burden.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const FACTOR: f64 = 1.6;
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// Pauses vary by up to this share, so that replicas do not dial in step.
const JITTER: f64 = 0.2;
/// The pause if a call has no other choice.
const SHORTEST_PAUSE: Duration = Duration::from_millis(25);
/// The number of failures after which the pause no longer grows.
const MAX_EXPONENT: i32 = 10;
/// How long a connection must last to clear earlier failures. One that is closed as soon
/// as it opens is no better than none.
const LASTING: Duration = Duration::from_secs(1);

/// How many worn connections are replaced at once, and the interval after that: 50 a
/// second, the most that a storm of cancels may cost.
const WORN_AT_ONCE: u32 = 16;
const WORN_APART: Duration = Duration::from_millis(20);

/// The failures since the last connection that lasted.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ConnectBackoff {
    failures: i32,
    last: Option<Instant>,
    until: Option<Instant>,
    /// Since the last failure.
    connected: Option<Instant>,
    /// The time up to which the replacements so far use up the rate (as in GCRA).
    worn: Option<Instant>,
}

impl ConnectBackoff {
    /// Takes note of a dial, or a new connection, that failed. `random` is from 0 to 1.
    pub(super) fn failed(&mut self, now: Instant, random: f64) {
        let connected = self.connected.take();
        if connected.is_some_and(|connected| connected + LASTING <= now) {
            self.failures = 0;
        }
        let pause = FIRST_PAUSE.mul_f64(FACTOR.powi(self.failures));
        let jitter = 1.0 - JITTER + 2.0 * JITTER * random;
        self.last = Some(now);
        self.until = Some(now + pause.min(LONGEST_PAUSE).mul_f64(jitter));
        self.failures = (self.failures + 1).min(MAX_EXPONENT);
    }

    /// Takes note of a connection that was made.
    pub(super) fn succeeded(&mut self, now: Instant) {
        *self = Self {
            failures: self.failures,
            connected: Some(self.connected.unwrap_or(now)),
            worn: self.worn,
            ..Self::default()
        };
    }

    /// Takes note of a worn connection.
    pub(super) fn worn(&mut self, now: Instant) {
        self.worn = Some(self.worn.unwrap_or(now).max(now) + WORN_APART);
    }

    /// When the rate of replacements allows a dial.
    fn replaces_worn(&self) -> Option<Instant> {
        self.worn?.checked_sub(WORN_APART * WORN_AT_ONCE)
    }

    /// Whether a dial is allowed now.
    pub(super) fn allows(&self, now: Instant) -> bool {
        let until = self.until.max(self.replaces_worn());
        until.is_none_or(|until| until <= now)
    }

    /// When to dial for a call that came at `came` and has no other choice; `None` if a
    /// dial has failed since.
    pub(super) fn last_resort(&self, came: Instant) -> Option<Instant> {
        let came_or_worn = self.replaces_worn().map_or(came, |at| at.max(came));
        match self.last {
            Some(last) if last >= came => None,
            Some(last) => Some(came_or_worn.max(last + SHORTEST_PAUSE)),
            None => Some(came_or_worn),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn pauses_grow_to_the_longest_and_end_with_a_success() {
        let now = Instant::now();
        let mut connect_backoff = ConnectBackoff::default();
        assert!(connect_backoff.allows(now));
        for pause in [50, 80, 128, 204, 327, 500, 500] {
            connect_backoff.failed(now, 0.5);
            assert!(!connect_backoff.allows(now + ms(pause - 1)), "{pause}");
            assert!(connect_backoff.allows(now + ms(pause + 1)), "{pause}");
        }
        connect_backoff.succeeded(now);
        assert!(connect_backoff.allows(now));
        connect_backoff.failed(now + LASTING, 0.5);
        assert!(connect_backoff.allows(now + LASTING + ms(51)));
    }

    #[test]
    fn worn_connections_are_replaced_at_a_pace() {
        let now = Instant::now();
        let mut connect_backoff = ConnectBackoff::default();
        for _ in 0..WORN_AT_ONCE {
            assert!(connect_backoff.allows(now));
            connect_backoff.worn(now);
            connect_backoff.succeeded(now);
        }
        assert!(connect_backoff.allows(now));
        connect_backoff.worn(now);
        assert!(!connect_backoff.allows(now));
        // Worn is not failed: a call without another choice waits for the dial.
        assert_eq!(connect_backoff.last_resort(now), Some(now + WORN_APART));
        assert!(connect_backoff.allows(now + WORN_APART));
        let dials = (0..1000).filter(|&step| {
            let now = now + ms(step);
            let allowed = connect_backoff.allows(now);
            if allowed {
                connect_backoff.worn(now);
            }
            allowed
        });
        assert!((45..=51).contains(&dials.count()));
    }

    #[test]
    fn connections_that_do_not_last_do_not_end_the_pauses() {
        let mut now = Instant::now();
        let mut connect_backoff = ConnectBackoff::default();
        for pause in [50, 80, 128, 204, 327, 500, 500] {
            connect_backoff.succeeded(now);
            connect_backoff.failed(now + ms(1), 0.5);
            assert!(!connect_backoff.allows(now + ms(pause)), "{pause}");
            now += ms(pause + 2);
            assert!(connect_backoff.allows(now), "{pause}");
        }
    }

    #[test]
    fn each_call_without_a_choice_gets_one_dial() {
        let now = Instant::now();
        let mut connect_backoff = ConnectBackoff::default();
        assert_eq!(connect_backoff.last_resort(now), Some(now));
        connect_backoff.failed(now, 0.5);
        assert_eq!(connect_backoff.last_resort(now), None);
        assert_eq!(connect_backoff.last_resort(now + ms(1)), Some(now + ms(25)));
        assert_eq!(
            connect_backoff.last_resort(now + ms(30)),
            Some(now + ms(30))
        );
    }

    proptest! {
        #[test]
        fn a_service_that_is_back_is_dialed_within_a_second(
            failures in 1..200_usize,
            random in 0.0..=1.0_f64,
        ) {
            let now = Instant::now();
            let mut connect_backoff = ConnectBackoff::default();
            for _ in 0..failures {
                connect_backoff.failed(now, random);
            }
            prop_assert!(!connect_backoff.allows(now + ms(39)));
            prop_assert!(connect_backoff.allows(now + ms(601)));
        }
    }
}
