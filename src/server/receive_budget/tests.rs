//! Who is evicted, and that nothing stays held.

use std::{future::poll_fn, time::Duration};

use tokio::{
    task::{JoinSet, yield_now},
    time::timeout,
};

use super::*;

const MIB: usize = 1 << 20;

fn hold(budget: &ReceiveBudget, bytes: usize) -> Option<IncompleteHold> {
    budget.try_hold_incomplete(bytes - STREAM_BYTES, &HeaderMap::new())
}

#[test]
fn incomplete_requests_get_half_and_a_connection_a_sixteenth() {
    let process = Buffered::new(256 * MIB);
    let budget = ReceiveBudget::new(process.clone(), 4 * MIB);
    let mut connections = Vec::new();
    for _ in 0..8 {
        let connection = budget.for_connection();
        let held = hold(&connection, 16 * MIB).expect("a share");
        assert!(hold(&connection, MIB).is_none());
        connections.push((connection, held));
    }
    assert_eq!(process.held(), 128 * MIB, "nothing is held by refusals");
    let another = budget.for_connection();
    assert!(another.try_hold_complete(128 * MIB).is_some());
    drop(connections);
    assert_eq!(process.held(), 0);
}

#[test]
fn the_oldest_is_evicted() {
    let process = Buffered::new(256 * MIB);
    let budget = ReceiveBudget::new(process.clone(), MIB);
    let evicted = |incomplete: &mut IncompleteHold| {
        let signal = incomplete.entry.evicted.try_recv();
        signal == Err(oneshot::error::TryRecvError::Closed)
    };
    let on_new_connection = |bytes| {
        let connection = budget.for_connection();
        hold(&connection, bytes).expect("room")
    };
    let mut all: Vec<_> = (0..128).map(|_| on_new_connection(MIB)).collect();
    assert!(!all.iter_mut().any(evicted));
    // The share is used up: from here on each evicts the oldest.
    for index in 1..=8 {
        all.push(on_new_connection(MIB));
        let gone: Vec<_> = all.iter_mut().map(evicted).collect();
        assert!(gone[..index].iter().all(|gone| *gone), "{gone:?}");
        assert!(gone[index..].iter().all(|gone| !*gone), "{gone:?}");
    }
    // So does one that grows, as many as it takes.
    assert!(all.last_mut().unwrap().try_grow(3 * MIB));
    assert_eq!(
        all.iter_mut()
            .filter_map(|one| evicted(one).then_some(()))
            .count(),
        11
    );
    assert_eq!(process.held(), 128 * MIB);
    // The evicted get nothing any more.
    let first = &mut all[0];
    assert!(!first.try_grow(1));
    assert!(all.remove(0).complete(1).is_none());
    drop(all);
    assert!(budget.queue.lock().by_number.is_empty());
    assert_eq!((process.held(), budget.incomplete.held()), (0, 0));
}

#[test]
fn a_complete_request_holds_its_bytes_alone() {
    let budget = ReceiveBudget::new(Buffered::new(32 * MIB), MIB);
    let mut incomplete = hold(&budget, MIB).expect("room");
    assert!(incomplete.try_grow(100));
    let held = incomplete.complete(1000).expect("room");
    assert_eq!((held.bytes(), budget.process.held()), (1000, 1000));
    assert_eq!(budget.incomplete.held(), 0);
    assert_eq!(budget.connection.held(), 0);
    // Once inflated, it may be larger.
    let incomplete = hold(&budget, MIB).expect("room");
    assert_eq!(incomplete.complete(2 * MIB).expect("room").bytes(), 2 * MIB);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_evicted_are_told() {
    const STREAMS: usize = 1000;
    let process = Buffered::new(32 * MIB);
    let budget = ReceiveBudget::new(process.clone(), MIB);
    let mut streams = JoinSet::new();
    for number in 0..STREAMS {
        let connection = budget.for_connection();
        streams.spawn(async move {
            let mut incomplete = hold(&connection, MIB).expect("room");
            yield_now().await;
            // Others may have evicted it by now.
            let _ = incomplete.try_grow(number % 3);
            poll_fn(|context| incomplete.poll_evicted(context)).await;
        });
    }
    // There is room for the last sixteen.
    for _ in 16..STREAMS {
        let ended = timeout(Duration::from_secs(30), streams.join_next()).await;
        ended.expect("the next eviction").expect("one").unwrap();
    }
    streams.shutdown().await;
    assert!(budget.queue.lock().by_number.is_empty());
    assert_eq!((process.held(), budget.incomplete.held()), (0, 0));
}
