//! Whose turn it is, who is refused, and that no place is lost.

use std::collections::BTreeMap as Map;

use futures_util::FutureExt as _;
use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn place(bulkhead: &Bulkhead, batch: usize) -> Permit<'_> {
    match enter(bulkhead, batch) {
        Ok(Entry::Permitted(place)) => place,
        other => panic!("no place but {other:?}"),
    }
}

fn line(bulkhead: &Bulkhead, batch: usize) -> Waiting<'_> {
    match enter(bulkhead, batch) {
        Ok(Entry::Queued(waiting)) => waiting,
        other => panic!("no place in line but {other:?}"),
    }
}

fn enter(bulkhead: &Bulkhead, batch: usize) -> Result<Entry<'_>, Refused> {
    let now = Instant::now();
    bulkhead.enter(batch, now, now + 30 * SECOND)
}

/// Has the turn, which has come.
fn taken(waiting: Waiting<'_>) -> Permit<'_> {
    waiting
        .turn()
        .now_or_never()
        .expect("its turn to have come")
}

#[tokio::test(start_paused = true)]
async fn a_place_goes_to_whose_turn_it_is() {
    let bulkhead = Bulkhead::new(1, 10);
    let running = place(&bulkhead, 1);
    let first = line(&bulkhead, 1);
    let second = line(&bulkhead, 1);
    let other = line(&bulkhead, 2);

    drop(running);
    let running = taken(first);
    drop(running);
    // The other batch's first comes before the second of this.
    let running = taken(other);
    drop(running);
    drop(taken(second));
    drop(place(&bulkhead, 3));
}

#[tokio::test(start_paused = true)]
async fn who_leaves_the_line_takes_no_place_along() {
    let bulkhead = Bulkhead::new(1, 10);
    let running = place(&bulkhead, 1);
    let leaves = line(&bulkhead, 1);
    let is_called = line(&bulkhead, 1);
    let stays = line(&bulkhead, 1);
    drop(leaves);
    drop(running);
    // Its turn has come, but it goes before it notices.
    drop(is_called);
    drop(taken(stays));
    let state = bulkhead.state();
    assert_eq!((state.running, state.queue.len()), (0, 0));
    assert!(state.queue.batches.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_lingers_has_its_place_beyond_the_bound_if_need_be() {
    let bulkhead = Arc::new(Bulkhead::new(1, 10));
    let running = place(&bulkhead, 1);
    let mut turn = std::pin::pin!(line(&bulkhead, 1).turn());
    // Of two attempts at one call.
    let lingering = [(); 2].map(|()| bulkhead.linger(Instant::now()));
    drop(running);
    for one in lingering {
        assert!(turn.as_mut().now_or_never().is_none());
        tokio::time::advance(SECOND).await;
        drop(one);
    }
    drop(turn.as_mut().now_or_never().expect("its turn to have come"));
    let state = bulkhead.state();
    assert_eq!(state.running, 0);
    // The call and what was left of it took three seconds; the next took none.
    let average = 3.0 * WEIGHT * (1.0 - WEIGHT);
    assert!((state.service_time.unwrap() - average).abs() < 0.01);
}

#[tokio::test(start_paused = true)]
async fn who_can_not_have_a_turn_in_time_is_refused_at_once() {
    let bulkhead = Bulkhead::new(2, 3);
    let places = [place(&bulkhead, 1), place(&bulkhead, 1)];
    tokio::time::advance(SECOND).await;
    drop(places);
    let _places = [place(&bulkhead, 1), place(&bulkhead, 1)];
    // A call takes a second, two at a time: half a second for each before.
    let now = Instant::now();
    let enter_by = |millis| bulkhead.enter(1, now, now + Duration::from_millis(millis));
    let wait = SECOND / 2;
    assert_eq!(enter_by(500).unwrap_err(), Refused::TooLate { wait });
    let _first = enter_by(501).unwrap();
    assert_eq!(
        enter_by(1000).unwrap_err(),
        Refused::TooLate { wait: 2 * wait }
    );
    let _second = enter_by(1001).unwrap();
    // Another batch has its turn before the second of this.
    let other = bulkhead.enter(2, now, now + Duration::from_millis(1001));
    let _other = other.unwrap();

    let wait = Some(4 * wait);
    assert_eq!(enter_by(30_000).unwrap_err(), Refused::Full { wait });
}

#[tokio::test(start_paused = true)]
async fn nobody_is_refused_for_a_wait_that_is_not_known() {
    let bulkhead = Bulkhead::new(1, 1);
    let _permit = place(&bulkhead, 1);
    let now = Instant::now();
    let _waiting = bulkhead
        .enter(1, now, now + Duration::from_nanos(1))
        .unwrap();
    assert_eq!(
        enter(&bulkhead, 2).unwrap_err(),
        Refused::Full { wait: None }
    );
}

/// A call joins the queue (of that batch), leaves it (from that position), or is served.
#[derive(Clone, Copy, Debug)]
enum Step {
    Join(usize),
    Leave(usize),
    Serve,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0..4_usize).prop_map(Step::Join),
        1 => any::<usize>().prop_map(Step::Leave),
        2 => Just(Step::Serve),
    ];
    proptest::collection::vec(step, 1..300)
}

/// While a call waits, no other batch is served more often than there were
/// calls of its own batch before it, in the round that was being served, in its
/// own, and in those of calls that have left.
fn serve_fairly(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut queue = Queue::default();
    // For each waiting call: its turn and batch, how many of its own were
    // before it, and who was served meanwhile.
    let mut waiting: Vec<(Turn, usize, usize, Map<usize, usize>)> = Vec::new();
    let mut left = 0;
    for step in steps {
        match step {
            Step::Join(batch) => {
                let own = waiting.iter().filter(|call| call.1 == batch).count();
                let ahead = queue.ahead_of_next(batch);
                prop_assert!(ahead >= own.min(queue.len()) && ahead <= queue.len());
                let turn = queue.push(batch, queue.joined);
                waiting.push((turn, batch, own, Map::new()));
            }
            Step::Leave(which) if !waiting.is_empty() => {
                let (turn, ..) = waiting.remove(which % waiting.len());
                prop_assert!(queue.remove(turn).is_some());
                prop_assert!(queue.remove(turn).is_none());
                left += 1;
            }
            Step::Leave(_) => {}
            Step::Serve => {
                let served = queue.pop();
                prop_assert_eq!(served.is_none(), waiting.is_empty());
                let Some(joined) = served else { continue };
                let index = waiting.iter().position(|call| call.0.joined == joined);
                let (_, batch, own, meanwhile) = waiting.remove(index.unwrap());
                for (&other, &times) in &meanwhile {
                    let bound = own + 2 + left;
                    prop_assert!(other == batch || times <= bound, "{times} > {bound}");
                }
                for (.., meanwhile) in &mut waiting {
                    *meanwhile.entry(batch).or_default() += 1;
                }
            }
        }
        prop_assert_eq!(queue.len(), waiting.len());
        let counted: usize = queue.batches.values().map(|batch| batch.count).sum();
        prop_assert_eq!(counted, waiting.len());
    }
    Ok(())
}

proptest! {
    #[test]
    fn no_batch_waits_for_more_than_one_call_of_each_other_per_turn(steps in steps()) {
        serve_fairly(steps)?;
    }
}

/// The property failed on it while it was written.
#[test]
fn a_batch_that_comes_back_waits_its_turn() {
    use Step::{Join, Serve};
    let steps = [
        Join(0),
        Join(1),
        Serve,
        Join(1),
        Join(2),
        Serve,
        Serve,
        Serve,
    ];
    serve_fairly(steps.into()).unwrap();
}
