//! The retry budget of a tool service: the token bucket of gRFC A6
//! (<https://github.com/grpc/proposal/blob/master/A6-client-retries.md>).
//!
//! Failures take tokens and answers return them; retries and hedges need the bucket to be
//! more than half full. So a service that keeps failing gets each call once, whatever the
//! retry policies of its tools say.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::config::RetryBudget;

/// The bucket of one tool service.
#[derive(Debug)]
pub(super) struct Budget {
    /// Its content, in units of which a token has `per_token` and an answer returns one.
    level: AtomicU32,
    max: u32,
    per_token: u32,
}

impl Budget {
    /// A full bucket.
    pub(super) fn new(settings: &RetryBudget) -> Self {
        let per_token = settings.answers_per_token;
        let max = settings.max_tokens.saturating_mul(per_token);
        Self {
            level: AtomicU32::new(max),
            max,
            per_token,
        }
    }

    /// Whether a retry or a hedge is allowed.
    pub(super) fn allows_more(&self) -> bool {
        self.level.load(Ordering::Relaxed) > self.max / 2
    }

    /// Takes one token, or what is left.
    pub(super) fn take(&self) {
        self.update(|level| level.saturating_sub(self.per_token));
    }

    /// Returns what an answer is worth.
    pub(super) fn answered(&self) {
        // Full is the normal case, and takes no write.
        if self.level.load(Ordering::Relaxed) < self.max {
            self.update(|level| self.max.min(level + 1));
        }
    }

    fn update(&self, change: impl Fn(u32) -> u32) {
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        // Fails only if `change` returns `None`.
        let _ = self
            .level
            .fetch_update(set, fetch, |level| Some(change(level)));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn budget(max_tokens: u32, answers_per_token: u32) -> Budget {
        Budget::new(&RetryBudget {
            max_tokens,
            answers_per_token,
        })
    }

    #[test]
    fn at_half_there_are_no_more_retries_until_answers_come() {
        let budget = budget(10, 10);
        for _ in 0..4 {
            budget.take();
        }
        assert!(budget.allows_more());
        budget.take();
        assert!(!budget.allows_more());
        budget.answered();
        assert!(budget.allows_more());
        for _ in 0..100 {
            budget.take();
        }
        for _ in 0..50 {
            assert!(!budget.allows_more());
            budget.answered();
        }
        assert!(!budget.allows_more());
        budget.answered();
        assert!(budget.allows_more());
    }

    proptest! {
        /// Each call that fails is retried as often as the budget lets it.
        #[test]
        fn retries_are_at_most_a_share_of_the_calls(
            calls in proptest::collection::vec(any::<bool>(), 1..2000),
            max_tokens in 1..20_u32,
            per_token in 1..20_u32,
        ) {
            let budget = budget(max_tokens, per_token);
            let mut extra = 0;
            for &answers in &calls {
                if answers {
                    budget.answered();
                    continue;
                }
                for _ in 0..5 {
                    budget.take();
                    if !budget.allows_more() {
                        break;
                    }
                    extra += 1;
                }
            }
            let bound = max_tokens + calls.len() as u32 / per_token;
            prop_assert!(extra <= bound, "{} > {}", extra, bound);
        }
    }
}
