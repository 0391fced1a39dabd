//! Several workers that call one service.

mod net;
mod trouble;

use std::{sync::mpsc::channel, time::Duration};

use tokio::{task::yield_now, time::timeout};

use self::net::{Net, address};
use super::*;
use crate::{
    core::{worker, workers::testing::TestWorkers},
    net::address_pool::Whose,
};

/// Longer than anything takes here, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection for a call of this worker, and the call, which goes on until it is dropped.
async fn take(upstream: Arc<Upstream>) -> (Connection, Call) {
    take_avoiding(upstream, None).await
}

async fn take_avoiding(upstream: Arc<Upstream>, avoid: Option<u8>) -> (Connection, Call) {
    let mut came = None;
    let taking = async {
        loop {
            match upstream.pick(avoid.map(address), &mut came) {
                Pick::Take(connection, call) => return (connection, call),
                Pick::Wait(_waiting, changed) => changed.await,
                Pick::Full(_waiting, changed) => drop(timeout(RECHECK_INTERVAL, changed).await),
                Pick::Nowhere(error) => panic!("{error:?}"),
            }
        }
    };
    timeout(PATIENCE, taking).await.expect("a connection")
}

/// Waits until this worker has a connection of its own.
async fn connect(upstream: Arc<Upstream>) {
    timeout(PATIENCE, upstream.connect()).await.expect("an end");
    assert!(upstream.state().is_connected(worker::index()));
}

/// Connects this worker to each of the addresses 1 to `last`.
async fn connect_to_all(upstream: Arc<Upstream>, last: u8) {
    let is_missing = || {
        let state = upstream.state();
        let mut pools = state.pools.iter();
        pools.any(|pool| !pool.is_connected(worker::index()))
    };
    while is_missing() {
        for avoided in 1..=last {
            drop(take_avoiding(Arc::clone(&upstream), Some(avoided)).await);
        }
        // Meanwhile it is lent what it dials.
        yield_now().await;
    }
}

fn fail(upstream: &Upstream, call: &Call) {
    upstream.ended(call.address(), true);
}

impl Upstream {
    fn is_of(&self, worker: usize, connection: &Connection) -> bool {
        let is_it = |pool: &AddressPool| {
            let mut own = pool.of(worker, Whose::Own);
            own.any(|it| it.is(connection))
        };
        self.state().pools.iter().any(is_it)
    }

    fn has(&self, worker: usize) -> usize {
        let state = self.state();
        let own = |pool: &AddressPool| pool.of(worker, Whose::Own).count();
        state.pools.iter().map(own).sum()
    }
}

#[tokio::test]
async fn each_worker_gets_a_connection_of_its_own_that_it_drives() {
    let (workers, net) = (TestWorkers::start(2), Net::new());
    let upstream = net.upstream(1, |_| ());
    for index in [0, 1] {
        workers.run(index, connect(Arc::clone(&upstream))).await;
        let (connection, call) = workers.run(index, take(Arc::clone(&upstream))).await;
        assert!(upstream.is_of(index, &connection));
        drop(call);
    }
    assert_eq!(net.dialed(), [(1, Some(0)), (1, Some(1))]);
    assert_eq!(upstream.connections(), 2);
}

#[tokio::test]
async fn a_worker_without_a_connection_borrows_one_and_dials() {
    let (workers, net) = (TestWorkers::start(2), Net::new());
    let upstream = net.upstream(1, |_| ());
    workers.run(0, connect(Arc::clone(&upstream))).await;
    net.hold(1);
    // Its own one is not waited for.
    let taking = take_at_once(Arc::clone(&upstream));
    let (borrowed, _call) = workers.run(1, taking).await.expect("a connection");
    assert!(upstream.is_of(0, &borrowed));
    net.dials(2).await;
    assert_eq!(net.dialed(), [(1, Some(0)), (1, Some(1))]);

    net.release();
    workers.run(1, connect(Arc::clone(&upstream))).await;
    let (own, _call) = workers.run(1, take(Arc::clone(&upstream))).await;
    assert!(upstream.is_of(1, &own));
}

async fn take_at_once(upstream: Arc<Upstream>) -> Option<(Connection, Call)> {
    match upstream.pick(None, &mut None) {
        Pick::Take(connection, call) => Some((connection, call)),
        _ => None,
    }
}

#[tokio::test]
async fn its_own_connection_elsewhere_comes_before_a_borrowed_one() {
    let (workers, net) = (TestWorkers::start(2), Net::new());
    let upstream = net.upstream(2, |_| ());
    let connecting = connect_to_all(Arc::clone(&upstream), 2);
    workers.run(0, connecting).await;
    net.hold(2);
    workers.run(1, connect_to_one(Arc::clone(&upstream))).await;
    // So that each further call would rather have gone to the second address.
    let taking = take_avoiding(Arc::clone(&upstream), Some(2));
    let _call = workers.run(0, taking).await;
    for _ in 0..4 {
        let (own, _) = workers.run(1, take(Arc::clone(&upstream))).await;
        assert!(upstream.is_of(1, &own));
    }
    net.release();
}

/// Connects this worker to the first address only.
async fn connect_to_one(upstream: Arc<Upstream>) {
    while !upstream.state().pools[0].is_connected(worker::index()) {
        drop(take_avoiding(Arc::clone(&upstream), Some(2)).await);
        yield_now().await;
    }
}

/// Whatever another worker does meanwhile.
#[tokio::test]
async fn as_long_as_all_is_well_calls_take_no_lock_of_others() {
    let (workers, net) = (TestWorkers::start(2), Net::new());
    let upstream = net.upstream(2, |_| ());
    for index in [0, 1] {
        let connecting = connect_to_all(Arc::clone(&upstream), 2);
        workers.run(index, connecting).await;
    }
    for index in [0, 1] {
        drop(workers.run(index, take(Arc::clone(&upstream))).await);
    }
    let (tell, told) = channel();
    let state = upstream.state();
    for index in [0, 1, 0, 1] {
        let (tell, taking) = (tell.clone(), take(Arc::clone(&upstream)));
        workers.spawn(index, async move { tell.send(taking.await) });
        let (connection, _call) = told.recv_timeout(PATIENCE).expect("a connection");
        assert!(!connection.load().is_suspect);
    }
    drop(state);
}

#[tokio::test]
async fn every_worker_goes_where_a_name_has_moved() {
    let (workers, net) = (TestWorkers::start(2), Net::new());
    let upstream = net.upstream(1, |service| {
        service.endpoints = vec![http::Uri::from_static("http://tools.test:1")];
    });
    for moved_to in [1, 2] {
        net.resolve_to(moved_to);
        let now = Instant::now();
        upstream.look_up(&mut upstream.state(), now, Duration::ZERO);
        net.looked_up(&upstream).await;
        for index in [0, 1] {
            workers.run(index, connect(Arc::clone(&upstream))).await;
            let (connection, _call) = workers.run(index, take(Arc::clone(&upstream))).await;
            assert_eq!(connection.address().socket(), address(moved_to));
            assert!(upstream.is_of(index, &connection));
        }
        // Nobody keeps what was open before.
        let before = 2 * (usize::from(moved_to) - 1);
        timeout(PATIENCE, net.closed(before)).await.expect("closed");
    }
}

#[tokio::test]
async fn beyond_its_first_a_worker_leaves_the_others_theirs() {
    let (workers, net) = (TestWorkers::start(3), Net::new());
    let upstream = net.upstream(1, |service| {
        service.max_connections_per_address = Some(5);
        service.max_streams_per_connection = 1;
    });
    let mut calls = Vec::new();
    for _ in 0..9 {
        workers.run(0, connect(Arc::clone(&upstream))).await;
        calls.push(workers.run(0, take(Arc::clone(&upstream))).await);
        net.settle(&upstream).await;
    }
    assert_eq!(upstream.has(0), 3);
    for worker in [1, 2] {
        workers.run(worker, connect(Arc::clone(&upstream))).await;
        calls.push(workers.run(worker, take(Arc::clone(&upstream))).await);
        calls.push(workers.run(worker, take(Arc::clone(&upstream))).await);
        net.settle(&upstream).await;
    }
    assert_eq!([0, 1, 2].map(|worker| upstream.has(worker)), [3, 1, 1]);
    assert_eq!(net.dialed().len(), 5);
}

#[tokio::test]
async fn fewer_connections_than_workers_are_shared() {
    let (workers, net) = (TestWorkers::start(3), Net::new());
    let upstream = net.upstream(1, |service| service.max_connections_per_address = Some(1));
    let mut calls = Vec::new();
    for worker in [1, 0, 2, 1] {
        calls.push(workers.run(worker, take(Arc::clone(&upstream))).await);
        workers.run(worker, upstream_connect(&upstream)).await;
    }
    assert!(calls.iter().all(|(it, _)| upstream.is_of(1, it)));
    assert_eq!(net.dialed(), [(1, Some(1))]);
}

fn upstream_connect(upstream: &Arc<Upstream>) -> impl Future<Output = ()> + use<> {
    let upstream = Arc::clone(upstream);
    async move { upstream.connect().await }
}

#[tokio::test]
async fn failures_that_several_workers_see_eject_an_address() {
    let (workers, net) = (TestWorkers::start(2), Net::new());
    let upstream = net.upstream(2, |service| service.eject_after_failures = 4);
    for index in [0, 1] {
        let connecting = connect_to_all(Arc::clone(&upstream), 2);
        workers.run(index, connecting).await;
    }
    for (worker, ejected) in [(0, 0), (1, 0), (1, 0), (0, 1)] {
        let taking = take_avoiding(Arc::clone(&upstream), Some(2));
        let (_, call) = workers.run(worker, taking).await;
        fail(&upstream, &call);
        assert_eq!(upstream.ejected(), ejected);
    }
    for worker in [0, 1, 0, 1] {
        let (connection, _call) = workers.run(worker, take(Arc::clone(&upstream))).await;
        assert_eq!(connection.address().socket(), address(2));
        assert!(upstream.is_of(worker, &connection));
    }
}

#[tokio::test]
async fn the_calls_of_all_workers_are_an_addresss_load() {
    let (workers, net) = (TestWorkers::start(2), Net::new());
    let upstream = net.upstream(2, |_| ());
    for index in [0, 1] {
        let connecting = connect_to_all(Arc::clone(&upstream), 2);
        workers.run(index, connecting).await;
    }
    let mut calls = Vec::new();
    for _ in 0..10 {
        let taking = take_avoiding(Arc::clone(&upstream), Some(2));
        calls.push(workers.run(0, taking).await);
    }
    for _ in 0..9 {
        let (connection, call) = workers.run(1, take(Arc::clone(&upstream))).await;
        assert_eq!(connection.address().socket(), address(2));
        assert!(upstream.is_of(1, &connection));
        calls.push((connection, call));
    }
}

#[tokio::test]
async fn a_hedge_goes_to_another_address_on_each_worker() {
    let (workers, net) = (TestWorkers::start(2), Net::new());
    let upstream = net.upstream(2, |_| ());
    for index in [0, 1] {
        let connecting = connect_to_all(Arc::clone(&upstream), 2);
        workers.run(index, connecting).await;
    }
    for (worker, avoided) in [(0, 1), (0, 2), (1, 1), (1, 2)] {
        let taking = take_avoiding(Arc::clone(&upstream), Some(avoided));
        let (connection, _call) = workers.run(worker, taking).await;
        assert_eq!(connection.address().socket(), address(3 - avoided));
        assert!(upstream.is_of(worker, &connection));
    }
}
