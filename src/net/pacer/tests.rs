//! What the servers that are known bear, and what is cancelled all the same.

use std::collections::VecDeque;

use proptest::{collection::vec, prelude::*};

use super::*;

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// Resets so many as it may at `now`, with an acknowledgement whenever it is needed.
fn reset(pacer: &mut Pacer, count: usize, mut now: Instant) -> (usize, Instant) {
    let start = now;
    for done in 0..count {
        loop {
            match pacer.turn((start, start), 0, now) {
                Turn::Now => break,
                Turn::Acknowledged(_) => {
                    pacer.acknowledged(pacer.unacknowledged(), Duration::ZERO, now)
                }
                Turn::At(at) if at > start + SECOND => return (done, now),
                Turn::At(at) => now = at,
            }
        }
        pacer.reset(start, now);
    }
    (count, now)
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_lone_reset_is_sent_at_once() {
    let start = Instant::now();
    let mut pacer = Pacer::new(start);
    for second in 0..1000 {
        let now = start + second * 3 * SECOND;
        assert_eq!(pacer.turn((now, now), 0, now), Turn::Now, "{second}");
        pacer.reset(now - 3 * SECOND, now);
        pacer.acknowledged(1, Duration::ZERO, now);
        assert!(!pacer.is_worn(0, 0, now), "{second}");
    }
}

#[test]
fn a_hundred_resets_take_a_few_round_trips() {
    let start = Instant::now();
    let mut pacer = Pacer::new(start);
    let (done, end) = reset(&mut pacer, 100, start);
    assert_eq!(done, 100);
    assert!(end <= start + ms(30), "{:?}", end - start);
}

#[test]
fn no_more_are_on_their_way_than_a_server_of_h2_bears() {
    let start = Instant::now();
    let mut pacer = Pacer::new(start);
    for _ in 0..UNACKNOWLEDGED {
        assert_eq!(pacer.turn((start, start), 0, start), Turn::Now);
        pacer.reset(start, start);
    }
    let wait = Turn::Acknowledged(start + PATIENCE);
    assert_eq!(pacer.turn((start, start), 0, start), wait);
    // It may have read them and not yet come to them.
    for (took, pause) in [(Duration::ZERO, SPACING), (ms(10), ms(20))] {
        pacer.acknowledged(UNACKNOWLEDGED, took, start);
        let turn = pacer.turn((start, start), 0, start);
        assert_eq!(turn, Turn::At(start + pause));
    }
    const { assert!(2 * UNACKNOWLEDGED < 20) };
}

#[test]
fn a_connection_is_worn_while_it_can_still_reset_what_it_carries() {
    let start = Instant::now();
    let mut pacer = Pacer::new(start);
    let mut now = start;
    while !pacer.is_worn(0, 0, now) {
        assert_eq!(reset(&mut pacer, 1, now).0, 1);
        now += ms(3);
    }
    // But for the one that was one too much.
    assert!(reset(&mut pacer, RESERVE, now).0 >= RESERVE - 1);
}

/// Envoy counts as long as the connection lasts.
#[test]
fn half_of_few_streams_are_not_reset_young_however_slowly() {
    let start = Instant::now();
    let mut pacer = Pacer::new(start);
    let reset_some = |pacer: &mut Pacer, ended: usize| {
        (0..1000).position(|count| {
            let now = start + count * 3 * SECOND;
            if pacer.is_worn(0, ended + count as usize, now) {
                return true;
            }
            assert_eq!(pacer.turn((now, now), ended, now), Turn::Now);
            pacer.reset(now, now);
            pacer.acknowledged(1, Duration::ZERO, now);
            false
        })
    };
    let worn = reset_some(&mut pacer, 0).expect("it is worn");
    assert!(worn + RESERVE <= 250, "{worn}");
    // Those that it still carries may be reset, and one more once it is not young.
    let now = start + 10_000 * SECOND;
    for _ in 0..RESERVE - 1 {
        pacer.reset(now, now);
        pacer.acknowledged(1, Duration::ZERO, now - SPACING);
    }
    let turn = pacer.turn((now, now), 250, now);
    assert_eq!(turn, Turn::At(now + YOUNG));
    // Where most are answered, resets do no harm.
    assert_eq!(reset_some(&mut Pacer::new(start), 10_000), None);
}

#[test]
fn what_waits_too_long_keeps_to_the_wider_bound() {
    let start = Instant::now();
    let mut pacer = Pacer::new(start);
    let (done, now) = reset(&mut pacer, 1000, start);
    assert_eq!(done, 180);
    assert!(matches!(pacer.turn((start, start), 0, now), Turn::At(at) if at <= start + PATIENCE));
    let late = start + PATIENCE;
    let mut more = 0;
    while pacer.turn((start, start), 0, late) == Turn::Now {
        pacer.reset(start, late);
        more += 1;
    }
    // With what came since the first.
    let sent = done + more;
    assert!((900..=900 + 150).contains(&sent), "{sent}");
    let next = pacer.turn((start, start), 0, late);
    assert!(
        matches!(next, Turn::At(at) if at <= late + ms(34)),
        "{next:?}"
    );
}

proptest! {
    /// Whatever is cancelled when: none of the servers finds it too much, and while
    /// the connection is not overloaded, nothing waits for long.
    #[test]
    fn no_server_finds_it_too_much(
        steps in vec((0..2000_u64, 0..60_usize, 0..4000_u64, 0..40_usize), 1..60),
    ) {
        let start = Instant::now();
        let mut now = start + 10 * SECOND;
        let mut pacer = Pacer::new(now);
        let mut waiting = VecDeque::new();
        let (mut ended, mut young, mut sent) = (0, 0, Vec::<Instant>::new());
        for (pause, cancels, age, answers) in steps {
            let until = now + ms(pause);
            ended += answers;
            for _ in 0..cancels {
                // What is new goes elsewhere if it is worn.
                if !pacer.is_worn(waiting.len(), ended, now) {
                    waiting.push_back((now - ms(age), now));
                }
            }
            while let Some(&(begun, cancelled)) = waiting.front() {
                match pacer.turn((begun, cancelled), ended, now) {
                    Turn::Now => {
                        waiting.pop_front();
                        pacer.reset(begun, now);
                        ended += 1;
                        young += usize::from(now < begun + 2 * SECOND);
                        sent.push(now);
                        prop_assert!(pacer.unacknowledged() <= UNACKNOWLEDGED);
                        prop_assert!(now <= cancelled + ms(500), "{:?}", now - cancelled);
                        prop_assert!(2 * young < ended.max(500), "{young} of {ended}");
                        let window = now - 30 * SECOND;
                        let recent = sent.iter().filter(|&&at| at > window).count();
                        prop_assert!(recent < 200, "{recent}");
                    }
                    Turn::Acknowledged(_) => pacer.acknowledged(pacer.unacknowledged(), Duration::ZERO, now),
                    Turn::At(at) => now = at,
                }
            }
            now = now.max(until);
        }
    }
}
