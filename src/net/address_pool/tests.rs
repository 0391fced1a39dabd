//! What an address has counts as long as it is there.

use bytes::Bytes;
use http::Uri;
use tokio::{io::duplex, sync::Notify, task::yield_now, time::timeout};

use super::*;
use crate::{
    config::Service,
    net::{Linger, Outgoing, address::Endpoint, connection::Driver, liveness::Keepalive},
};

async fn connected(address: &Arc<Address>) -> (Connection, Driver) {
    let (ours, theirs) = duplex(1 << 16);
    tokio::spawn(async move {
        let mut server = h2::server::handshake(theirs).await.expect("a handshake");
        while server.accept().await.is_some() {}
    });
    let keepalive = Keepalive {
        interval: Duration::from_secs(30),
        timeout: Duration::from_secs(20),
        pace: Arc::default(),
    };
    let changed = Arc::new(Notify::new());
    let connection =
        Connection::open(Box::new(ours), keepalive, Arc::clone(address), changed).await;
    connection.expect("a connection")
}

#[tokio::test]
async fn the_calls_of_a_connection_that_gets_no_more_are_its_addresss_load() {
    let uri = Uri::from_static("http://127.0.0.1:1");
    let endpoint = Arc::new(Endpoint::new(&uri, &Service::new(uri.clone())));
    let address = Arc::new(Address::new(([127, 0, 0, 1], 1).into(), endpoint));
    let rules = Rules {
        after_failures: 5,
        time: Duration::from_secs(1),
        max_time: Duration::from_secs(1),
        max_percent: 50,
    };
    let mut pool = AddressPool::new(Arc::clone(&address));
    let now = Instant::now();
    // One takes leave, the other closes.
    for closes in [false, true] {
        let (connection, driver) = connected(&address).await;
        pool.dialed(0, Ok(connection.clone()), now, &rules, true);
        let calls = [connection.begin(), connection.begin()];
        assert_eq!(address.calls(), 2);

        if closes {
            drop(driver);
            pool.prune(now);
        } else {
            pool.retire(&connection, now);
        }

        assert_eq!((pool.has_connections(), address.calls()), (false, 2));
        drop(calls);
        assert_eq!(address.calls(), 0);
    }
}

#[tokio::test]
async fn a_cancelled_call_is_its_addresss_load_until_its_stream_is_gone() {
    let uri = Uri::from_static("http://127.0.0.1:1");
    let endpoint = Arc::new(Endpoint::new(&uri, &Service::new(uri.clone())));
    let address = Arc::new(Address::new(([127, 0, 0, 1], 1).into(), endpoint));
    for closes in [false, true] {
        let (mut connection, driver) = connected(&address).await;
        let mut call = connection.begin();
        let request = Outgoing {
            made: Instant::now(),
            head: http::Request::post("http://127.0.0.1:1/").body(()).unwrap(),
            body: Bytes::new(),
            rest: None,
        };
        connection.send(&mut call, request).expect("an open stream");
        call.cancel(|_| Linger::of(()));
        drop(call);
        assert_eq!(address.calls(), 1);

        if closes {
            drop(driver);
        } else {
            let driving = tokio::spawn(driver);
            let gone = async {
                while address.calls() > 0 {
                    yield_now().await;
                }
            };
            timeout(Duration::from_secs(30), gone)
                .await
                .expect("an end");
            driving.abort();
        }
        assert_eq!(address.calls(), 0);
    }
}
