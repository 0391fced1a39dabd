//! Real threads: that their tasks stay on them, and what becomes of a stuck one.

use std::future::pending;

use super::{testing::TestWorkers, *};
use crate::core::worker;

/// Runs `task` on each worker, and returns what it says of each.
async fn on_each<T: Send + 'static>(workers: &Workers, task: fn() -> T) -> Vec<T> {
    let mut said = Vec::new();
    for worker in workers.0.iter() {
        said.push(worker.handle.spawn(async move { task() }).await.unwrap());
    }
    said
}

#[tokio::test]
async fn tasks_know_their_worker_and_stay_on_it() {
    let (workers, threads) = Workers::start(3).unwrap();
    let indexes = on_each(&workers, worker::index).await;
    assert_eq!(indexes, [0, 1, 2]);
    assert_eq!(on_each(&workers, worker::count).await, [3; 3]);
    let (index, count) = (worker::index(), worker::count());
    assert_eq!((index, count), (0, 1), "outside of them");

    let place = workers.place();
    let here = place.handle().spawn(async {
        let mut seen = Vec::new();
        for _ in 0..100 {
            seen.push(tokio::spawn(async { worker::index() }).await.unwrap());
        }
        seen.dedup();
        seen.len()
    });
    assert_eq!(here.await.unwrap(), 1);
    threads.stop().await;
}

#[tokio::test]
async fn what_belongs_to_no_worker_runs_beside_them() {
    let (workers, threads) = Workers::start(2).unwrap();
    let background = || {
        let name = || thread::current().name().map(str::to_owned);
        worker::spawn_in_background(async move { name() })
    };
    for task in on_each(&workers, background).await {
        let name = task.await.unwrap();
        assert_eq!(name.as_deref(), thread::current().name());
    }
    threads.stop().await;
}

#[tokio::test]
async fn connections_are_counted_where_they_are() {
    let (workers, threads) = Workers::start(2).unwrap();
    let places: Vec<_> = (0..10).map(|_| workers.place()).collect();
    assert_eq!(workers.connections().collect::<Vec<_>>(), [5, 5]);
    let (one, rest): (Vec<_>, Vec<_>) = places.into_iter().partition(|place| place.index == 1);
    drop(one);
    assert_eq!(workers.connections().collect::<Vec<_>>(), [5, 0]);
    let next = workers.place();
    assert_eq!(next.index, 1);
    drop(rest);
    threads.stop().await;
}

/// Its thread is held up as by a task that never yields.
#[tokio::test]
async fn a_stuck_worker_is_noticed_and_gets_no_connections() {
    let started = TestWorkers::start(2);
    let hanging = started.stick(1).await;
    let TestWorkers { workers, threads } = started;
    let stuck = |time| vec![None, time];
    for _ in 0..STUCK_AFTER {
        assert_eq!(workers.look(), []);
        assert_eq!(workers.stuck().collect::<Vec<_>>(), stuck(None));
        // Behind this, the other one has done what it was asked to do.
        workers.0[0].handle.spawn(async {}).await.unwrap();
    }
    let change = Change::Stuck {
        worker: 1,
        connections: 0,
    };
    assert_eq!(workers.look(), [change]);
    let time = PERIOD * STUCK_AFTER;
    assert_eq!(workers.stuck().collect::<Vec<_>>(), stuck(Some(time)));
    assert_eq!(
        workers.check(),
        Err("worker 1 has been stuck for 5 s".to_owned())
    );
    let places: Vec<_> = (0..4).map(|_| workers.place()).collect();
    assert!(places.iter().all(|place| place.index == 0));

    drop(hanging);
    on_each(&workers, || ()).await;
    assert_eq!(workers.look(), [Change::Recovered { worker: 1, time }]);
    assert_eq!(workers.stuck().collect::<Vec<_>>(), stuck(None));
    assert_eq!(workers.check(), Ok(()));
    threads.stop().await;
}

#[tokio::test]
async fn a_worker_that_ends_is_reported() {
    let (ended, ends) = mpsc::unbounded_channel();
    let end = End { index: 7, ended };
    thread::spawn(move || {
        let _end = end;
        panic!("expected in this test");
    });
    let mut threads = Threads {
        stop: Vec::new(),
        ended: ends,
    };
    assert_eq!(threads.broken().await, 7);
}

#[tokio::test]
async fn workers_end_when_they_are_told_to_and_the_stuck_are_left() {
    let started = TestWorkers::start(2);
    let hanging = started.stick(0).await;
    let TestWorkers { workers, threads } = started;
    threads.stop().await;
    drop(hanging);
    // What they had is dropped with them.
    let task = workers.0[1].handle.spawn(pending::<()>());
    assert!(task.await.is_err());
}
