//! What the process holds in memory while callers do not read what they asked for.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use h2::{RecvStream, client::Builder};
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::sleep};

use crate::support::{
    Seen, call_with,
    process::{Process, message},
    raw::{EXECUTE, RawClient, STREAM, framed, post_with},
    request, seen,
};

const STREAMS: usize = 4;
const COMPLETIONS: usize = 60;
const UNARY: usize = 40;
const RESULTS: usize = 4;
const LIMITS: &str = "max_buffered_bytes = '64MiB'";
/// `deploy/sizing.md`: what it has besides, with some hundred calls in flight, and
/// that allocators keep some of what was freed. An unoptimized build has more code.
const MOST_KIB: usize = (64 * 3 / 2 + 80) << 10;

async fn hostile(server: &Process, window: u32) -> RawClient {
    let mut builder = Builder::new();
    builder.initial_window_size(window);
    let socket = TcpStream::connect(server.address).await.unwrap();
    RawClient::over(socket, &builder).await
}

fn payloads(count: usize, bytes: usize) -> Bytes {
    let call = call_with("", "payload", json!({"bytes": bytes}));
    framed(&request(vec![call; count]))
}

/// The most that the process has had in memory, in KiB.
fn peak_kib(process: &Process) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.trim().strip_suffix(" kB"));
    number.and_then(|kib| kib.trim().parse().ok()).unwrap()
}

/// Answers that nobody takes; they last as long as these.
async fn unread(server: &Process, window: u32) -> (Vec<RawClient>, Vec<RecvStream>) {
    let slow = |path| post_with(path, "grpc-timeout", "40S");
    let client = hostile(server, window).await;
    let streams = (0..STREAMS).map(|_| {
        let body = payloads(COMPLETIONS, 1_000_000);
        client.send(slow(STREAM), body)
    });
    let streams = join_all(streams).await;
    let unary = (0..UNARY).map(|_| {
        let body = payloads(RESULTS, 900_000);
        client.send(slow(EXECUTE), body)
    });
    let unary = join_all(unary).await;
    let mut bodies = Vec::new();
    for response in streams.into_iter().chain(unary) {
        bodies.push(response.unwrap().await.unwrap().into_body());
    }
    (vec![client], bodies)
}

#[tokio::test]
async fn unread_answers_leave_memory_and_honest_callers_alone() {
    let tools = Process::demo_tools().await;
    let server = Process::serve_demo("", LIMITS, tools.address).await;
    let mut honest = server.client().await;

    let goes_on = async {
        loop {
            let calls = (0..8).map(|index| call_with("", "echo", json!({"index": index})));
            let response = honest.execute_tools(request(calls.collect())).await;
            let results = response.expect("to be taken on").into_inner().results;
            for (index, result) in results.iter().enumerate() {
                assert_eq!(seen(result), Seen::Ok(json!({"index": index})));
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    let attack = async {
        let held = (unread(&server, 0).await, unread(&server, 65_535).await);
        let calls = 2 * (STREAMS * COMPLETIONS + UNARY * RESULTS);
        let ended = |line: &Value| matches!(message(line), "call answered" | "call cancelled");
        tools.log().wait_for_all("ends", calls, ended).await;
        held
    };
    let held = tokio::select! {
        held = attack => held,
        () = goes_on => unreachable!(),
    };

    let peak = peak_kib(&server);
    assert!(peak < MOST_KIB, "{peak} KiB");
    drop(held);
}
