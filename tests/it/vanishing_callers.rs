//! Callers that vanish, as processes. Nothing else would end a call while a test waits:
//! deadlines and pings are an hour away. How soon calls end is asserted under a paused
//! clock, here and in `cancel`; these processes may share the machine with others.

use std::sync::Arc;

use fanfare::{
    net::Connect as _,
    pb::{self, stream_execute_tools_response::Event},
    server::Server,
};
use nix::sys::signal::Signal;
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};
use tonic::Code;

use crate::support::{
    SECOND, Seen, call, call_with,
    caller::{Caller, HANGING_CALLS},
    config, ledger, ms,
    pipes::PipeConnect,
    process::{PATIENCE, Process},
    raw::{EXECUTE, RawClient, framed, post_with},
    request, seen,
    stalled::Stall,
    tools::{Running, Scripted, catalog},
};

/// All that the server takes; each request here is of as many calls, so one that
/// is admitted shows that nothing else is in flight.
const CALLS: usize = 100;

/// A server that takes [`CALLS`] calls at a time, and its tools.
async fn start(keepalive: &str) -> (Process, Process) {
    let tools = Process::demo_tools().await;
    let demo = fanfare::demo::config_toml(tools.address);
    let patient = demo.replace("[tools.hang]\n", "[tools.hang]\ntimeout = '1h'\n");
    let toml = format!(
        "[server]\nlisten = '127.0.0.1:0'\nkeepalive_interval = '{keepalive}'\n\
         keepalive_timeout = '{keepalive}'\n[limits]\nmax_in_flight_calls = {CALLS}\n\
         max_calls_per_request = {CALLS}\nmax_request_timeout = '1h'\n{patient}"
    );
    (Process::serve(&toml).await, tools)
}

fn hanging(count: usize) -> Vec<pb::ToolCall> {
    (0..count).map(|_| call("", "hang")).collect()
}

/// The server takes as much as ever. Places come back when the calls are dropped,
/// which the tools may know an instant earlier.
async fn assert_all_places_are_free(server: &Process) {
    let mut client = server.client().await;
    let start = Instant::now();
    let response = loop {
        let calls = (0..CALLS).map(|_| call("", "echo")).collect();
        match client.execute_tools(request(calls)).await {
            Ok(response) => break response.into_inner(),
            Err(status) => assert_eq!(status.code(), Code::ResourceExhausted, "{status}"),
        }
        assert!(start.elapsed() < PATIENCE, "places are lost");
    };
    assert!(
        response
            .results
            .iter()
            .all(|r| seen(r) == Seen::Ok(json!({})))
    );
}

#[tokio::test]
async fn a_caller_that_cancels_ends_all_its_calls_on_the_wire() {
    let (server, tools) = start("1h").await;
    let mut client = server.client().await;
    let rpc = tokio::spawn(async move { client.execute_tools(request(hanging(CALLS))).await });
    let started = ledger::started(&tools, CALLS).await;
    assert!(started.iter().all(|line| line["attempt"] == 1));

    rpc.abort();

    ledger::cancelled(&tools, CALLS).await;
    assert_all_places_are_free(&server).await;
    assert_eq!(ledger::count(&tools, "call cancelled"), CALLS);
    // It is nobody's fault.
    let complaints = server.log().all(|line| line["level"] != "INFO");
    assert!(complaints.is_empty(), "{complaints:#?}");
}

#[tokio::test]
async fn a_caller_that_cancels_after_the_first_completion_ends_the_others() {
    let (server, tools) = start("1h").await;
    let mut client = server.client().await;
    let mut calls = hanging(CALLS - 1);
    calls.insert(50, call("", "echo"));
    let stream = client.stream_execute_tools(request(calls)).await;
    let mut stream = stream.expect("a stream").into_inner();
    let first = stream.message().await.expect("a message").expect("one");
    assert!(matches!(first.event, Some(Event::Completion(result)) if result.index == 50));
    ledger::started(&tools, CALLS).await;

    drop(stream);

    ledger::cancelled(&tools, CALLS - 1).await;
    assert_all_places_are_free(&server).await;
}

/// Some of the calls are just being sent when their caller changes its mind, so
/// the tools are told to stop before they have begun. That must not cost the
/// connection on which the calls of others run.
#[tokio::test]
async fn callers_that_cancel_at_once_do_no_harm_to_others() {
    let (server, tools) = start("1h").await;
    let mut client = server.client().await;
    let patient = tokio::spawn({
        let mut client = client.clone();
        let slow = call_with("patient", "sleep", json!({"seconds": 1}));
        async move { client.execute_tools(request(vec![slow])).await }
    });
    ledger::started(&tools, 1).await;

    // Together no more than the streams that a connection may have: a tool
    // service that gets no time to read will not take them for an attack.
    for patience in (0..20).step_by(2).map(ms) {
        let rpc = client.execute_tools(request(hanging(CALLS - 1)));
        let _ = tokio::time::timeout(patience, rpc).await;
    }

    let response = patient.await.unwrap().expect("an answer").into_inner();
    let result = &response.results[0];
    assert_eq!(seen(result), Seen::Ok(json!({"slept_seconds": 1})));
    assert_eq!(result.attempts, 1);
    assert_all_places_are_free(&server).await;
    let started = ledger::count(&tools, "call started");
    ledger::cancelled(&tools, started - 1 - CALLS).await;
}

#[tokio::test]
async fn a_caller_that_is_killed_ends_its_calls() {
    let (server, tools) = start("1h").await;
    let caller = Caller::start(server.address).await;
    ledger::started(&tools, 2 * HANGING_CALLS + 1).await;

    caller.signal(Signal::SIGKILL);

    ledger::cancelled(&tools, 2 * HANGING_CALLS).await;
    assert_all_places_are_free(&server).await;
}

#[tokio::test]
async fn a_caller_that_is_frozen_is_found_by_keepalive() {
    let (server, tools) = start("1s").await;
    let mut caller = Caller::start(server.address).await;
    ledger::started(&tools, 2 * HANGING_CALLS + 1).await;

    caller.signal(Signal::SIGSTOP);

    ledger::cancelled(&tools, 2 * HANGING_CALLS).await;
    assert_all_places_are_free(&server).await;

    // Back to life, it learns that its calls have no answer.
    caller.signal(Signal::SIGCONT);
    let ended = caller.says().await;
    assert!(
        ended.starts_with("stream ") && !ended.contains("Ok"),
        "{ended}"
    );
    assert_all_places_are_free(&server).await;
}

/// One that answers no ping, whenever the next one is due.
#[tokio::test(start_paused = true)]
async fn a_caller_that_falls_silent_keeps_its_calls_for_two_keepalive_times() {
    let running = Running::default();
    let mut config = config();
    config.server.keepalive_interval = ms(300);
    config.server.keepalive_timeout = ms(300);
    let catalog = catalog([("hangs", Scripted::hangs(&running))]);
    let server = Arc::new(Server::orchestrator(&config, catalog).await);
    let pipe = PipeConnect(Arc::clone(&server)).connect().await.unwrap();
    let stall = Arc::new(Stall::default());
    let client = RawClient::over(stall.on(pipe), &h2::client::Builder::new()).await;
    let body = framed(&request(vec![call("", "hangs"); CALLS]));
    let request = post_with(EXECUTE, "grpc-timeout", "1H");
    let _answer = client.send(request, body).await.unwrap();
    sleep(10 * SECOND).await;
    assert_eq!(running.count(), CALLS);

    stall.set(true);

    sleep(ms(290)).await;
    assert_eq!(running.count(), CALLS);
    sleep(ms(311)).await;
    assert_eq!(running.count(), 0);
}

#[tokio::test]
async fn a_server_that_is_killed_leaves_no_calls_and_can_be_replaced() {
    let (server, tools) = start("1h").await;
    let address = server.address;
    let mut client = server.client().await;
    let unary = tokio::spawn({
        let mut client = client.clone();
        async move { client.execute_tools(request(hanging(CALLS / 2))).await }
    });
    let stream = client
        .stream_execute_tools(request(hanging(CALLS / 2)))
        .await;
    let mut stream = stream.expect("a stream").into_inner();
    ledger::started(&tools, CALLS).await;

    server.signal(Signal::SIGKILL);
    // tonic's own names for a connection that broke.
    let lost = |code| matches!(code, Code::Unavailable | Code::Unknown | Code::Internal);
    let ends = timeout(PATIENCE, async { (unary.await, stream.message().await) });
    let (unary, stream) = ends.await.expect("both to end");
    assert!(lost(unary.unwrap().unwrap_err().code()));
    assert!(lost(stream.unwrap_err().code()));
    ledger::cancelled(&tools, CALLS).await;

    let config = fanfare::demo::config_toml(tools.address);
    let replacement = format!("[server]\nlisten = \"{address}\"\n{config}");
    let replacement = Process::serve(&replacement).await;
    assert_eq!(replacement.address, address);
    // The same caller, on a new connection.
    let response = client.execute_tools(request(vec![call("", "echo")])).await;
    let response = response.expect("an answer").into_inner();
    assert_eq!(seen(&response.results[0]), Seen::Ok(json!({})));
}
