//! Each step of a race on exact times, and whatever happens in it.

use proptest::{collection::vec, prelude::*};

use super::*;

const DELAY: Duration = ms(50);
const TIMEOUT: Duration = ms(1000);

const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// A call that began at `start`, at so many milliseconds.
#[derive(Clone, Copy)]
struct Clock(Instant);

impl Clock {
    fn at(self, millis: u64) -> Now {
        Now {
            at: self.0 + ms(millis),
            deadline: self.0 + TIMEOUT,
            hedge_delay: Some(DELAY),
            budget_allows_more: true,
        }
    }

    fn throttled(self, millis: u64) -> Now {
        Now {
            budget_allows_more: false,
            ..self.at(millis)
        }
    }

    /// In milliseconds, when it wants to be woken.
    fn wakes_at(self, race: &Race<&str>) -> Option<u128> {
        race.wakes_at().map(|at| (at - self.0).as_millis())
    }
}

fn begin() -> (Race<&'static str>, Clock) {
    let clock = Clock(Instant::now());
    (Race::new(3, &clock.at(0)), clock)
}

#[track_caller]
fn waits<F: std::fmt::Debug>(turn: Turn<F>) -> Race<F> {
    match turn {
        Turn::Wait(race) => race,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn sends<F: std::fmt::Debug>(turn: Turn<F>, expected: Cause) -> Race<F> {
    match turn {
        Turn::Send(race, cause) if cause == expected => race,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn ends(turn: Turn<&'static str>) -> &'static str {
    match turn {
        Turn::End(fault) => fault,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_delay_begins_again_with_each_attempt() {
    let (race, clock) = begin();
    assert_eq!(clock.wakes_at(&race), Some(50));
    let race = waits(race.woken(&clock.at(49)));
    let race = sends(race.woken(&clock.at(50)), Cause::Slowness);
    assert_eq!(clock.wakes_at(&race), Some(100));
    let race = sends(
        race.failed("a", Ending::Passing, &clock.at(60)),
        Cause::Failure,
    );
    assert_eq!(clock.wakes_at(&race), Some(110));
    // There are no more than three.
    let race = waits(race.woken(&clock.at(110)));
    assert_eq!(clock.wakes_at(&race), None);
    let race = waits(race.failed("b", Ending::Passing, &clock.at(120)));
    assert_eq!(ends(race.failed("c", Ending::Passing, &clock.at(130))), "c");
}

#[test]
fn a_call_of_which_nothing_runs_waits_for_what_the_tool_asked_for_and_no_longer() {
    let asked = |throttled: bool| {
        let (race, clock) = begin();
        let pushback = Ending::Pushback(ms(200));
        if throttled {
            return race.failed("a", pushback, &clock.throttled(10));
        }
        let race = waits(race.failed("a", pushback, &clock.at(10)));
        assert_eq!(clock.wakes_at(&race), Some(210));
        let race = waits(race.woken(&clock.at(209)));
        race.woken(&clock.throttled(210))
    };
    // The budget is empty at once, or when the time has come.
    assert_eq!(ends(asked(true)), "a");
    assert_eq!(ends(asked(false)), "a");

    let (race, clock) = begin();
    let race = waits(race.failed("a", Ending::Pushback(ms(200)), &clock.at(10)));
    let race = sends(race.woken(&clock.at(210)), Cause::Failure);
    assert_eq!(clock.wakes_at(&race), Some(260));
    // No time is left for what the tool asks for.
    for delay in [ms(700), Duration::MAX] {
        let (race, clock) = begin();
        let turn = race.failed("a", Ending::Pushback(delay), &clock.at(300));
        assert_eq!(ends(turn), "a");
    }
}

#[test]
fn what_the_tool_asks_for_is_not_shortened() {
    let asked = || {
        let (race, clock) = begin();
        let race = sends(race.woken(&clock.at(50)), Cause::Slowness);
        let race = waits(race.failed("a", Ending::Pushback(ms(200)), &clock.at(60)));
        assert_eq!(clock.wakes_at(&race), Some(260));
        (race, clock)
    };
    for ending in [
        Ending::Passing,
        Ending::Unanswered,
        Ending::Pushback(ms(20)),
    ] {
        let (race, clock) = asked();
        let race = waits(race.failed("b", ending, &clock.at(70)));
        assert_eq!(clock.wakes_at(&race), Some(260), "{ending:?}");
        sends(race.woken(&clock.at(260)), Cause::Failure);
    }
    let (race, clock) = asked();
    let race = waits(race.failed("b", Ending::Pushback(ms(300)), &clock.at(70)));
    assert_eq!(clock.wakes_at(&race), Some(370));
}

#[test]
fn a_tool_that_wants_no_more_gets_no_more() {
    for told in [Ending::ToldNot, Ending::Pushback(TIMEOUT)] {
        for ending in [
            Ending::Passing,
            Ending::Pushback(ms(10)),
            Ending::Unanswered,
        ] {
            let (race, clock) = begin();
            let race = sends(race.woken(&clock.at(50)), Cause::Slowness);
            let race = waits(race.failed("a", told, &clock.at(60)));
            assert_eq!(clock.wakes_at(&race), None, "{told:?}");
            assert_eq!(ends(race.failed("b", ending, &clock.at(70))), "b");
        }
    }
}

#[test]
fn a_full_budget_is_asked_for_each_attempt() {
    let (race, clock) = begin();
    let race = waits(race.woken(&clock.throttled(50)));
    assert_eq!(clock.wakes_at(&race), None);
    // It has filled up meanwhile.
    let race = sends(
        race.failed("a", Ending::Passing, &clock.at(60)),
        Cause::Failure,
    );
    assert_eq!(
        ends(race.failed("b", Ending::Passing, &clock.throttled(70))),
        "b"
    );
}

#[test]
fn an_answer_ends_the_call_and_silence_only_the_attempt() {
    for (ending, is_over) in [
        (Ending::Final, true),
        (Ending::Unanswered, false),
        (Ending::NotAdmitted, false),
    ] {
        let (race, clock) = begin();
        let race = sends(race.woken(&clock.at(50)), Cause::Slowness);
        let turn = race.failed("a", ending, &clock.at(60));
        assert_eq!(matches!(turn, Turn::End("a")), is_over, "{ending:?}");
        if let Turn::Wait(race) = turn {
            assert_eq!(clock.wakes_at(&race), Some(100), "{ending:?}");
            assert_eq!(ends(race.failed("b", Ending::Final, &clock.at(70))), "b");
        }
        let (race, clock) = begin();
        assert_eq!(ends(race.failed("a", ending, &clock.at(10))), "a");
    }
}

#[test]
fn that_an_attempt_was_not_admitted_is_told_only_if_nothing_else_is_known() {
    let (race, clock) = begin();
    let race = sends(
        race.failed("lost", Ending::Passing, &clock.at(10)),
        Cause::Failure,
    );
    assert_eq!(
        ends(race.failed("not admitted", Ending::NotAdmitted, &clock.at(20))),
        "lost"
    );
}

/// An attempt of a simulated call.
#[derive(Clone, Copy, Debug)]
struct Attempt {
    takes: u64,
    ending: Ending,
}

fn attempt() -> impl Strategy<Value = Attempt> {
    let ending = prop_oneof![
        1 => Just(Ending::Final),
        6 => Just(Ending::Passing),
        6 => (0..400_u64).prop_map(|millis| Ending::Pushback(ms(millis))),
        1 => Just(Ending::Pushback(TIMEOUT)),
        1 => Just(Ending::ToldNot),
        2 => Just(Ending::Unanswered),
        2 => Just(Ending::NotAdmitted),
    ];
    (0..300_u64, ending).prop_map(|(takes, ending)| Attempt { takes, ending })
}

proptest! {
    /// Attempts and timers as they come, and a budget that others empty and fill.
    #[test]
    fn every_race_ends_and_no_later_than_its_last_event(
        attempts in vec(attempt(), 5),
        budget in vec(any::<bool>(), 24),
        delays in vec(proptest::option::weighted(0.7, 0..200_u64), 24),
        max_attempts in 1..=5_u32,
    ) {
        let start = Instant::now();
        let (mut budget, mut delays) = (budget.into_iter(), delays.into_iter());
        let mut now = |at| Now {
            at,
            deadline: start + TIMEOUT,
            hedge_delay: delays.next().expect("a delay").map(ms),
            budget_allows_more: budget.next().expect("a budget"),
        };
        // Those that run: when they end, and their number.
        let mut running = vec![(start + ms(attempts[0].takes), 0)];
        let mut sent = 1;
        let mut race = Race::new(max_attempts, &now(start));
        // When the next may be made at the earliest, as the tool said.
        let mut not_before = Some(start);
        let mut telling = None;
        loop {
            let first = running.iter().copied().min();
            let timer = race.wakes_at();
            prop_assert!(first.is_some() || timer.is_some(), "nothing is awaited");
            let ends_first = first.filter(|&(end, _)| timer.is_none_or(|at| end <= at));
            let (at, ended) = match (ends_first, timer) {
                (Some((end, number)), _) => (end, Some(number)),
                (None, Some(at)) => (at, None),
                (None, None) => unreachable!(),
            };
            let now = now(at);
            let turn = match ended {
                Some(number) => {
                    running.retain(|&(_, other)| other != number);
                    let ending = attempts[number].ending;
                    match ending {
                        Ending::ToldNot => not_before = None,
                        Ending::Pushback(delay) if at + delay >= now.deadline => not_before = None,
                        Ending::Pushback(delay) => {
                            not_before = not_before.map(|earlier| earlier.max(at + delay));
                        }
                        _ => {}
                    }
                    if ending != Ending::NotAdmitted || telling.is_none() {
                        telling = Some(number);
                    }
                    race.failed(number, ending, &now)
                }
                None => race.woken(&now),
            };
            race = match turn {
                Turn::Wait(race) => race,
                Turn::Send(race, _) => {
                    prop_assert!(sent < max_attempts as usize && now.budget_allows_more);
                    prop_assert!(not_before.is_some_and(|time| time <= at), "{not_before:?}");
                    running.push((at + ms(attempts[sent].takes), sent));
                    sent += 1;
                    race
                }
                Turn::End(fault) => {
                    prop_assert_eq!(Some(fault), telling);
                    let is_final = attempts[fault].ending == Ending::Final;
                    prop_assert!(running.is_empty() || is_final);
                    break;
                }
            };
        }
    }
}
