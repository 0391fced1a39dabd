//! However calls end, whoever watches is told of each of them once, and of each of their
//! attempts before that.

mod scenario;

use proptest::{collection::vec, prelude::*};

use self::scenario::{AttemptEnd, End, Run, Scenario, Script, Told};
use crate::core::{call::FailurePolicy, status::Code};

fn script(attempts: &[(u64, AttemptEnd)], end: End) -> Script {
    Script {
        queue: None,
        attempts: attempts.to_vec(),
        end,
        panics_at_once: false,
    }
}

fn ended(call: usize, reason: Option<&'static str>, attempts: u32) -> Told {
    Told::Ended {
        call,
        reason,
        attempts,
        was_started: true,
        is_abandoned: false,
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_is_told_from_its_start_to_its_end() {
    use Told::{AttemptEnded, AttemptStarted, BatchEnded, OwnAttemptEnded, Started};
    let attempts = [(5, AttemptEnd::Unsent), (5, AttemptEnd::Answered)];
    let mut scenario = Scenario::of([script(&attempts, End::Answer)]);
    scenario.keeps_attempts = true;
    let told = scenario.run().await.told;
    let expected = [
        Started(0),
        AttemptStarted(0),
        AttemptEnded(0, Code::Unavailable),
        OwnAttemptEnded(0),
        AttemptStarted(0),
        AttemptEnded(0, Code::Ok),
        OwnAttemptEnded(0),
        ended(0, None, 1),
        BatchEnded,
    ];
    assert_eq!(told, expected);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_has_what_still_ran_told_as_abandoned() {
    use Told::{AttemptEnded, AttemptStarted, BatchEnded, Started};
    let hangs = script(&[(60_000, AttemptEnd::Answered)], End::Hang);
    let in_line = Script {
        queue: Some(60_000),
        ..script(&[], End::Hang)
    };
    let scenario = Scenario {
        concurrency_limit: 3,
        gone: Some(100),
        ..Scenario::of([script(&[], End::Answer), hangs.clone(), in_line, hangs])
    };
    let abandoned = |call, attempts, was_started| Told::Ended {
        call,
        reason: Some("CANCELLED"),
        attempts,
        was_started,
        is_abandoned: true,
    };
    let Run { told, outcomes, .. } = scenario.run().await;
    assert_eq!(outcomes, 1);
    let expected = [
        Started(0),
        ended(0, None, 0),
        Started(1),
        AttemptStarted(1),
        Started(3),
        AttemptStarted(3),
        AttemptEnded(1, Code::Cancelled),
        AttemptEnded(3, Code::Cancelled),
        abandoned(1, 1, true),
        abandoned(2, 0, false),
        abandoned(3, 1, true),
        BatchEnded,
    ];
    // In which order the set drops its futures is its own affair.
    let sorted = |mut told: Vec<Told>| {
        told[6..8].sort_by_key(|told| format!("{told:?}"));
        told
    };
    assert_eq!(sorted(told), expected);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_runs_out_of_time_says_so() {
    let hangs = script(&[(60_000, AttemptEnd::Answered)], End::Hang);
    let told = Scenario::of([hangs]).run().await.told;
    let end = Told::AttemptEnded(0, Code::DeadlineExceeded);
    assert_eq!(told[2..4], [end, ended(0, Some("DEADLINE_EXCEEDED"), 1)]);
}

/// Checks what holds for every batch.
fn check(told: &[Told], calls: usize) -> Result<(), TestCaseError> {
    prop_assert_eq!(told.last(), Some(&Told::BatchEnded));
    let ends = told.iter().filter(|told| **told == Told::BatchEnded);
    prop_assert_eq!(ends.count(), 1);
    for call in 0..calls {
        let of_call = told.iter().filter(|told| match told {
            Told::Started(it)
            | Told::AttemptStarted(it)
            | Told::AttemptEnded(it, _)
            | Told::OwnAttemptEnded(it)
            | Told::Ended { call: it, .. } => *it == call,
            Told::BatchEnded => false,
        });
        let (mut started, mut running, mut kept, mut ended) = (false, 0, 0, false);
        for told in of_call {
            prop_assert!(!ended, "{told:?} after the end of call {call}");
            match told {
                Told::Started(_) => {
                    prop_assert!(!started, "call {call} started twice");
                    started = true;
                }
                Told::AttemptStarted(_) => {
                    prop_assert!(started);
                    (running, kept) = (running + 1, kept + 1);
                }
                Told::AttemptEnded(..) => running -= 1,
                Told::OwnAttemptEnded(_) => kept -= 1,
                Told::Ended { was_started, .. } => {
                    prop_assert_eq!(*was_started, started);
                    prop_assert_eq!(running, 0);
                    ended = true;
                }
                Told::BatchEnded => {}
            }
        }
        prop_assert!(ended, "call {call} has no end");
        let keeps = told.iter().any(|it| matches!(it, Told::OwnAttemptEnded(_)));
        prop_assert!(!keeps || kept == 0);
    }
    Ok(())
}

fn any_script() -> impl Strategy<Value = Script> {
    let end = prop_oneof![
        4 => Just(End::Answer),
        2 => Just(End::Failure),
        1 => Just(End::Panic),
        2 => Just(End::Hang),
        1 => Just(End::HangBadly),
    ];
    let attempt_end = prop_oneof![
        Just(AttemptEnd::Answered),
        Just(AttemptEnd::Unsent),
        Just(AttemptEnd::Dropped),
    ];
    let queue = proptest::option::weighted(0.3, 0..200_u64);
    let attempts = vec((0..200_u64, attempt_end), 0..4);
    let at_once = proptest::bool::weighted(0.1);
    (queue, attempts, end, at_once).prop_map(|(queue, attempts, end, panics_at_once)| Script {
        queue,
        attempts,
        end,
        panics_at_once,
    })
}

fn any_scenario() -> impl Strategy<Value = Scenario> {
    let calls = vec(proptest::option::weighted(0.9, any_script()), 1..6);
    let cancels_rest = proptest::bool::weighted(0.3);
    let time = || proptest::option::weighted(0.3, 0..600_u64);
    let keeps = proptest::bool::ANY;
    (calls, cancels_rest, 1..6_usize, keeps, time(), time()).prop_map(
        |(calls, cancels_rest, concurrency_limit, keeps_attempts, stop, gone)| Scenario {
            calls,
            failure_policy: match cancels_rest {
                true => FailurePolicy::CancelRest,
                false => FailurePolicy::Continue,
            },
            concurrency_limit,
            keeps_attempts,
            stop,
            gone,
        },
    )
}

proptest! {
    #[test]
    fn every_call_is_told_once_and_after_its_attempts(scenario in any_scenario()) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let calls = scenario.calls.len();
        let is_gone = scenario.gone.is_some();
        let Run { told, outcomes, has_panicked } = runtime.block_on(scenario.run());
        check(&told, calls)?;
        let handed_on = told.iter().filter(
            |told| matches!(told, Told::Ended { is_abandoned: false, .. })
        );
        prop_assert!(handed_on.count() >= outcomes);
        prop_assert!(is_gone || has_panicked || outcomes == calls);
    }
}
