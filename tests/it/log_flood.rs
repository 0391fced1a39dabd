//! Peers that would have something logged for each frame or call that they send:
//! what is written has a bound, what is left out is counted, and nothing else is
//! lost meanwhile. Lines and bytes are counted, by the real binary.

use std::{io, net::SocketAddr};

use fanfare::pb;
use prost::Message as _;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use crate::support::{
    Seen, call,
    page::Page,
    process::{Log, Process, message},
    request, seen,
};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Length, type, flags and stream (RFC 9113, 4.1).
const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
/// An answer to a PING that nobody sent.
const PING_ACK: [u8; 17] = [0, 0, 8, 6, 1, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
const ACKS: usize = 100_000;
/// At once, and one for each second that a slow machine may take.
const MOST_LINES: usize = 10 + 60;

fn of_pings(line: &Value) -> bool {
    line["target"] == "h2::proto::ping_pong"
}

fn left_out(lines: &[Value]) -> u64 {
    lines
        .iter()
        .filter_map(|line| line["left_out"].as_u64())
        .sum()
}

/// Waits until `count` lines that `matches` takes are written, or were told to be
/// left out; returns those that were written, with the ones that tell.
async fn accounted(log: &Log, count: usize, matches: impl Fn(&Value) -> bool) -> Vec<Value> {
    let all = || {
        let lines = log.all(&matches);
        let written = lines.iter().filter(|line| line["left_out"].is_null());
        let sum = written.count() as u64 + left_out(&lines);
        (lines, sum)
    };
    let mut seen = 0;
    loop {
        let (lines, sum) = all();
        if sum >= count as u64 {
            assert_eq!(sum, count as u64);
            return lines;
        }
        seen = seen.max(lines.len()) + 1;
        log.wait_for_all(&format!("{sum} of {count} lines"), seen, &matches)
            .await;
    }
}

/// The results of these calls.
async fn results_of(server: &Process, calls: Vec<pb::ToolCall>) -> Vec<pb::ToolExecutionResult> {
    let mut client = server.client().await;
    let response = client.execute_tools(request(calls)).await.unwrap();
    response.into_inner().results
}

async fn send_acks(stream: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    let some = PING_ACK.repeat(1000);
    for _ in 0..ACKS / 1000 {
        stream.write_all(&some).await?;
    }
    Ok(())
}

fn assert_few(lines: &[Value]) {
    assert!(lines.len() <= MOST_LINES, "{} lines", lines.len());
    let report = lines.iter().find(|line| !line["left_out"].is_null());
    let report = report.expect("a line about those left out");
    assert_eq!(report["level"], "WARN");
    let text = message(report);
    assert!(text.contains("more like this in the last"), "{text}");
    let like = report["like"].as_str().unwrap();
    assert!(like.contains("PING ack"), "{like}");
}

#[tokio::test]
async fn answers_to_pings_that_nobody_sent_write_few_lines() {
    const HONEST: usize = 200;
    let tools = Process::demo_tools().await;
    let server = Process::serve_demo("", "", tools.address).await;
    let mut client = server.client().await;

    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(PREFACE).await.unwrap();
    stream.write_all(&SETTINGS).await.unwrap();
    let (mut answers, mut frames) = stream.into_split();
    let flood = tokio::spawn(async move { send_acks(&mut frames).await.map(|()| frames) });
    tokio::spawn(async move { while answers.read(&mut [0; 1024]).await.is_ok_and(|n| n > 0) {} });
    for _ in 0..HONEST {
        let response = client.execute_tools(request(vec![call("", "echo")])).await;
        response.unwrap();
    }
    flood.await.unwrap().expect("all of them are taken");

    assert_few(&accounted(server.log(), ACKS, of_pings).await);
    let served = |line: &Value| line["target"] == "fanfare::access" && line["code"] == "OK";
    let lines = server.log().wait_for_all("requests", HONEST, served).await;
    assert_eq!(lines.len(), HONEST);
}

/// A tool service that takes calls and answers with what nobody asked for.
async fn hostile_tool_service() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            stream.write_all(&SETTINGS).await.unwrap();
            // No call is answered, so it may be hung up on.
            let _ = send_acks(&mut stream).await;
            while stream.read(&mut [0; 1024]).await.is_ok_and(|n| n > 0) {}
        }
    });
    address
}

#[tokio::test]
async fn a_tool_service_can_not_write_the_log_either() {
    let tools = hostile_tool_service().await;
    let server = Process::serve_demo("", "", tools).await;
    let call = pb::ToolCall {
        timeout: Some(prost_types::Duration {
            seconds: 1,
            nanos: 0,
        }),
        ..call("", "echo")
    };

    let results = results_of(&server, vec![call]).await;

    assert!(matches!(seen(&results[0]), Seen::Err(..)));
    let told = |line: &Value| of_pings(line) && !line["left_out"].is_null();
    let report = server.log().wait_for("what was left out", told).await;
    assert!(left_out(&[report]) > 1000);
    assert_few(&server.log().all(of_pings));
}

#[tokio::test]
async fn calls_that_fail_write_few_lines() {
    const REQUESTS: usize = 40;
    const CALLS: usize = 255;
    let tools = Process::demo_tools().await;
    let server = Process::serve_demo("", "", tools.address).await;
    let mut client = server.client().await;
    // A failure of another kind does not drown in them.
    let calls = |request: usize| -> Vec<_> {
        let name = |index| format!("x{request}.{index}");
        let unknown = (0..CALLS).map(|index| call("", &name(index)));
        unknown.chain([call("known", "fail")]).collect()
    };

    let mut sent = 0;
    for index in 0..REQUESTS {
        let request = request(calls(index));
        sent += request.encoded_len();
        let response = client.execute_tools(request).await.unwrap();
        assert_eq!(response.into_inner().results.len(), CALLS + 1);
    }
    let access = |line: &Value| line["target"] == "fanfare::access";
    let failed = |line: &Value| access(line) && line["code"].is_null();
    let lines = accounted(server.log(), REQUESTS * (CALLS + 1), failed).await;
    assert!(lines.len() <= 2 * (20 + 2 * 60), "{} lines", lines.len());
    let known = |line: &Value| line["id"] == "known";
    server.log().wait_for_all("known", 20, known).await;
    let unknown = |line: &Value| {
        let like = line["like"].as_str().unwrap_or_default();
        like.starts_with("a call failed tool=x") && like.contains("reason=UNKNOWN_TOOL")
    };
    server.log().wait_for("what is left out", unknown).await;
    let served = |line: &Value| access(line) && line["code"] == "OK";
    let requests = server
        .log()
        .wait_for_all("requests", REQUESTS, served)
        .await;
    assert_eq!(requests.len(), REQUESTS);
    let written: usize = server
        .log()
        .all(failed)
        .iter()
        .map(|line| line.to_string().len())
        .sum();
    assert!(written < sent, "{written} bytes for {sent}");
    let page = Page::of_process(&server).await;
    let dropped = page.value(
        "fanfare_log_dropped_lines_total",
        &[("error_type", "throttled")],
    );
    assert_eq!(dropped as u64, left_out(&lines));
}

#[tokio::test]
async fn lines_that_were_asked_for_are_not_left_out() {
    const CALLS: usize = 100;
    let tools = Process::demo_tools().await;
    let demo = fanfare::demo::config_toml(tools.address);
    let toml = format!("[server]\nlisten = \"127.0.0.1:0\"\n{demo}");
    let debug = [("RUST_LOG", "info,h2::codec=debug")];
    let server = Process::serve_in(&toml, &debug).await;

    for _ in 0..CALLS {
        let results = results_of(&server, vec![call("", "echo")]).await;
        assert!(matches!(seen(&results[0]), Seen::Ok(_)));
    }

    // HEADERS from us and to us for each, DATA as well.
    let frames = |line: &Value| line["target"] == "h2::codec::framed_read";
    server.log().wait_for_all("frames", 2 * CALLS, frames).await;
    assert_eq!(left_out(&server.log().all(frames)), 0);
}
