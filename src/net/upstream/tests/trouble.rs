//! Workers that are stuck or have ended, and connections that close.

use super::*;
use crate::net::address_pool::SWEEPS;

#[tokio::test]
async fn a_stuck_workers_dial_delays_no_call_of_another() {
    let (workers, net) = (TestWorkers::start(2), Net::new());
    let upstream = net.upstream(1, |_| ());
    net.hold(1);
    workers.run(0, take_at_once(Arc::clone(&upstream))).await;
    net.dials(1).await;
    let _stuck = workers.stick(0).await;
    net.release();
    let (own, _call) = workers.run(1, take(Arc::clone(&upstream))).await;
    assert!(upstream.is_of(1, &own));
}

#[tokio::test]
async fn a_stuck_workers_dial_takes_the_last_place_for_a_time_only() {
    let (workers, net) = (TestWorkers::start(2), Net::new());
    let upstream = net.upstream(1, |service| {
        service.max_connections_per_address = Some(1);
        service.connect_timeout = Duration::from_millis(500);
    });
    net.hold(1);
    workers.run(0, take_at_once(Arc::clone(&upstream))).await;
    net.dials(1).await;
    let _stuck = workers.stick(0).await;
    net.release();
    let (own, _call) = workers.run(1, take(Arc::clone(&upstream))).await;
    assert!(upstream.is_of(1, &own));
}

#[tokio::test]
async fn what_a_worker_was_dialing_is_forgotten_when_it_ends() {
    let (mut workers, net) = (TestWorkers::start(2), Net::new());
    let upstream = net.upstream(1, |service| {
        service.max_connections_per_address = Some(1);
        service.connect_timeout = 2 * PATIENCE;
    });
    net.hold(1);
    workers.run(0, take_at_once(Arc::clone(&upstream))).await;
    net.dials(1).await;
    workers.end(0);
    net.release();
    let (own, _call) = workers.run(1, take(Arc::clone(&upstream))).await;
    assert!(upstream.is_of(1, &own));
    assert_eq!(upstream.state().pools[0].all_dials(), 0);
}

#[tokio::test]
async fn a_connection_that_closes_is_replaced_for_its_worker() {
    let (workers, net) = (TestWorkers::start(2), Net::new());
    let upstream = net.upstream(1, |service| {
        service.max_connections_per_address = Some(2);
    });
    let mut before = Vec::new();
    for index in [0, 1] {
        workers.run(index, connect(Arc::clone(&upstream))).await;
        before.push(workers.run(index, take(Arc::clone(&upstream))).await.0);
    }
    net.close(1);
    while before[1].load().is_open {
        yield_now().await;
    }
    drop(workers.run(1, take(Arc::clone(&upstream))).await);
    workers.run(1, connect(Arc::clone(&upstream))).await;
    let (kept, _call) = workers.run(0, take(Arc::clone(&upstream))).await;
    let (new, _call) = workers.run(1, take(Arc::clone(&upstream))).await;
    assert!(kept.is(&before[0]));
    assert!(upstream.is_of(1, &new) && !new.is(&before[1]));
    assert_eq!(net.dialed(), [(1, Some(0)), (1, Some(1)), (1, Some(1))]);
}

#[tokio::test]
async fn the_idle_connections_of_every_worker_are_closed() {
    let (workers, net) = (TestWorkers::start(2), Net::new());
    let upstream = net.upstream(1, |_| ());
    for index in [0, 1] {
        workers.run(index, connect(Arc::clone(&upstream))).await;
    }
    let (connection, call) = workers.run(1, take(Arc::clone(&upstream))).await;
    drop(connection);
    let sweep = || (0..=SWEEPS).all(|_| upstream.sweep());
    assert!(sweep());
    assert_eq!((upstream.has(0), upstream.has(1)), (0, 1));
    drop(call);
    assert!(!sweep());
    assert_eq!(upstream.connections(), 0);
    timeout(PATIENCE, net.closed(2)).await.expect("closed");
}

#[tokio::test]
async fn a_service_that_nobody_calls_is_dialed_again_by_workers() {
    let (workers, net) = (TestWorkers::start(2), Net::new());
    let upstream = net.upstream(1, |_| ());
    net.refuse(true);
    for index in [0, 1] {
        workers.run(index, upstream_connect(&upstream)).await;
    }
    assert_eq!(upstream.connectivity(), Connectivity::TransientFailure);
    let _stuck = workers.stick(0).await;
    net.refuse(false);
    // One of them is asked in vain.
    upstream.retry();
    upstream.retry();
    let found = async {
        while upstream.connectivity() != Connectivity::Ready {
            yield_now().await;
        }
    };
    timeout(PATIENCE, found).await.expect("a connection");
    let dialed = net.dialed();
    assert_eq!(dialed.last(), Some(&(1, Some(1))));
    assert!(dialed.iter().all(|(_, worker)| worker.is_some()));
}
