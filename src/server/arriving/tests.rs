//! Who gives way to whom, and that nothing stays held.

use std::{future::poll_fn, time::Duration};

use tokio::{
    task::{JoinSet, yield_now},
    time::timeout,
};

use super::*;

const MIB: usize = 1 << 20;

fn wait(arriving: &Arriving, bytes: usize) -> Option<Waiting> {
    arriving.try_wait(bytes - STREAM_BYTES, &HeaderMap::new())
}

#[test]
fn what_waits_gets_half_and_a_connection_a_sixteenth() {
    let process = Buffered::new(256 * MIB);
    let arriving = Arriving::new(process.clone(), 4 * MIB);
    let mut connections = Vec::new();
    for _ in 0..8 {
        let connection = arriving.on_another_connection();
        let held = wait(&connection, 16 * MIB).expect("a share");
        assert!(wait(&connection, MIB).is_none());
        connections.push((connection, held));
    }
    assert_eq!(process.held(), 128 * MIB, "nothing is held by refusals");
    let another = arriving.on_another_connection();
    assert!(another.try_hold_complete(128 * MIB).is_some());
    drop(connections);
    assert_eq!(process.held(), 0);
}

#[test]
fn who_waits_longest_gives_way() {
    let process = Buffered::new(256 * MIB);
    let arriving = Arriving::new(process.clone(), MIB);
    let evicted = |waiting: &mut Waiting| {
        let signal = waiting.place.evicted.try_recv();
        signal == Err(oneshot::error::TryRecvError::Closed)
    };
    let on_another = |bytes| {
        let connection = arriving.on_another_connection();
        wait(&connection, bytes).expect("room")
    };
    let mut all: Vec<_> = (0..128).map(|_| on_another(MIB)).collect();
    assert!(!all.iter_mut().any(evicted));
    // All is held: from here on each takes the place of the first.
    for index in 1..=8 {
        all.push(on_another(MIB));
        let gone: Vec<_> = all.iter_mut().map(evicted).collect();
        assert!(gone[..index].iter().all(|gone| *gone), "{gone:?}");
        assert!(gone[index..].iter().all(|gone| !*gone), "{gone:?}");
    }
    // So does who grows, by as many as that takes.
    assert!(all.last_mut().unwrap().try_grow(3 * MIB));
    assert_eq!(
        all.iter_mut()
            .filter_map(|one| evicted(one).then_some(()))
            .count(),
        11
    );
    assert_eq!(process.held(), 128 * MIB);
    // Who has given way gets nothing any more.
    let first = &mut all[0];
    assert!(!first.try_grow(1));
    assert!(all.remove(0).complete(1).is_none());
    drop(all);
    assert!(arriving.queue.lock().waiting.is_empty());
    assert_eq!((process.held(), arriving.incomplete.held()), (0, 0));
}

#[test]
fn a_complete_request_holds_its_bytes_alone() {
    let arriving = Arriving::new(Buffered::new(32 * MIB), MIB);
    let mut waiting = wait(&arriving, MIB).expect("room");
    assert!(waiting.try_grow(100));
    let held = waiting.complete(1000).expect("room");
    assert_eq!((held.bytes(), arriving.process.held()), (1000, 1000));
    assert_eq!(arriving.incomplete.held(), 0);
    assert_eq!(arriving.connection.held(), 0);
    // Inflated, it may be larger than what came.
    let waiting = wait(&arriving, MIB).expect("room");
    assert_eq!(waiting.complete(2 * MIB).expect("room").bytes(), 2 * MIB);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whoever_gives_way_hears_of_it() {
    const STREAMS: usize = 1000;
    let process = Buffered::new(32 * MIB);
    let arriving = Arriving::new(process.clone(), MIB);
    let mut streams = JoinSet::new();
    for number in 0..STREAMS {
        let connection = arriving.on_another_connection();
        streams.spawn(async move {
            let mut waiting = wait(&connection, MIB).expect("room");
            yield_now().await;
            // Others come meanwhile, and may be faster.
            let _ = waiting.try_grow(number % 3);
            poll_fn(|context| waiting.poll_evicted(context)).await;
        });
    }
    // There is room for sixteen, and no more than as many came last.
    for _ in 16..STREAMS {
        let ended = timeout(Duration::from_secs(30), streams.join_next()).await;
        ended.expect("the next to give way").expect("one").unwrap();
    }
    streams.shutdown().await;
    assert!(arriving.queue.lock().waiting.is_empty());
    assert_eq!((process.held(), arriving.incomplete.held()), (0, 0));
}
