use std::time::{Duration, SystemTime};

use fanfare::pb::{self, stream_execute_tools_response::Event};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::time::Instant;
use tonic::Code;

use crate::support::{
    SECOND, Seen, call, call_with,
    caller::{Caller, HANGING_CALLS},
    ledger, ms,
    process::Process,
    request, seen,
};

/// How soon the tools know that nobody waits any more. 250 ms are promised, some 30
/// are usual; but a busy machine alone may take 300, and that would be a failure
/// in a hundred runs.
const PROMPT: Duration = SECOND;
/// All that the server takes; each request here is of as many calls, so one that
/// is admitted shows that nothing else is in flight.
const CALLS: usize = 100;

/// A server that takes [`CALLS`] calls at a time, and its tools.
async fn start(server_keys: &str) -> (Process, Process) {
    let tools = Process::demo_tools().await;
    let limits = format!("max_in_flight_calls = {CALLS}\nmax_calls_per_request = {CALLS}");
    let server = Process::serve_demo(server_keys, &limits, tools.address).await;
    (server, tools)
}

fn hanging(count: usize) -> Vec<pb::ToolCall> {
    (0..count).map(|_| call("", "hang")).collect()
}

/// How long after `vanished` the last of the calls was cancelled, by the clock of
/// the tools.
fn delay(cancelled: &[Value], vanished: SystemTime) -> Duration {
    let last = ledger::latest(cancelled);
    // A call may be cancelled between the reading of the clock and the deed.
    last.duration_since(vanished).unwrap_or_default()
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
        assert!(start.elapsed() < SECOND, "places are lost");
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
    let (server, tools) = start("").await;
    let mut client = server.client().await;
    let rpc = tokio::spawn(async move { client.execute_tools(request(hanging(CALLS))).await });
    let started = ledger::started(&tools, CALLS).await;
    assert!(started.iter().all(|line| line["attempt"] == 1));

    let vanished = SystemTime::now();
    rpc.abort();
    let cancelled = ledger::cancelled(&tools, CALLS).await;

    let delay = delay(&cancelled, vanished);
    assert!(delay <= PROMPT, "{delay:?}");
    assert_all_places_are_free(&server).await;
    assert_eq!(ledger::count(&tools, "call cancelled"), CALLS);
    // It is nobody's fault.
    let complaints = server.log().all(|line| line["level"] != "INFO");
    assert!(complaints.is_empty(), "{complaints:#?}");
}

#[tokio::test]
async fn a_caller_that_cancels_after_the_first_completion_ends_the_others() {
    let (server, tools) = start("").await;
    let mut client = server.client().await;
    let mut calls = hanging(CALLS - 1);
    calls.insert(50, call("", "echo"));
    let stream = client.stream_execute_tools(request(calls)).await;
    let mut stream = stream.expect("a stream").into_inner();
    let first = stream.message().await.expect("a message").expect("one");
    assert!(matches!(first.event, Some(Event::Completion(result)) if result.index == 50));
    ledger::started(&tools, CALLS).await;

    let vanished = SystemTime::now();
    drop(stream);
    let cancelled = ledger::cancelled(&tools, CALLS - 1).await;

    let delay = delay(&cancelled, vanished);
    assert!(delay <= PROMPT, "{delay:?}");
    assert_all_places_are_free(&server).await;
}

/// Some of the calls are just being sent when their caller changes its mind, so
/// the tools are told to stop before they have begun. That must not cost the
/// connection on which the calls of others run.
#[tokio::test]
async fn callers_that_cancel_at_once_do_no_harm_to_others() {
    let (server, tools) = start("").await;
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
    let (server, tools) = start("").await;
    let caller = Caller::start(server.address).await;
    ledger::started(&tools, 2 * HANGING_CALLS + 1).await;

    let vanished = SystemTime::now();
    caller.signal(Signal::SIGKILL);
    let cancelled = ledger::cancelled(&tools, 2 * HANGING_CALLS).await;

    let delay = delay(&cancelled, vanished);
    assert!(delay <= PROMPT, "{delay:?}");
    assert_all_places_are_free(&server).await;
}

#[tokio::test]
async fn a_caller_that_is_frozen_is_found_by_keepalive() {
    let keys = "keepalive_interval = \"300ms\"\nkeepalive_timeout = \"300ms\"";
    let (server, tools) = start(keys).await;
    let mut caller = Caller::start(server.address).await;
    ledger::started(&tools, 2 * HANGING_CALLS + 1).await;

    let vanished = SystemTime::now();
    caller.signal(Signal::SIGSTOP);
    let cancelled = ledger::cancelled(&tools, 2 * HANGING_CALLS).await;
    let delay = delay(&cancelled, vanished);
    assert!(delay <= ms(300) + ms(300) + SECOND, "{delay:?}");
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

#[tokio::test]
async fn a_server_that_is_killed_leaves_no_calls_and_can_be_replaced() {
    let (server, tools) = start("").await;
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

    let (vanished, start) = (SystemTime::now(), Instant::now());
    server.signal(Signal::SIGKILL);
    // tonic's own names for a connection that broke.
    let lost = |code| matches!(code, Code::Unavailable | Code::Unknown | Code::Internal);
    assert!(lost(unary.await.unwrap().unwrap_err().code()));
    assert!(lost(stream.message().await.unwrap_err().code()));
    assert!(start.elapsed() < SECOND, "{:?}", start.elapsed());
    let delay = delay(&ledger::cancelled(&tools, CALLS).await, vanished);
    assert!(delay <= PROMPT, "{delay:?}");

    let config = fanfare::demo::config_toml(tools.address);
    let replacement = format!("[server]\nlisten = \"{address}\"\n{config}");
    let replacement = Process::serve(&replacement).await;
    assert_eq!(replacement.address, address);
    // The same caller, on a new connection.
    let response = client.execute_tools(request(vec![call("", "echo")])).await;
    let response = response.expect("an answer").into_inner();
    assert_eq!(seen(&response.results[0]), Seen::Ok(json!({})));
}
