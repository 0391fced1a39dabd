//! What is sent again, on exact times.

use bytes::Bytes;
use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{config::Tool, core::error::ToolStatus, policy::breaker::Owner};

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

fn policy(idempotent: bool) -> RetryPolicy {
    RetryPolicy::new(&Tool {
        idempotent,
        ..Tool::new("weather".to_owned())
    })
}

fn no_connection() -> Fault {
    let (service, reason) = ("weather".to_owned(), "refused".to_owned());
    Fault::NoConnection {
        service,
        reason,
        connect_epoch: 1,
    }
}

fn barred() -> Fault {
    Fault::CircuitOpen {
        owner: Owner::Service("weather".into()),
        retry_after: ms(500),
        last: "it is down".into(),
    }
}

fn lost() -> Fault {
    Fault::NotGrpc {
        is_complete: true,
        quote: String::new(),
        status: http::StatusCode::BAD_GATEWAY,
    }
}

fn status(code: Code, pushback: Option<&'static str>) -> Fault {
    let status = ToolStatus {
        code: code.into(),
        details: Bytes::new(),
    };
    Fault::Tool {
        status,
        message: String::new(),
        pushback: pushback.map(|value| Pushback::parse(&http::HeaderValue::from_static(value))),
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
    let wait = |history: &mut History, fault: Fault, after| {
        policy.transparent(&fault, history, (start, start + after), 0.5)
    };
    let mut history = History::default();
    assert_eq!(wait(&mut history, barred(), ms(0)), None);

    let mut history = History::default();
    assert_eq!(wait(&mut history, no_connection(), ms(0)), Some(ms(50)));
    assert_eq!(wait(&mut history, barred(), ms(0)), Some(ms(100)));
    assert_eq!(wait(&mut history, barred(), ms(801)), None);

    // What was lost has worked before.
    let mut history = History::after_loss();
    assert_eq!(wait(&mut history, barred(), ms(2950)), Some(ms(50)));
    let mut history = History::after_loss();
    assert_eq!(wait(&mut history, barred(), ms(2951)), None);
}

#[test]
fn only_an_idempotent_tool_is_asked_again() {
    let unavailable = || status(Code::Unavailable, None);
    for fault in [
        unavailable(),
        lost(),
        status(Code::Unavailable, Some("500")),
    ] {
        assert_eq!(policy(false).verdict(&fault), Verdict::Final, "{fault:?}");
    }
    let verdict = |fault| policy(true).verdict(&fault);
    assert_eq!(verdict(unavailable()), Verdict::Retryable);
    assert_eq!(verdict(lost()), Verdict::Retryable);
    assert_eq!(verdict(status(Code::Aborted, None)), Verdict::Final);
    assert_eq!(verdict(Fault::TooLarge { bytes: Some(1) }), Verdict::Final);
    assert_eq!(verdict(no_connection()), Verdict::Final);
    assert_eq!(verdict(barred()), Verdict::Final);
}

#[test]
fn the_tool_says_when_it_wants_to_be_asked_again() {
    let verdict = |value| policy(true).verdict(&status(Code::Unavailable, Some(value)));
    assert_eq!(verdict("500"), Verdict::After(ms(500)));
    assert_eq!(verdict("0"), Verdict::After(ms(0)));
    for never in ["-1", "", "soon", "1.5", "4294967296"] {
        assert_eq!(verdict(never), Verdict::ToldNot, "{never}");
    }
    let other = status(Code::NotFound, Some("500"));
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
    let conclude = |history: History| history.conclude(barred()).scope();
    assert_eq!(conclude(History::default()), FailureStage::NotAdmitted);
    let mut history = History::default();
    history.keep(no_connection());
    history.keep(barred());
    assert_eq!(conclude(history), FailureStage::Unsent(1));
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
            let fault = match what {
                0 => lost(),
                1 => Fault::TooLarge { bytes: Some(1) },
                2 => status(Code::Unavailable, None),
                3 => status(Code::Unavailable, Some("5")),
                4 => barred(),
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
            if let Some(wait) = policy.transparent(&fault, &mut history, times, random) {
                prop_assert!(!sent, "{fault:?}");
                now += wait;
                continue;
            }
            let verdict = policy.verdict(&fault);
            let is_over = matches!(verdict, Verdict::Final | Verdict::ToldNot);
            if is_over || history.retries() + 1 >= policy.max_attempts {
                break;
            }
            prop_assert!(idempotent && sent, "{fault:?}");
            now += policy.delay(verdict, &mut history, random);
        }
        let most = if idempotent { policy.max_attempts } else { 1 };
        prop_assert!(may_have_run <= most, "{may_have_run}");
    }
}
