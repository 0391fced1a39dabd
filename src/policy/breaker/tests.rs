//! What opens a breaker, what does not, and how it closes, on exact times.

use proptest::prelude::*;

use super::*;

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

fn settings() -> config::Breaker {
    config::Breaker {
        failures: 3,
        open_time: ms(1000),
        max_open_time: ms(3000),
        probes: 2,
    }
}

fn breaker() -> Breaker {
    Breaker::new(Owner::Service("weather".into()), &settings())
}

fn sent(breaker: &Breaker) -> Admitted {
    breaker.admit().expect("the breaker to be closed")
}

fn fail(breaker: &Breaker, end: End) {
    let ticket = sent(breaker);
    breaker.settle(ticket, end, String::new);
}

#[test]
fn failures_in_a_row_open_it_and_an_answer_between_does_not() {
    let breaker = breaker();
    for end in [
        End::Lost,
        End::TimedOut,
        End::Answered,
        End::TimedOut,
        End::Lost,
    ] {
        fail(&breaker, end);
    }
    assert_eq!(breaker.state(), BreakerState::Closed);
    for _ in 0..100 {
        fail(&breaker, End::Unknown);
    }
    assert_eq!(
        (breaker.state(), breaker.times_opened()),
        (BreakerState::Closed, 0)
    );

    fail(&breaker, End::TimedOut);

    assert_eq!(
        (breaker.state(), breaker.times_opened()),
        (BreakerState::Open, 1)
    );
    let wait = breaker.admit().unwrap_err();
    assert!(wait > ms(700) && wait <= ms(1000), "{wait:?}");
    assert!(breaker.is_open().is_some());
}

#[test]
fn calls_that_are_lost_together_are_one_failure() {
    let breaker = breaker();
    for _ in 0..2 {
        let tickets: Vec<_> = (0..200).map(|_| sent(&breaker)).collect();
        let news = tickets
            .into_iter()
            .map(|t| breaker.settle(t, End::Lost, String::new));
        assert_eq!(news.filter(|&news| news).count(), 1);
    }
    assert_eq!(breaker.state(), BreakerState::Closed);
    fail(&breaker, End::Answered);
    for connect_epoch in [1, 1, 1, 2, 2, 2] {
        fail(&breaker, End::Unsent(connect_epoch));
    }
    assert_eq!(breaker.state(), BreakerState::Closed);
    fail(&breaker, End::Answered);
    // Each of those that got no answer in time says it again.
    let tickets = [sent(&breaker), sent(&breaker), sent(&breaker)];
    for ticket in tickets {
        assert!(breaker.settle(ticket, End::TimedOut, String::new));
    }
    assert_eq!(breaker.state(), BreakerState::Open);
}

#[test]
fn what_fails_while_others_are_answered_does_not_count() {
    let breaker = breaker();
    let tickets: Vec<_> = (0..200).map(|_| sent(&breaker)).collect();
    fail(&breaker, End::Answered);
    for (index, ticket) in tickets.into_iter().enumerate() {
        let end = [End::Lost, End::TimedOut][index % 2];
        breaker.settle(ticket, end, String::new);
    }
    assert_eq!(breaker.state(), BreakerState::Closed);
}

#[test]
fn an_answer_that_comes_late_closes_it_too() {
    let breaker = breaker();
    let slow = sent(&breaker);
    for _ in 0..3 {
        fail(&breaker, End::Lost);
    }
    assert_eq!(breaker.state(), BreakerState::Open);
    breaker.settle(slow, End::Answered, String::new);
    assert_eq!(breaker.state(), BreakerState::Closed);
}

#[test]
fn that_a_service_can_be_reached_again_is_enough_if_it_could_not_be() {
    for (last, expected) in [
        (End::Unsent(2), BreakerState::Closed),
        (End::Lost, BreakerState::Open),
        (End::TimedOut, BreakerState::Open),
    ] {
        let breaker = breaker();
        for end in [End::Lost, End::Unsent(1), last] {
            fail(&breaker, end);
        }
        assert_eq!(breaker.state(), BreakerState::Open);
        breaker.reached();
        assert_eq!(breaker.state(), expected, "{last:?}");
    }
}

/// A machine that has just opened, and when.
fn opened() -> (Machine, Instant) {
    let now = Instant::now();
    let mut machine = Machine::new(&settings());
    for last in [false, false, true] {
        let opened = machine.failed(None, true, 0, now, 0.0);
        assert_eq!(opened, last.then_some(ms(1000)));
    }
    (machine, now)
}

#[test]
fn a_few_calls_are_tried_and_an_answer_closes_it() {
    let (mut machine, start) = opened();
    let at = |millis| start + ms(millis);
    assert_eq!(machine.admit(at(0), 0.0), Err(ms(1000)));
    assert_eq!(machine.admit(at(999), 0.0), Err(ms(1)));
    assert_eq!(machine.state(), BreakerState::Open);

    let probe = machine.admit(at(1000), 0.0).unwrap();
    assert!(probe.is_some());
    assert_eq!(machine.state(), BreakerState::HalfOpen);
    assert_eq!(machine.admit(at(1001), 0.0), Err(ms(999)));
    // The first hangs, so another is tried; then there are enough.
    assert!(machine.admit(at(2000), 0.0).unwrap().is_some());
    assert_eq!(machine.admit(at(3000), 0.0), Err(ms(1000)));

    assert!(machine.answered());
    assert_eq!(machine.state(), BreakerState::Closed);
    assert_eq!(machine.admit(at(3000), 0.0), Ok(None));
    // What was on probe then says nothing now.
    for last in [false, false, true] {
        let opened = machine.failed(probe, true, 1, at(3000), 1.0);
        assert_eq!(opened, last.then_some(ms(800)));
    }
    assert_eq!(machine.failed(probe, true, 1, at(3000), 0.0), None);
    assert_eq!(machine.state(), BreakerState::Open);
}

#[test]
fn each_failed_probe_doubles_the_wait_up_to_the_bound() {
    let (mut machine, mut now) = opened();
    for (wait, next) in [(1000, 2000), (2000, 3000), (3000, 3000)] {
        assert_eq!(machine.is_open(now), Some(ms(wait)));
        now += ms(wait);
        let probe = machine.admit(now, 0.0).unwrap();
        assert_eq!(machine.failed(probe, true, 0, now, 0.0), None);
        assert_eq!(machine.state(), BreakerState::Open);
        assert_eq!(machine.is_open(now), Some(ms(next)));
    }
    // A probe that is cancelled says nothing, and the next is due all the same.
    now += ms(3000);
    let probe = machine.admit(now, 0.0).unwrap();
    machine.failed(probe, false, 0, now, 0.0);
    assert_eq!(machine.state(), BreakerState::Open);
    assert_eq!(machine.is_open(now + ms(3000)), None);
}

#[test]
fn a_probe_that_was_not_made_is_due_at_once() {
    let (mut machine, start) = opened();
    let now = start + ms(1000);
    let probe = machine.admit(now, 0.0).unwrap().unwrap();
    assert!(machine.is_open(now).is_some());
    machine.withdraw(probe, now);
    assert_eq!(machine.state(), BreakerState::Open);
    assert_eq!(machine.admit(now, 0.0), Ok(Some(probe)));
    // It says nothing of a later opening.
    machine.answered();
    machine.withdraw(probe, now);
    assert_eq!(machine.state(), BreakerState::Closed);
}

proptest! {
    /// Whatever happens: while it is open there are never more probes than
    /// allowed, it lets one through within the longest time, and closes with an
    /// answer.
    #[test]
    fn it_neither_floods_nor_forgets_a_service(
        steps in proptest::collection::vec((0..4_u8, 0..2000_u64, 0.0..1.0_f64), 1..200),
    ) {
        let settings = settings();
        let mut machine = Machine::new(&settings);
        let mut now = Instant::now();
        let mut probes = Vec::new();
        for (step, millis, random) in steps {
            now += ms(millis);
            match step {
                0 => match machine.admit(now, random) {
                    Ok(Some(probe)) => probes.push(probe),
                    Ok(None) => prop_assert_eq!(machine.state(), BreakerState::Closed),
                    Err(wait) => prop_assert!(!wait.is_zero() && wait <= settings.max_open_time),
                },
                1 => drop(machine.failed(None, true, 0, now, random)),
                2 => {
                    let probe = probes.pop();
                    machine.failed(probe, true, 0, now, random);
                }
                _ if millis < 100 => {
                    machine.answered();
                    probes.clear();
                    prop_assert_eq!(machine.state(), BreakerState::Closed);
                }
                _ => {}
            }
            let probing = machine.open.map_or(0, |open| open.probing);
            prop_assert!(probing <= settings.probes);
            if machine.open.is_some() {
                prop_assert_eq!(probing as usize, probes.len());
                let later = now + settings.max_open_time;
                let is_free = probing < settings.probes;
                prop_assert_eq!(machine.is_open(later).is_none(), is_free);
            }
        }
    }
}
