use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use fanfare::{
    catalog::Catalog,
    config::Config,
    net::{Connect as _, Io, Network},
    pb,
};
use futures_util::future::BoxFuture;
use serde_json::json;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::support::{
    SECOND, Seen, answered, call_with, ms,
    network::{Pipes, demo_service},
    pipes::{self, Client},
    process::Process,
    request, results, seen,
    service::Service,
    tool,
};

fn sleep_call(time: Duration) -> pb::ToolCall {
    call_with("", "sleep", json!({"seconds": time.as_secs_f64()}))
}

/// Makes so many calls of that length in one request, which must all succeed;
/// says how long that took.
async fn calls(client: &Client, count: usize, time: Duration) -> Duration {
    let start = Instant::now();
    let calls = vec![sleep_call(time); count];
    let response = client.clone().execute_tools(request(calls)).await;
    let results = response.expect("an OK").into_inner().results;
    assert_eq!(results.len(), count);
    for result in &results {
        assert!(matches!(seen(result), Seen::Ok(_)), "{result:?}");
        assert_eq!(result.attempts, 1);
    }
    start.elapsed()
}

/// Calls in the background.
fn spawn(client: &Client, count: usize, time: Duration) -> tokio::task::JoinHandle<Duration> {
    let client = client.clone();
    tokio::spawn(async move { calls(&client, count, time).await })
}

#[tokio::test(start_paused = true)]
async fn connections_come_with_the_calls() {
    let pipes = Pipes::new("").await;
    let keys = "max_streams_per_connection = 10\nmax_connections_per_address = 8";
    let client = pipes.client(keys, "").await;
    assert_eq!(pipes.dialed(), 0);

    assert_eq!(calls(&client, 10, SECOND).await, SECOND);
    assert_eq!(pipes.open(), 1);
    let ten = spawn(&client, 10, SECOND);
    sleep(ms(500)).await;
    assert_eq!(pipes.open(), 1);
    assert_eq!(calls(&client, 30, SECOND).await, SECOND);
    ten.await.unwrap();
    assert_eq!((pipes.dialed(), pipes.open()), (4, 4));
}

#[tokio::test(start_paused = true)]
async fn many_calls_at_once_open_several_connections_at_once() {
    let pipes = Pipes::new("").await;
    pipes.dials_take(ms(100));
    let keys = "max_streams_per_connection = 10\nmax_connections_per_address = 8";
    let client = pipes.client(keys, "").await;

    assert_eq!(calls(&client, 80, SECOND).await, ms(1100));

    assert_eq!((pipes.dialed(), pipes.open()), (8, 8));
}

#[tokio::test(start_paused = true)]
async fn beyond_the_most_connections_calls_share_them() {
    let pipes = Pipes::new("").await;
    let keys = "max_streams_per_connection = 10\nmax_connections_per_address = 3";
    let client = pipes.client(keys, "").await;

    assert_eq!(calls(&client, 200, SECOND).await, SECOND);

    assert_eq!(pipes.dialed(), 3);
}

#[tokio::test(start_paused = true)]
async fn the_streams_that_the_service_allows_are_kept_to() {
    // A stream too many would be refused, and its call fail.
    let pipes = Pipes::new("max_streams_per_connection = 10").await;
    let two = pipes.client("max_connections_per_address = 2", "").await;
    assert_eq!(calls(&two, 40, SECOND).await, 2 * SECOND);
    assert_eq!(pipes.dialed(), 2);

    let pipes = Pipes::new("max_streams_per_connection = 10").await;
    let enough = pipes.client("max_connections_per_address = 8", "").await;
    assert_eq!(calls(&enough, 10, SECOND).await, SECOND);
    assert_eq!(calls(&enough, 80, SECOND).await, SECOND);
    assert_eq!(pipes.dialed(), 8);
}

#[tokio::test(start_paused = true)]
async fn idle_connections_are_closed_and_made_anew() {
    let pipes = Pipes::new("").await;
    let keys = "max_streams_per_connection = 10\nconnection_idle_timeout = '4s'";
    let client = pipes.client(keys, "").await;
    calls(&client, 40, SECOND).await;
    assert_eq!(pipes.open(), 4);

    // One is still needed.
    for _ in 0..12 {
        calls(&client, 1, ms(500)).await;
    }
    assert_eq!(pipes.open(), 1);

    sleep(ms(3900)).await;
    assert_eq!(pipes.open(), 1);
    sleep(ms(1200)).await;
    assert_eq!(pipes.open(), 0);

    assert_eq!(calls(&client, 1, SECOND).await, SECOND);
    assert_eq!((pipes.open(), pipes.dialed()), (1, 5));
}

#[tokio::test(start_paused = true)]
async fn a_call_in_flight_is_not_idle() {
    let pipes = Pipes::new("").await;
    let client = pipes.client("connection_idle_timeout = '100ms'", "").await;
    assert_eq!(calls(&client, 1, 20 * SECOND).await, 20 * SECOND);
    assert_eq!(pipes.dialed(), 1);
}

#[tokio::test(start_paused = true)]
async fn calls_that_can_be_taken_do_not_wait_for_a_dial() {
    let pipes = Pipes::new("").await;
    let keys = "max_streams_per_connection = 10\nconnect_timeout = '5s'";
    let client = pipes.client(keys, "").await;
    let ten = spawn(&client, 10, 10 * SECOND);
    sleep(ms(10)).await;
    pipes.dials_take(4 * SECOND);

    // There is room for twice as many while another connection is being made.
    let more = spawn(&client, 10, SECOND);
    sleep(ms(10)).await;
    // Those after them wait for it a little.
    assert_eq!(calls(&client, 10, SECOND).await, ms(1240));

    assert_eq!(more.await.unwrap(), SECOND);
    ten.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_becomes_free_is_used_while_a_dial_takes_long() {
    let pipes = Pipes::new("max_streams_per_connection = 10").await;
    let client = pipes.client("connect_timeout = '20s'", "").await;
    let ten = spawn(&client, 10, SECOND);
    sleep(ms(10)).await;
    pipes.dials_take(15 * SECOND);

    assert_eq!(calls(&client, 10, SECOND).await, ms(1990));

    assert_eq!(ten.await.unwrap(), SECOND);
}

/// A name whose address changes, and which addresses were dialed.
struct Moving {
    pipes: Arc<Pipes>,
    port: AtomicU16,
    dialed: Mutex<Vec<u16>>,
}

impl Network for Moving {
    fn resolve(&self, _: &str, _: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        let port = self.port.load(Ordering::SeqCst);
        Box::pin(async move {
            sleep(ms(10)).await;
            Ok(vec![SocketAddr::from(([127, 0, 0, 1], port))])
        })
    }

    fn connect(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn Io>>> {
        self.dialed.lock().unwrap().push(address.port());
        self.pipes.connect()
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_is_asked_for_anew_after_a_time_without_calls() {
    let network = Arc::new(Moving {
        pipes: Pipes::new("").await,
        port: AtomicU16::new(1),
        dialed: Mutex::default(),
    });
    let keys = "connection_idle_timeout = '4s'\ndns_refresh_interval = '1h'";
    let config = Config::parse(&demo_service("http://tools.test", keys)).unwrap();
    let catalog = Catalog::with_network(&config, |_| Arc::clone(&network) as _);
    let client = pipes::client(&config, catalog).await;
    assert_eq!(calls(&client, 1, SECOND).await, ms(1010));
    network.port.store(2, Ordering::SeqCst);
    assert_eq!(calls(&client, 1, SECOND).await, SECOND);

    sleep(10 * SECOND).await;
    assert_eq!(calls(&client, 1, SECOND).await, ms(1010));

    assert_eq!(*network.dialed.lock().unwrap(), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn the_age_of_connections_costs_no_call() {
    let pipes = Pipes::new("max_connection_age = '1s'").await;
    let client = pipes.client("max_streams_per_connection = 10", "").await;
    let mut running = JoinSet::new();
    for count in 0..200 {
        let client = client.clone();
        running.spawn(async move { calls(&client, 3, ms(10 * (count % 40))).await });
        sleep(ms(50)).await;
    }
    running.join_all().await;
    assert!(pipes.dialed() >= 10, "{}", pipes.dialed());
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_call_that_waits_for_a_connection_is_forgotten() {
    let pipes = Pipes::new("").await;
    pipes.dials_take(Duration::from_secs(3));
    let keys = "max_streams_per_connection = 10\nconnect_timeout = '5s'";
    let client = pipes.client(keys, "").await;
    let waiting = spawn(&client, 200, SECOND);
    sleep(ms(1)).await;
    waiting.abort();
    assert!(waiting.await.unwrap_err().is_cancelled());
    sleep(10 * SECOND).await;
    let before = pipes.dialed();

    assert_eq!(calls(&client, 10, SECOND).await, SECOND);

    assert_eq!(pipes.dialed(), before);
}

#[tokio::test]
async fn ten_thousand_calls_are_in_flight_to_one_process() {
    const CALLS: usize = 10_000;
    let service = Service::gathering(CALLS).await;
    let fanfare = Process::serve(&format!(
        "[server]\nlisten = '127.0.0.1:0'\n\
         [limits]\nmax_calls_per_request = {CALLS}\nmax_response_bytes = '64MiB'\n\
         [services.tools]\nendpoint = 'http://{}'\n\
         [tools.tool]\nservice = 'tools'\ntimeout = '5m'\n",
        service.listen().await
    ))
    .await;
    let client = fanfare.client().await.max_decoding_message_size(64 << 20);

    for result in results(&client, vec![tool(""); CALLS]).await {
        assert_eq!((seen(&result), result.attempts), (answered(), 1));
    }

    assert_eq!(service.most(), CALLS);
}
