//! Exponential backoff: delays double up to a bound, with a jitter of a fifth, so that
//! calls that failed together do not return together. Pure: randomness is passed in.

use std::time::Duration;

/// The jitter, as a share of the delay.
const JITTER: f64 = 0.2;

/// The delays of one policy.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff {
    pub(super) initial: Duration,
    pub(super) max: Duration,
}

impl Backoff {
    /// The delay before retry number `retry` (the first is 0). `random` is in [0, 1).
    pub(super) fn delay(self, retry: u32, random: f64) -> Duration {
        let factor = 1_u32.checked_shl(retry).unwrap_or(u32::MAX);
        let nominal = self.initial.saturating_mul(factor).min(self.max);
        nominal.mul_f64(1.0 - JITTER + 2.0 * JITTER * random)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn waits_double_up_to_the_bound() {
        let backoff = Backoff {
            initial: ms(50),
            max: ms(300),
        };
        let waits = [0, 1, 2, 3, 31, 32, u32::MAX].map(|retry| backoff.delay(retry, 0.5));
        assert_eq!(waits, [50, 100, 200, 300, 300, 300, 300].map(ms));
        assert_eq!(backoff.delay(0, 0.0), ms(40));
        assert_eq!(backoff.delay(0, 0.75), ms(55));
    }

    proptest! {
        #[test]
        fn waits_stay_within_a_fifth_of_the_nominal_one(
            (initial, more) in (1..=86_400_000_u64, 0..=86_400_000_u64),
            retry in any::<u32>(),
            random in 0.0..1.0_f64,
        ) {
            let (initial, max) = (ms(initial), ms(initial + more));
            let wait = Backoff { initial, max }.delay(retry, random);
            prop_assert!(wait >= initial.mul_f64(0.799) && wait <= max.mul_f64(1.201));
        }
    }
}
