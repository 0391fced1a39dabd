//! Requests that are not served. Only an `ErrorInfo` tells a caller whether tools may have
//! run: the same codes come from its own library when a connection is lost.

use std::{
    future::ready,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use fanfare::{
    catalog::Catalog, config::Config, demo::tools::DemoTools, net::Connect as _, server::Server,
};
use http::Request;
use serde_json::json;
use tokio::net::TcpListener;
use tonic::{Code, Status};
use tonic_types::{StatusExt as _, pb};

use crate::support::{
    SECOND, bare, call, call_with, config, error_info,
    pipes::{PipeConnect, service},
    raw::{Answer, EXECUTE, RawClient, STREAM, framed, framed_bytes, post, post_with},
    request,
    tools::{Scripted, catalog},
};

/// Code, reason, may a tool have run, does the same request sent again have a chance?
type Told = (Code, String, String, bool);

fn told(status: &Status) -> Told {
    use prost::Message as _;
    let whole = pb::Status::decode(status.details()).expect("a google.rpc.Status");
    assert_eq!(
        (whole.code, &*whole.message),
        (status.code() as i32, status.message())
    );
    let info = error_info(&whole);
    let mut metadata = info.metadata;
    let effect = metadata.remove("effect").expect("effect");
    let retryable = metadata.remove("retryable").expect("retryable");
    assert!(metadata.is_empty(), "{metadata:?}");
    (status.code(), info.reason, effect, retryable == "true")
}

fn refused(code: Code, reason: &str, retryable: bool) -> Told {
    (code, reason.to_owned(), "not_started".to_owned(), retryable)
}

/// Two calls in flight, 10 kB a request, and little memory.
fn small() -> Config {
    let mut config = config();
    config.limits.max_in_flight_calls = 2;
    config.limits.max_request_bytes = 10_000;
    config
}

/// `tool` counts its calls.
fn counting(calls: &Arc<AtomicUsize>) -> Catalog {
    let calls = Arc::clone(calls);
    let tool = Scripted::new(move |_| {
        calls.fetch_add(1, Ordering::SeqCst);
        ready(Ok(Bytes::new()))
    });
    catalog([("tool", tool)])
}

fn of_calls(count: usize) -> Bytes {
    framed(&request(vec![call("", "tool"); count]))
}

type Case = (&'static str, fn(&str) -> Request<()>, Bytes);

/// By what their callers are told.
fn cases() -> Vec<(Told, Vec<Case>)> {
    let invalid = |code| refused(code, "INVALID_REQUEST", false);
    let mut flagged = of_calls(1).to_vec();
    flagged[0] = 7;
    // calls[0].name, not UTF-8.
    let not_utf8 = framed_bytes(&[0x0a, 4, 0x12, 2, 0xff, 0xfe]);
    let large = framed_bytes(&[0; 10_001]);
    let soon = |path: &_| post_with(path, "grpc-timeout", "soon");
    let snappy = |path: &_| post_with(path, "grpc-encoding", "snappy");
    let long = |path: &_| post_with(path, "x-long", vec![b'x'; 20_000]);
    let no_time = |path: &_| post_with(path, "grpc-timeout", "0n");
    let malformed: Vec<Case> = vec![
        ("no calls", post, of_calls(0)),
        ("257 calls", post, of_calls(257)),
        ("a timeout that can't be read", soon, of_calls(1)),
        ("garbage", post, framed_bytes(&[0xff; 64])),
        ("a name that is no UTF-8", post, not_utf8),
        ("half a message", post, of_calls(1).slice(..7)),
        ("a flag of 7", post, flagged.into()),
    ];
    let unknown: Vec<Case> = vec![
        ("no message", post, Bytes::new()),
        ("two messages", post, of_calls(1).repeat(2).into()),
        ("a compression that nobody knows", snappy, of_calls(1)),
    ];
    let too_large: Vec<Case> = vec![
        ("too long", post, large),
        ("headers that are too long", long, of_calls(1)),
    ];
    let exhausted = Code::ResourceExhausted;
    let expired = refused(Code::DeadlineExceeded, "DEADLINE_EXCEEDED", true);
    vec![
        (invalid(Code::InvalidArgument), malformed),
        (invalid(Code::Unimplemented), unknown),
        (refused(exhausted, "REQUEST_TOO_LARGE", false), too_large),
        (expired, vec![("no time left", no_time, of_calls(1))]),
        (
            refused(exhausted, "OVERLOADED", true),
            vec![("three calls where two may be", post, of_calls(3))],
        ),
    ]
}

#[tokio::test(start_paused = true)]
async fn whatever_is_refused_says_that_no_tool_was_called() {
    let calls = Arc::default();
    let server = Server::orchestrator(&small(), counting(&calls)).await;
    let client = RawClient::of_server(&Arc::new(server)).await;
    for path in [EXECUTE, STREAM] {
        let cases = cases().into_iter().flat_map(|(told, cases)| {
            let cases = cases.into_iter();
            cases.map(move |case| (case, told.clone()))
        });
        for ((what, asked, body), expected) in cases {
            let answer = client.ask(asked(path), body).await.unwrap();
            let status = answer.status();
            assert_eq!(told(&status), expected, "{path}: {what}");
            let violations = status.get_details_bad_request().is_some();
            let malformed = status.message().contains("malformed");
            let invalid = status.code() == Code::InvalidArgument;
            assert_eq!(violations, invalid && !malformed, "{what}");
            let delay = status.get_details_retry_info().is_some();
            assert_eq!(delay, expected.1 == "OVERLOADED", "{what}");
        }
    }
    let nobody = "/fanfare.v1.OrchestratorService/Nothing";
    let answer = client.ask(post(nobody), of_calls(1)).await.unwrap();
    let expected = refused(Code::Unimplemented, "INVALID_REQUEST", false);
    assert_eq!(told(&answer.status()), expected);
    assert_eq!(calls.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn so_does_what_never_became_complete() {
    let calls = Arc::default();
    let server = Server::orchestrator(&config(), counting(&calls)).await;
    let client = RawClient::of_server(&Arc::new(server)).await;
    // By its deadline, or by `receive_timeout`.
    for asked in [post_with(EXECUTE, "grpc-timeout", "1S"), post(STREAM)] {
        let (response, mut body) = client.begin(asked, false).await.unwrap();
        body.send_data(of_calls(1).slice(..7), false).unwrap();
        let status = Answer::read(response).await.unwrap().status();
        let expected = refused(Code::DeadlineExceeded, "DEADLINE_EXCEEDED", true);
        assert_eq!(told(&status), expected);
    }
    assert_eq!(calls.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn so_does_what_there_is_no_memory_for() {
    let calls = Arc::default();
    let mut config = config();
    config.limits.max_buffered_bytes = 64 << 10;
    let server = Server::orchestrator(&config, counting(&calls)).await;
    let client = RawClient::of_server(&Arc::new(server)).await;
    let large = pb_call(100_000);
    // When it came, and when its calls are taken on.
    for body in [framed(&request(vec![large])), of_calls(200)] {
        let status = client.ask(post(EXECUTE), body).await.unwrap().status();
        let expected = refused(Code::ResourceExhausted, "OVERLOADED", true);
        assert_eq!(told(&status), expected);
        assert!(status.get_details_retry_info().is_some());
    }
    assert_eq!(calls.load(Ordering::SeqCst), 0);
}

fn pb_call(bytes: usize) -> fanfare::pb::ToolCall {
    call_with("", "tool", json!({"text": "x".repeat(bytes)}))
}

#[tokio::test(start_paused = true)]
async fn a_server_that_drains_says_so() {
    let calls = Arc::default();
    let server = Server::orchestrator(&config(), counting(&calls)).await;
    let (pipe, mut gate) = bare::gated(bare::pipe_to(&server));
    let client = RawClient::over(pipe, &h2::client::Builder::new()).await;
    let early = client.send(post(EXECUTE), of_calls(1)).await.unwrap();
    while calls.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    server.run(listener, ready(())).await;

    // What the server says waits behind the gate: a client that knew would not ask.
    gate.forget_written();
    let mut answers = Vec::new();
    for path in [EXECUTE, STREAM] {
        answers.push(client.send(post(path), of_calls(1)).await.unwrap());
    }
    gate.written().await;
    gate.open();

    assert_eq!(Answer::read(early).await.unwrap().code(), Code::Ok);
    for answer in answers {
        let status = Answer::read(answer).await.unwrap().status();
        assert_eq!(told(&status), refused(Code::Unavailable, "DRAINING", true));
    }
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

/// DEADLINE_EXCEEDED and INTERNAL also come when tools were called.
#[tokio::test(start_paused = true)]
async fn what_was_begun_does_not_say_that_it_was_not() {
    let names = ["payload"];
    let (config, catalog) = service(config(), DemoTools::default(), &names).await;
    let server = Arc::new(Server::orchestrator(&config, catalog).await);
    let pipe = PipeConnect(Arc::clone(&server)).connect().await.unwrap();
    let client = RawClient::over(pipe, &h2::client::Builder::new()).await;
    let payload = call_with("", "payload", json!({"bytes": 500_000}));
    let asked = post_with(STREAM, "grpc-timeout", "10S");
    let body = framed(&request(vec![payload; 4]));
    let response = client.send(asked, body).await.unwrap();
    tokio::time::sleep(11 * SECOND).await;

    let answer = Answer::read(response).await.unwrap();

    let (code, reason, effect, retryable) = told(&answer.status());
    assert_eq!(code, Code::DeadlineExceeded);
    assert_eq!(
        (&*reason, &*effect, retryable),
        ("DEADLINE_EXCEEDED", "maybe", false)
    );
}
