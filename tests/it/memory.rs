//! What the process holds in memory while callers or tools do not read.

use std::time::Duration;

use bytes::Bytes;
use fanfare::pb;
use futures_util::future::join_all;
use h2::{RecvStream, client::Builder};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};

use crate::support::{
    Seen, call, call_with, ledger, ms,
    page::Page,
    process::{PATIENCE, Process, message},
    raw::{EXECUTE, RawClient, STREAM, framed, post_with},
    request, seen,
};

const STREAMS: usize = 4;
const COMPLETIONS: usize = 60;
const UNARY: usize = 40;
const RESULTS: usize = 4;
const LIMITS: &str = "max_buffered_bytes = '64MiB'";
/// `deploy/sizing.md`: what it has besides, with some hundred calls in flight, and
/// that allocators keep some of what was freed.
const MOST_KIB: usize = (64 * 3 / 2 + 64) << 10;

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

/// The most that the process has had in memory, without its code, in KiB.
fn peak_kib(process: &Process) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid())).unwrap();
    let kib = |name: &str| -> usize {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|line| line.trim().strip_suffix(" kB"));
        number.and_then(|kib| kib.trim().parse().ok()).unwrap()
    };
    // Not its code, of which an unoptimized build has any amount.
    kib("VmHWM:") - kib("RssFile:")
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

/// The service of cancelled calls is frozen, so that their arguments wait to be sent
/// until their streams are reset.
#[tokio::test]
async fn requests_are_held_until_nothing_of_them_waits_to_be_sent() {
    const LARGE: usize = 6;
    const BYTES: usize = 3_500_000;
    let tools = Process::demo_tools().await;
    let server = Process::serve(&format!(
        "[server]\nlisten = '127.0.0.1:0'\n\
         [services.tools]\nendpoint = 'http://{}'\nmax_connections_per_address = 1\n\
         [tools.hang]\nservice = 'tools'\ntimeout = '200s'\n",
        tools.address
    ))
    .await;
    let until = async |what: &str, is_so: fn(&Page) -> bool| {
        let seen = async {
            while !is_so(&Page::of_process(&server).await) {
                sleep(ms(5)).await;
            }
        };
        timeout(PATIENCE, seen).await.expect(what);
    };
    // A connection has room for four such requests at a time.
    let clients = [server.client().await, server.client().await];
    let calls = |index: usize, call: pb::ToolCall| {
        let mut client = clients[index % 2].clone();
        tokio::spawn(async move { client.execute_tools(request(vec![call])).await })
    };
    // Another call keeps the connection.
    let other = calls(0, call("", "hang"));
    ledger::started(&tools, 1).await;

    tools.signal(Signal::SIGSTOP);
    let large = call_with("", "hang", json!({"text": "x".repeat(BYTES)}));
    let large: Vec<_> = (0..LARGE)
        .map(|index| calls(index, large.clone()))
        .collect();
    until("calls with their tool", |page| {
        let tool = [("gen_ai_tool_name", "hang")];
        page.value("fanfare_tool_active_calls", &tool) == 1.0 + LARGE as f64
    })
    .await;
    for call in large {
        call.abort();
    }
    until("cancelled calls", |page| {
        page.value("fanfare_in_flight_calls", &[]) == 1.0
    })
    .await;
    let page = Page::of_process(&server).await;
    let held = page.value("fanfare_buffered_bytes", &[]);
    // The service's windows let some of it through.
    assert!(held >= BYTES as f64, "{held}");

    tools.signal(Signal::SIGCONT);
    until("memory", |page| {
        page.value("fanfare_buffered_bytes", &[]) < 1e6
    })
    .await;
    other.abort();
}
