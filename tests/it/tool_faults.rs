use std::{fs, future::pending, io, net::SocketAddr, sync::Arc};

use fanfare::{
    catalog::Catalog,
    config::Config,
    net::{Connect, Io},
    pb,
};
use futures_util::future::BoxFuture;
use nix::sys::signal::Signal;
use serde_json::json;
use tokio::time::{Instant, timeout};
use tonic::{Code, Request};

use crate::support::{
    SECOND, Seen, call, call_with, circuit_open, error, error_info, expired, failed,
    hostile::{Hostile, Step, head},
    ledger::started_of,
    length, lost, ms,
    pipes::{self, Client},
    process::{PATIENCE, Process},
    request, seen,
    sockets::{SETTINGS, black_hole, reserved, resetting, silent},
};

/// The configuration of a service at `address` with these tools.
fn service(name: &str, address: SocketAddr, keys: &str, tools: &[&str]) -> String {
    let mut toml = format!("[services.{name}]\nendpoint = \"http://{address}\"\n{keys}\n");
    for tool in tools {
        toml.push_str(&format!("[tools.{tool}]\nservice = \"{name}\"\n"));
    }
    toml
}

/// The same, with neither retries nor a breaker between the service and the test.
fn unguarded(name: &str, address: SocketAddr, keys: &str, tools: &[&str]) -> String {
    let keys = format!("{keys}\nbreaker.failures = 1000000");
    let toml = service(name, address, &keys, tools);
    let tool = format!("service = \"{name}\"\n");
    toml.replace(&tool, &format!("{tool}retry.connect_patience = \"0s\"\n"))
}

/// Fanfare with these services, and a client of it.
async fn fanfare<const N: usize>(services: [String; N]) -> (Process, Client) {
    let server = "[server]\nlisten = \"127.0.0.1:0\"\n[limits]\nmax_calls_per_request = 400\n";
    let process = Process::serve(&format!("{server}{}", services.concat())).await;
    let mut client = process.client().await;
    // An answer tells that the connection has been accepted.
    let tools = client.list_tools(pb::ListToolsRequest::default()).await;
    assert!(!tools.expect("tools").into_inner().tools.is_empty());
    (process, client)
}

async fn results(mut client: Client, calls: Vec<pb::ToolCall>) -> Vec<pb::ToolExecutionResult> {
    let count = calls.len();
    let response = client.execute_tools(request(calls)).await;
    // Whatever happens to the tools, the RPC is OK.
    let results = response.expect("an OK").into_inner().results;
    assert_eq!(results.len(), count);
    results
}

async fn result(client: &Client, call: pb::ToolCall) -> pb::ToolExecutionResult {
    results(client.clone(), vec![call]).await.remove(0)
}

async fn outcome(client: &Client, call: pb::ToolCall) -> Seen {
    seen(&result(client, call).await)
}

fn retryable(result: &pb::ToolExecutionResult) -> bool {
    error_info(error(result)).metadata["retryable"] == "true"
}

fn echo() -> pb::ToolCall {
    call_with("", "echo", json!({"a": 1}))
}

fn echoed() -> Seen {
    Seen::Ok(json!({"a": 1}))
}

fn sleep(seconds: u32) -> pb::ToolCall {
    call_with("", "sleep", json!({"seconds": seconds}))
}

fn slept(seconds: u32) -> Seen {
    Seen::Ok(json!({"slept_seconds": seconds}))
}

fn within(timeout: std::time::Duration, call: pb::ToolCall) -> pb::ToolCall {
    pb::ToolCall {
        timeout: Some(timeout.try_into().expect("a duration")),
        ..call
    }
}

/// Calls until the tools answer. Until then, no call may even begin: there is no
/// connection, or the breaker is open.
async fn works_again(client: &Client) {
    let calling = async {
        loop {
            let outcome = outcome(client, echo()).await;
            if outcome == echoed() {
                return;
            }
            assert!(
                [lost("not_started"), circuit_open()].contains(&outcome),
                "{outcome:?}"
            );
        }
    };
    timeout(PATIENCE, calling).await.expect("an answer");
}

/// Lost before or after it was sent: which, is a race with the end of the
/// connection.
fn assert_is_lost(outcome: &Seen) {
    assert!(
        [lost("not_started"), lost("maybe")].contains(outcome),
        "{outcome:?}"
    );
}

/// Waits for what no signal tells of, looking every few milliseconds.
async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let looking = async {
        while !is_so() {
            tokio::time::sleep(ms(5)).await;
        }
    };
    timeout(PATIENCE, looking)
        .await
        .unwrap_or_else(|_| panic!("never came: {what}"));
}

fn open_files(process: &Process) -> usize {
    let files = fs::read_dir(format!("/proc/{}/fd", process.pid()));
    files.expect("a process").count()
}

/// Stops a process, and waits until none of its threads runs.
async fn freeze(process: &Process) {
    process.signal(Signal::SIGSTOP);
    let tasks = format!("/proc/{}/task", process.pid());
    until("a frozen process", || {
        fs::read_dir(&tasks).expect("a process").all(|task| {
            let stat = fs::read_to_string(task.expect("a task").path().join("stat"));
            stat.is_ok_and(|stat| stat.contains(") T "))
        })
    })
    .await;
}

#[tokio::test]
async fn a_killed_tool_service_costs_its_calls_in_flight_and_no_other() {
    let place = reserved();
    let mut victim = Process::demo_tools_at(place.address).await;
    let healthy = Process::demo_tools().await;
    let (_fanfare, client) = fanfare([
        service("victim", victim.address, "", &["hang", "echo"]),
        service("healthy", healthy.address, "", &["sleep"]),
    ])
    .await;
    let calls = (0..200).flat_map(|_| [call("", "hang"), sleep(1)]);
    let batch = tokio::spawn(results(client.clone(), calls.collect()));
    started_of(&victim, 200, "hang").await;
    started_of(&healthy, 200, "sleep").await;

    victim.signal(Signal::SIGKILL);
    assert_eq!(victim.exit_code().await, None);
    let others = results(client.clone(), vec![sleep(0); 200]).await;

    assert!(others.iter().all(|other| seen(other) == slept(0)));
    for pair in batch.await.unwrap().chunks(2) {
        assert_eq!(seen(&pair[0]), lost("maybe"));
        assert_eq!((pair[0].attempts, retryable(&pair[0])), (1, false));
        assert_eq!(seen(&pair[1]), slept(1));
    }

    assert_eq!(outcome(&client, echo()).await, lost("not_started"));
    let _restarted = Process::demo_tools_at(place.address).await;
    works_again(&client).await;
}

#[tokio::test]
async fn a_crash_costs_the_calls_in_flight_and_a_panic_its_own() {
    let mut tools = Process::demo_tools().await;
    let names = ["hang", "echo", "sleep", "panic", "crash"];
    let (_fanfare, client) = fanfare([service("demo", tools.address, "", &names)]).await;

    let sibling = tokio::spawn(results(client.clone(), vec![sleep(1)]));
    started_of(&tools, 1, "sleep").await;
    let panicked = result(&client, call("", "panic")).await;
    let internal = failed(Code::Internal, "TOOL_FAILED", "done");
    assert_eq!(seen(&panicked), internal);
    assert_eq!(outcome(&client, echo()).await, echoed());
    assert_eq!(seen(&sibling.await.unwrap()[0]), slept(1));

    let sibling = tokio::spawn(results(client.clone(), vec![call("", "hang")]));
    started_of(&tools, 1, "hang").await;
    let crashed = result(&client, call("", "crash")).await;
    assert_eq!(tools.exit_code().await, None);
    for result in [crashed, sibling.await.unwrap().remove(0)] {
        assert_eq!(seen(&result), lost("maybe"));
        assert_eq!((result.attempts, retryable(&result)), (1, false));
    }
}

#[tokio::test]
async fn a_frozen_tool_service_costs_its_calls_their_timeouts_until_it_thaws() {
    let frozen = Process::demo_tools().await;
    let healthy = Process::demo_tools().await;
    let (_fanfare, client) = fanfare([
        service("frozen", frozen.address, "", &["echo"]),
        service("healthy", healthy.address, "", &["sleep"]),
    ])
    .await;
    assert_eq!(outcome(&client, echo()).await, echoed());

    freeze(&frozen).await;
    let calls = (0..20).flat_map(|_| [within(2 * SECOND, echo()), sleep(0)]);
    for pair in results(client.clone(), calls.collect()).await.chunks(2) {
        assert_eq!(seen(&pair[0]), expired("maybe", "call"));
        assert!(length(pair[0].duration) >= 2 * SECOND);
        assert_eq!(seen(&pair[1]), slept(0));
        assert!(length(pair[1].duration) < length(pair[0].duration));
    }

    frozen.signal(Signal::SIGCONT);
    works_again(&client).await;
}

#[tokio::test]
async fn keepalive_finds_a_frozen_tool_service_before_its_timeouts_do() {
    let tools = Process::demo_tools().await;
    let keepalive = "keepalive_interval = \"200ms\"\nkeepalive_timeout = \"1s\"";
    let (_fanfare, client) = fanfare([service("demo", tools.address, keepalive, &["echo"])]).await;
    assert_eq!(outcome(&client, echo()).await, echoed());

    freeze(&tools).await;
    let lost_call = result(&client, echo()).await;
    assert_eq!(seen(&lost_call), lost("maybe"));
    // The timeout of the tool is 30 s.
    assert!(length(lost_call.duration) < 10 * SECOND);

    tools.signal(Signal::SIGCONT);
    works_again(&client).await;
}

#[tokio::test]
async fn a_refused_connection_is_a_call_that_was_not_started() {
    let nobody = reserved();
    let (fanfare, client) = fanfare([unguarded("nobody", nobody.address, "", &["echo"])]).await;
    let files = open_files(&fanfare);

    for _ in 0..100 {
        let refused = result(&client, echo()).await;
        assert_eq!(seen(&refused), lost("not_started"));
        assert_eq!((refused.attempts, retryable(&refused)), (0, true));
    }

    until("closed sockets", || open_files(&fanfare) <= files).await;
}

#[tokio::test]
async fn a_black_hole_is_given_up_after_the_connect_timeout() {
    let hole = black_hole().await;
    let keys = "connect_timeout = \"2s\"";
    let (_fanfare, client) = fanfare([service("hole", hole.address, keys, &["echo"])]).await;

    let calls = vec![echo(), within(ms(300), echo())];
    let results = results(client.clone(), calls).await;

    assert_eq!(seen(&results[0]), lost("not_started"));
    // The service is dialed from the start: the calls wait for what is left of that.
    assert!(length(results[0].duration) >= ms(300));
    assert!(retryable(&results[0]));
    assert_eq!(seen(&results[1]), expired("not_started", "call"));
    assert!(length(results[1].duration) >= ms(300));
    assert_eq!((results[0].attempts, results[1].attempts), (0, 0));
}

/// Leads nowhere, for ever.
struct Nowhere;

impl Connect for Nowhere {
    fn connect(&self) -> BoxFuture<'static, io::Result<Box<dyn Io>>> {
        Box::pin(pending())
    }
}

#[tokio::test(start_paused = true)]
async fn the_deadline_holds_while_a_connection_is_made() {
    let address = "127.0.0.1:1".parse().unwrap();
    let config = Config::parse(&service("nowhere", address, "", &["echo"])).unwrap();
    let catalog = Catalog::with_connect(&config, |_| Arc::new(Nowhere));
    let mut client = pipes::client(&config, catalog).await;
    let start = Instant::now();

    let mut request = Request::new(request(vec![echo()]));
    let timeout = "300m".parse().unwrap();
    request.metadata_mut().insert("grpc-timeout", timeout);
    let response = client.execute_tools(request).await.unwrap();

    // The reply margin is a tenth.
    assert_eq!(start.elapsed(), ms(270));
    let result = &response.get_ref().results[0];
    assert_eq!(seen(result), expired("not_started", "request"));
}

#[tokio::test]
async fn silent_peers_cost_their_calls_their_timeouts_and_no_files() {
    // What does not begin to speak HTTP/2 is not sent anything.
    for greeting in [&b""[..], SETTINGS] {
        let address = silent(greeting).await;
        let (fanfare, client) = fanfare([service("silent", address, "", &["echo"])]).await;
        let impatient = || within(ms(100), echo());
        let first = outcome(&client, impatient()).await;
        assert_eq!(first, expired("not_started", "call"));
        let files = open_files(&fanfare);

        for _ in 0..10 {
            let results = results(client.clone(), vec![impatient(); 10]).await;
            for result in results {
                if seen(&result) != expired("not_started", "call") {
                    // The time to connect has run out.
                    assert_eq!(seen(&result), lost("not_started"));
                }
                assert_eq!(result.attempts, 0);
                assert!(length(result.duration) < 2 * SECOND);
            }
        }

        until("closed sockets", || open_files(&fanfare) <= files).await;
    }
}

#[tokio::test]
async fn silent_peers_are_given_up_after_the_connect_timeout() {
    let address = silent(SETTINGS).await;
    let keys = "connect_timeout = \"20ms\"";
    let (fanfare, client) = fanfare([unguarded("silent", address, keys, &["echo"])]).await;
    let files = open_files(&fanfare);

    for _ in 0..20 {
        assert_eq!(outcome(&client, echo()).await, lost("not_started"));
    }

    until("closed sockets", || open_files(&fanfare) <= files).await;
}

#[tokio::test]
async fn reset_connections_are_lost_calls_and_leave_no_files() {
    let after_head = Hostile::start(vec![Step::Head(head()), Step::Cut]).await;
    let (fanfare, client) = fanfare([
        unguarded("resetting", resetting().await, "", &["echo"]),
        unguarded("hostile", after_head.address, "", &["hostile"]),
    ])
    .await;
    let files = open_files(&fanfare);

    for _ in 0..100 {
        assert_is_lost(&outcome(&client, echo()).await);
    }
    for _ in 0..20 {
        assert_is_lost(&outcome(&client, call("", "hostile")).await);
    }

    assert!(after_head.connections() > 1);
    until("closed sockets", || open_files(&fanfare) <= files).await;
}
