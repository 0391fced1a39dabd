use std::{net::SocketAddr, sync::Arc, time::Duration};

use fanfare::pb;
use nix::sys::signal::Signal;
use serde_json::json;
use tokio::time::{Instant, interval, sleep};
use tonic::Code;

use crate::support::{
    SECOND, Seen,
    amid_others::lost,
    call, call_with, expired, failed, ledger, ms,
    pipes::Client,
    process::{PATIENCE, Process},
    relay::Relay,
    request, seen,
    sockets::reserved,
};

/// `echo` of the one service, given little time, and `payload` of another.
async fn serve(tried: SocketAddr, other: SocketAddr) -> Process {
    Process::serve(&format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n\
         [services.tried]\nendpoint = \"http://{tried}\"\n\
         [services.other]\nendpoint = \"http://{other}\"\n\
         [tools.echo]\nservice = \"tried\"\ntimeout = \"600ms\"\nidempotent = true\n\
         [tools.payload]\nservice = \"other\"\n"
    ))
    .await
}

async fn one(client: &Client, call: pb::ToolCall) -> pb::ToolExecutionResult {
    let mut client = client.clone();
    let response = client.execute_tools(request(vec![call])).await;
    let mut results = response.expect("an answer").into_inner().results;
    results.pop().expect("a result")
}

fn echo() -> pb::ToolCall {
    call("", "echo")
}

fn circuit_open() -> Seen {
    failed(Code::Unavailable, "CIRCUIT_OPEN", "not_started")
}

fn answered() -> Seen {
    Seen::Ok(json!({}))
}

/// Asks until the answer is that; returns how long it took.
async fn until(client: &Client, wanted: &Seen) -> Duration {
    let start = Instant::now();
    while seen(&one(client, echo()).await) != *wanted {
        assert!(start.elapsed() < PATIENCE, "still not {wanted:?}");
    }
    start.elapsed()
}

#[tokio::test]
async fn a_frozen_service_is_left_alone_and_found_again_and_others_notice_nothing() {
    let (frozen, well) = (Process::demo_tools().await, Process::demo_tools().await);
    let server = serve(frozen.address, well.address).await;
    let client = server.client().await;
    assert_eq!(seen(&one(&client, echo()).await), answered());

    frozen.signal(Signal::SIGSTOP);
    until(&client, &expired("maybe", "tool")).await;
    until(&client, &circuit_open()).await;
    // At once: a few trials apart, which take as long as the tool may.
    let (mut at_once, mut trials) = (0, 0);
    for _ in 0..100 {
        let start = Instant::now();
        let result = one(&client, echo()).await;
        if seen(&result) == circuit_open() {
            at_once += usize::from(start.elapsed() < ms(100));
        } else {
            let expected = [
                expired("maybe", "tool"),
                // There may be no connection by then, or it can't be made in time.
                expired("not_started", "tool"),
                lost("not_started"),
            ];
            assert!(expected.contains(&seen(&result)), "{result:?}");
            trials += 1;
        }
        let payload = call_with("", "payload", json!({"bytes": 1}));
        let other = one(&client, payload).await;
        assert_eq!((seen(&other), other.attempts), (Seen::Ok(json!("x")), 1));
    }
    assert!(at_once >= 90 && trials <= 10, "{at_once} {trials}");

    frozen.signal(Signal::SIGCONT);
    let recovered = until(&client, &answered()).await;
    assert!(recovered < 3 * SECOND, "{recovered:?}");
}

#[tokio::test]
async fn a_partition_costs_hardly_more_attempts_than_calls_and_heals() {
    let (cut_off, well) = (Process::demo_tools().await, Process::demo_tools().await);
    let line = Relay::to(cut_off.address, Duration::ZERO).await;
    let server = serve(line.address, well.address).await;
    let client = server.client().await;
    assert_eq!(seen(&one(&client, echo()).await), answered());

    line.stall(true);
    let mut ticks = interval(ms(20));
    let mut calls = Vec::new();
    for _ in 0..200 {
        ticks.tick().await;
        let client = client.clone();
        calls.push(tokio::spawn(async move { one(&client, echo()).await }));
    }
    let mut attempts = 0;
    for call in calls {
        let result = call.await.unwrap();
        let Seen::Err(code, ..) = seen(&result) else {
            panic!("answered through a partition");
        };
        assert!(
            matches!(code, Code::Unavailable | Code::DeadlineExceeded),
            "{code:?}"
        );
        attempts += result.attempts;
    }
    assert!(attempts <= 240, "{attempts} for 200 calls");

    line.stall(false);
    let healed = until(&client, &answered()).await;
    assert!(healed < 5 * SECOND, "{healed:?}");
}

#[tokio::test]
async fn a_killed_process_costs_no_call_of_an_idempotent_tool() {
    let place = reserved();
    let victim = Process::demo_tools_at(place.address).await;
    let toml = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n[services.demo]\nendpoint = \"http://{}\"\n\
         [tools.sleep]\nservice = \"demo\"\nidempotent = true\n\
         [tools.hang]\nservice = \"demo\"\n",
        place.address
    );
    let fanfare = Process::serve(&toml).await;
    let client = fanfare.client().await;
    let mut calls: Vec<_> = (0..100)
        .map(|index| call_with(&format!("s{index}"), "sleep", json!({"seconds": 1})))
        .collect();
    calls.extend((0..100).map(|index| call(&format!("h{index}"), "hang")));
    let batch = tokio::spawn({
        let mut client = client.clone();
        async move { client.execute_tools(request(calls)).await }
    });
    ledger::started(&victim, 200).await;
    victim.signal(Signal::SIGKILL);
    sleep(SECOND).await;
    let restarted = Arc::new(Process::demo_tools_at(place.address).await);

    let results = batch.await.unwrap().unwrap().into_inner().results;

    for result in &results[..100] {
        assert_eq!(
            seen(result),
            Seen::Ok(json!({"slept_seconds": 1})),
            "{result:?}"
        );
        assert_eq!(result.attempts, 2);
    }
    for result in &results[100..] {
        assert_eq!((seen(result), result.attempts), (lost("maybe"), 1));
    }
    let again = ledger::started(&restarted, 100).await;
    assert_eq!(again.len(), 100);
    for line in again {
        assert_eq!(
            (&line["tool"], &line["attempt"]),
            (&json!("sleep"), &json!(2))
        );
    }
}
