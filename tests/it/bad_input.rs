/// Bytes that are no request at all.
mod wire;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use fanfare::{catalog::Catalog, demo::tools::DemoTools, pb, server::Server};
use http::StatusCode;
use prost_types::Duration;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, timeout},
};
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::support::{
    SECOND, Seen, call, config, failed, pipes,
    process::PATIENCE,
    raw::{Answer, EXECUTE, RawClient, STREAM, framed, framed_bytes, loopback, post, post_with},
    request, seen,
    tools::{Scripted, catalog},
};

/// A tool named `tool` that returns its arguments; counts its calls.
fn echo(calls: &Arc<AtomicUsize>) -> Catalog {
    let calls = calls.clone();
    let tool = Scripted::new(move |invocation| {
        calls.fetch_add(1, Ordering::SeqCst);
        async move { Ok(invocation.payload().cloned().unwrap_or_default()) }
    });
    catalog([("tool", tool)])
}

/// A raw client over a pipe, and how many calls the server's tool has had.
async fn raw_client() -> (RawClient, Arc<AtomicUsize>) {
    let calls = Arc::default();
    let server = Server::orchestrator(&config(), echo(&calls)).await;
    (RawClient::of_server(&Arc::new(server)).await, calls)
}

/// A raw client over a socket, the same.
async fn raw_client_on_loopback() -> (RawClient, Arc<AtomicUsize>) {
    let calls = Arc::default();
    let address = loopback(&config(), echo(&calls)).await;
    (RawClient::connect(address).await, calls)
}

fn good() -> Bytes {
    framed(&request(vec![call("", "tool")]))
}

/// The connection still serves.
async fn assert_serves(client: &RawClient) {
    let answer = client.ask(post(EXECUTE), good()).await.unwrap();
    assert_eq!(answer.code(), Code::Ok);
    let response = &answer.messages::<pb::ExecuteToolsResponse>()[0];
    assert_eq!(seen(&response.results[0]), Seen::Ok(().into()));
}

fn with_timeout(seconds: i64, nanos: i32) -> pb::ToolCall {
    pb::ToolCall {
        timeout: Some(Duration { seconds, nanos }),
        ..call("", "tool")
    }
}

#[tokio::test(start_paused = true)]
async fn every_violation_is_told_at_once_with_its_field() {
    let (client, tool_calls) = raw_client().await;
    let request = pb::ExecuteToolsRequest {
        calls: Vec::new(),
        failure_policy: 42,
        concurrency_limit: 1,
        aggregate_view: -1,
    };

    for path in [EXECUTE, STREAM] {
        let answer = client.ask(post(path), framed(&request)).await.unwrap();

        let status = answer.status();
        assert_eq!(status.code(), Code::InvalidArgument);
        let violations = status.get_details_bad_request().unwrap().field_violations;
        let mut fields: Vec<_> = violations.iter().map(|v| v.field.as_str()).collect();
        fields.sort_unstable();
        assert_eq!(fields, ["aggregate_view", "calls", "failure_policy"]);
    }
    assert_eq!(tool_calls.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_told_of_a_bad_request_stays_small() {
    let (client, tool_calls) = raw_client().await;
    let cases = [
        ("no calls", framed(&request(Vec::new()))),
        (
            "100,000 calls",
            framed(&request(vec![call("", ""); 100_000])),
        ),
    ];
    let bad_timeouts = ["x", "\"", "\u{ad}", "%"].map(|text| text.repeat(15_000 / text.len()));

    let mut answers = Vec::new();
    for (what, body) in cases {
        answers.push((what, client.ask(post(EXECUTE), body).await.unwrap()));
    }
    for value in &bad_timeouts {
        let request = post_with(EXECUTE, "grpc-timeout", value);
        answers.push(("15 KB timeout", client.ask(request, good()).await.unwrap()));
    }

    for (what, answer) in answers {
        let status = answer.status();
        assert_eq!(status.code(), Code::InvalidArgument, "{what}");
        let violations = status.get_details_bad_request().unwrap().field_violations;
        assert!((1..=16).contains(&violations.len()), "{what}");
        assert!(status.message().len() <= 1024, "{what}");
        assert!(status.details().len() <= 4096, "{what}");
        let bytes = answer.header_list_bytes();
        assert!(bytes < 8192, "{what}: {bytes} bytes of headers");
    }
    assert_eq!(tool_calls.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_unusual_but_well_formed_is_served() {
    let (client, tool_calls) = raw_client().await;
    let longest = format!("{}-._/9Z", "n".repeat(128 - 6));
    let calls = vec![
        call("", "tool"),
        call("", "tool"),
        call(&"é".repeat(512), "tool"),
        call("x", &longest),
        with_timeout(315_576_000_000, 999_999_999),
    ];
    let body = framed(&request(calls));

    let answer = client.ask(post(EXECUTE), body).await.unwrap();

    assert_eq!(answer.code(), Code::Ok);
    let results = &answer.messages::<pb::ExecuteToolsResponse>()[0].results;
    let unknown = failed(Code::NotFound, "UNKNOWN_TOOL", "not_started");
    let ok = || Seen::Ok(().into());
    let outcomes: Vec<_> = results.iter().map(seen).collect();
    assert_eq!(outcomes, [ok(), ok(), ok(), unknown, ok()]);
    assert_eq!(tool_calls.load(Ordering::SeqCst), 4);
}

#[tokio::test(start_paused = true)]
async fn a_timeout_that_is_over_is_deadline_exceeded_on_the_wire() {
    let (client, tool_calls) = raw_client().await;
    let list = "/fanfare.v1.OrchestratorService/ListTools";
    let health = "/grpc.health.v1.Health/Check";
    for path in [EXECUTE, STREAM, list, health] {
        for value in ["0n", "0u", "0m", "0S", "0H", "00000000M"] {
            let request = post_with(path, "grpc-timeout", value);
            let answer = client.ask(request, good()).await.unwrap();
            assert_eq!(answer.code(), Code::DeadlineExceeded, "{value:?}");
        }
    }
    assert_eq!(tool_calls.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_nanosecond_is_over_before_a_tool_is_called() {
    let (client, tool_calls) = raw_client_on_loopback().await;
    for path in [EXECUTE, STREAM] {
        let request = post_with(path, "grpc-timeout", "1n");
        let answer = client.ask(request, good()).await.unwrap();
        assert_eq!(answer.code(), Code::DeadlineExceeded);
    }
    assert_eq!(tool_calls.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn a_malformed_timeout_is_an_invalid_argument_on_the_wire() {
    let (client, tool_calls) = raw_client().await;
    let bad: [&[u8]; 11] = [
        b"",
        b"S",
        b"1",
        b"1s",
        b"-1S",
        b"+1S",
        b"1.5S",
        b"1 S",
        b"123456789S",
        b"bogus",
        b"\xff\xfe",
    ];
    for path in [EXECUTE, STREAM] {
        let mut requests: Vec<_> = bad
            .iter()
            .map(|value| post_with(path, "grpc-timeout", value))
            .collect();
        let mut twice = post_with(path, "grpc-timeout", "1S");
        twice
            .headers_mut()
            .append("grpc-timeout", "1S".parse().unwrap());
        requests.push(twice);
        for request in requests {
            let sent = format!("{request:?}");
            let status = client.ask(request, good()).await.unwrap().status();
            assert_eq!(status.code(), Code::InvalidArgument, "{sent}");
            let violations = status.get_details_bad_request().unwrap().field_violations;
            assert_eq!(violations[0].field, "grpc-timeout");
        }
    }
    assert_eq!(tool_calls.load(Ordering::SeqCst), 0);

    let longest = post_with(EXECUTE, "grpc-timeout", "99999999H");
    let answer = client.ask(longest, good()).await.unwrap();
    assert_eq!(answer.code(), Code::Ok);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_never_becomes_complete_ends_before_long() {
    let (client, tool_calls) = raw_client().await;
    let longest = config().server.receive_timeout;
    for (request, expected) in [
        (post_with(EXECUTE, "grpc-timeout", "1S"), SECOND),
        (post_with(STREAM, "grpc-timeout", "1S"), SECOND),
        (post(EXECUTE), longest),
    ] {
        let start = Instant::now();
        let (response, mut body) = client.begin(request, false).await.unwrap();
        body.send_data(good().slice(..7), false).unwrap();

        let answer = Answer::read(response).await.unwrap();

        assert_eq!(answer.code(), Code::DeadlineExceeded);
        assert_eq!(start.elapsed(), expected);
    }
    assert_eq!(tool_calls.load(Ordering::SeqCst), 0);
}
