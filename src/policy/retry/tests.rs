//! What is sent again, on exact times.

use bytes::Bytes;
use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{
    config::Tool,
    core::error::{Effect, Reason, ToolStatus},
};

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

fn policy(idempotent: bool) -> RetryPolicy {
    RetryPolicy::new(&Tool {
        idempotent,
        ..Tool::new("weather".to_owned())
    })
}

fn failure(stage: Stage, reason: Reason) -> Failure {
    let what = (reason, Effect::Maybe);
    Failure::new(stage, what, Code::Unavailable, String::new())
}

fn no_connection() -> Failure {
    failure(Stage::Unsent(1), Reason::ToolUnavailable)
}

fn not_admitted() -> Failure {
    failure(Stage::NotAdmitted, Reason::CircuitOpen)
}

fn lost() -> Failure {
    failure(Stage::Reset, Reason::ToolUnavailable)
}

fn too_large() -> Failure {
    failure(Stage::Answered, Reason::ResultTooLarge)
}

fn status(code: Code, pushback: Option<Pushback>) -> Failure {
    let details = Bytes::new();
    let reason = Reason::ToolFailed(ToolStatus { code, details });
    Failure {
        code,
        resend: Resend::ByStatus(pushback),
        ..failure(Stage::Answered, reason)
    }
}

#[test]
fn what_can_not_be_sent_is_tried_for_a_while_in_growing_steps() {
    let (policy, mut history) = (policy(false), History::default());
    let start = Instant::now();
    let mut now = start;
    let mut waits = Vec::new();
    while let Some(wait) = policy.transparent(&no_connection(), &mut history, (now, now), 0.5) {
        waits.push(wait);
        now += wait;
    }
    assert_eq!(waits, [50, 100, 200, 200, 200, 200].map(ms));
    assert!(now - start <= ms(1000));
}

#[test]
fn a_dial_that_took_the_whole_time_is_the_only_one() {
    let (policy, mut history) = (policy(true), History::default());
    let start = Instant::now();
    let times = (start, start + ms(1000));
    assert_eq!(
        policy.transparent(&no_connection(), &mut history, times, 0.5),
        None
    );
}

#[test]
fn a_call_waits_for_the_breaker_only_when_it_is_under_way() {
    let start = Instant::now();
    let policy = policy(true);
    let wait = |history: &mut History, failure: Failure, after| {
        policy.transparent(&failure, history, (start, start + after), 0.5)
    };
    let mut history = History::default();
    assert_eq!(wait(&mut history, not_admitted(), ms(0)), None);

    let mut history = History::default();
    assert_eq!(wait(&mut history, no_connection(), ms(0)), Some(ms(50)));
    assert_eq!(wait(&mut history, not_admitted(), ms(0)), Some(ms(100)));
    assert_eq!(wait(&mut history, not_admitted(), ms(801)), None);

    // What was lost has worked before.
    let mut history = History::after_loss();
    assert_eq!(wait(&mut history, not_admitted(), ms(2950)), Some(ms(50)));
    let mut history = History::after_loss();
    assert_eq!(wait(&mut history, not_admitted(), ms(2951)), None);
}

#[test]
fn only_an_idempotent_tool_is_asked_again() {
    let unavailable = || status(Code::Unavailable, None);
    for failure in [
        unavailable(),
        lost(),
        status(Code::Unavailable, Some(Pushback::After(ms(500)))),
    ] {
        assert_eq!(
            policy(false).verdict(&failure),
            Verdict::Final,
            "{failure:?}"
        );
    }
    let verdict = |failure| policy(true).verdict(&failure);
    assert_eq!(verdict(unavailable()), Verdict::Retryable);
    assert_eq!(verdict(lost()), Verdict::Retryable);
    assert_eq!(verdict(status(Code::Aborted, None)), Verdict::Final);
    assert_eq!(verdict(too_large()), Verdict::Final);
    assert_eq!(verdict(no_connection()), Verdict::Final);
    assert_eq!(verdict(not_admitted()), Verdict::Final);
}

#[test]
fn the_tool_says_when_it_wants_to_be_asked_again() {
    let verdict = |pushback| policy(true).verdict(&status(Code::Unavailable, Some(pushback)));
    for delay in [ms(500), ms(0)] {
        assert_eq!(verdict(Pushback::After(delay)), Verdict::After(delay));
    }
    assert_eq!(verdict(Pushback::Never), Verdict::ToldNot);
    let other = status(Code::NotFound, Some(Pushback::After(ms(500))));
    assert_eq!(policy(true).verdict(&other), Verdict::Final);

    let (policy, mut history) = (policy(true), History::default());
    let mut delay = |verdict| policy.delay(verdict, &mut history, 0.5);
    assert_eq!(delay(Verdict::Retryable), ms(50));
    assert_eq!(delay(Verdict::Retryable), ms(100));
    assert_eq!(delay(Verdict::After(ms(7))), ms(7));
    // As from the beginning.
    assert_eq!(delay(Verdict::Retryable), ms(50));
    assert_eq!(history.retries(), 4);
}

#[test]
fn that_the_breaker_is_open_is_told_only_if_nothing_else_is_known() {
    let conclude = |history: History| history.conclude(not_admitted()).stage;
    assert_eq!(conclude(History::default()), Stage::NotAdmitted);
    let mut history = History::default();
    history.keep(no_connection());
    history.keep(not_admitted());
    assert_eq!(conclude(history), Stage::Unsent(1));
}

proptest! {
    /// Whatever a call meets, one after the other: what may have run is sent again
    /// only if it may run twice, and then within `max_attempts`; and what can't be
    /// sent is given up in time.
    #[test]
    fn nothing_is_done_twice_that_must_not_be_and_nothing_is_tried_for_ever(
        met in vec((0..8_u8, 0..300_u64, 0.0..1.0_f64), 200),
        idempotent in any::<bool>(),
    ) {
        let (policy, mut history) = (policy(idempotent), History::default());
        let start = Instant::now();
        let (mut now, mut unsent_since, mut may_have_run) = (start, None, 0);
        for (what, millis, random) in met {
            let failure = match what {
                0 => lost(),
                1 => too_large(),
                2 => status(Code::Unavailable, None),
                3 => status(Code::Unavailable, Some(Pushback::After(ms(5)))),
                4 => not_admitted(),
                _ => no_connection(),
            };
            let sent = what < 4;
            let began = now;
            now += ms(millis);
            may_have_run += u32::from(sent);
            if sent {
                unsent_since = None;
            } else {
                let since = *unsent_since.get_or_insert(began);
                let longest = ms(300) + if may_have_run > 0 { ms(3000) } else { ms(1000) };
                prop_assert!(now - since <= longest, "{:?}", now - since);
            }
            let times = (began, now);
            if let Some(wait) = policy.transparent(&failure, &mut history, times, random) {
                prop_assert!(!sent, "{failure:?}");
                now += wait;
                continue;
            }
            let verdict = policy.verdict(&failure);
            let is_over = matches!(verdict, Verdict::Final | Verdict::ToldNot);
            if is_over || history.retries() + 1 >= policy.max_attempts {
                break;
            }
            prop_assert!(idempotent && sent, "{failure:?}");
            now += policy.delay(verdict, &mut history, random);
        }
        let most = if idempotent { policy.max_attempts } else { 1 };
        prop_assert!(may_have_run <= most, "{may_have_run}");
    }
}
