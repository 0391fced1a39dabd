use std::sync::Arc;

use bytes::Bytes;
use fanfare::{config::Config, net::Connect as _, server::Server};
use http::Request;
use tokio::time::timeout;
use tonic::Code;

use crate::support::{
    SECOND, call, config,
    pipes::PipeConnect,
    process::PATIENCE,
    raw::{Answer, EXECUTE, RawClient, STREAM, framed, framed_bytes, post, post_with},
    request,
    tools::{Scripted, catalog},
    wiretap::{HEADERS, RST_STREAM, Tape},
};

const CHECK: &str = "/grpc.health.v1.Health/Check";
const LIST: &str = "/fanfare.v1.OrchestratorService/ListTools";
const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";

fn one(name: &str) -> Bytes {
    framed(&request(vec![call("", name)]))
}

/// Asks a server of its own, and checks that the answer is a single HEADERS frame
/// that ends the stream (PROTOCOL-HTTP2.md, Trailers-Only).
async fn assert_one_frame(
    what: &str,
    server: Server,
    request: Request<()>,
    body: Bytes,
    code: Option<Code>,
) {
    let server = Arc::new(server);
    let tape = Tape::default();
    let pipe = PipeConnect(Arc::clone(&server)).connect().await.unwrap();
    let client = RawClient::over(tape.of(pipe), &h2::client::Builder::new()).await;
    let response = client.send(request, body).await.unwrap();
    let stream = response.stream_id().as_u32();

    let answer = timeout(2 * PATIENCE, Answer::read(response)).await;

    let answer = answer.unwrap_or_else(|_| panic!("no answer: {what}"));
    let answer = answer.unwrap_or_else(|error| panic!("{error}: {what}"));
    match code {
        Some(code) => assert_eq!(answer.code(), code, "{what}"),
        None => assert!(answer.http.is_client_error(), "{what}: {answer:?}"),
    }
    let mut frames = tape.of_stream(stream);
    // The rest of the request may be declined after that.
    frames.retain(|frame| frame.kind != RST_STREAM);
    assert_eq!(frames.len(), 1, "{what}: {frames:?}");
    assert_eq!(frames[0].kind, HEADERS, "{what}: {frames:?}");
    assert!(frames[0].ends_stream(), "{what}: {frames:?}");
}

async fn server(config: &Config) -> Server {
    let hangs = Scripted::answers_after(3600 * SECOND);
    let tools = catalog([("tool", Scripted::answers_with(1)), ("hangs", hangs)]);
    Server::orchestrator(config, tools).await
}

#[tokio::test(start_paused = true)]
async fn an_error_is_one_frame_whoever_finds_it() {
    let mut untyped = post(EXECUTE);
    untyped.headers_mut().remove("content-type");
    let mut get = post(EXECUTE);
    *get.method_mut() = http::Method::GET;
    let unknown_service = framed_bytes(b"\x0a\x07no.such");
    let empty = || framed(&request(Vec::new()));
    let half = || one("tool").slice(..3);
    let over = || Bytes::from_static(&[0, 0xff, 0xff, 0xff, 0xff]);
    let cases = [
        // (what, request, body, code)
        (
            "health of nobody",
            post(CHECK),
            unknown_service,
            Code::NotFound,
        ),
        (
            "health without a message",
            post(CHECK),
            Bytes::new(),
            Code::Unimplemented,
        ),
        (
            "health: garbage",
            post(CHECK),
            framed_bytes(&[0xff; 9]),
            Code::InvalidArgument,
        ),
        (
            "health: too large",
            post(CHECK),
            over(),
            Code::ResourceExhausted,
        ),
        (
            "health: no method",
            post("/grpc.health.v1.Health/No"),
            one(""),
            Code::Unimplemented,
        ),
        (
            "health: bad timeout",
            post_with(CHECK, "grpc-timeout", "x"),
            one(""),
            Code::InvalidArgument,
        ),
        (
            "health: no time",
            post_with(CHECK, "grpc-timeout", "0n"),
            one(""),
            Code::DeadlineExceeded,
        ),
        (
            "reflection: bad timeout",
            post_with(REFLECTION, "grpc-timeout", "x"),
            one(""),
            Code::InvalidArgument,
        ),
        (
            "reflection: no method",
            post("/grpc.reflection.v1.ServerReflection/No"),
            one(""),
            Code::Unimplemented,
        ),
        (
            "nobody",
            post("/grpc.nobody/No"),
            one(""),
            Code::Unimplemented,
        ),
        (
            "no method",
            post("/fanfare.v1.OrchestratorService/No"),
            one(""),
            Code::Unimplemented,
        ),
        ("no path", post("/"), one(""), Code::Unimplemented),
        ("no calls", post(EXECUTE), empty(), Code::InvalidArgument),
        (
            "stream: no calls",
            post(STREAM),
            empty(),
            Code::InvalidArgument,
        ),
        (
            "half a prefix",
            post(EXECUTE),
            half(),
            Code::InvalidArgument,
        ),
        (
            "stream: half a prefix",
            post(STREAM),
            half(),
            Code::InvalidArgument,
        ),
        (
            "list: half a prefix",
            post(LIST),
            half(),
            Code::InvalidArgument,
        ),
        ("too large", post(EXECUTE), over(), Code::ResourceExhausted),
        (
            "stream: too large",
            post(STREAM),
            over(),
            Code::ResourceExhausted,
        ),
        (
            "bad timeout",
            post_with(EXECUTE, "grpc-timeout", "x"),
            one("tool"),
            Code::InvalidArgument,
        ),
        (
            "no time",
            post_with(STREAM, "grpc-timeout", "0n"),
            one("tool"),
            Code::DeadlineExceeded,
        ),
        (
            "a compression that nobody offered",
            post_with(EXECUTE, "grpc-encoding", "snappy"),
            one("tool"),
            Code::Unimplemented,
        ),
    ];
    for (what, request, body, code) in cases {
        let server = server(&config()).await;
        assert_one_frame(what, server, request, body, Some(code)).await;
    }
    for (what, request) in [("no gRPC", untyped), ("GET", get)] {
        assert_one_frame(what, server(&config()).await, request, one("tool"), None).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_turned_off_says_so_in_one_frame() {
    let mut config = config();
    config.server.reflection = false;
    for version in ["v1", "v1alpha"] {
        let path = format!("/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo");
        let unimplemented = Some(Code::Unimplemented);
        let list = framed_bytes(b"\x3a\x00");
        assert_one_frame(
            version,
            server(&config).await,
            post(&path),
            list,
            unimplemented,
        )
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_shed_request_is_one_frame() {
    let mut config = config();
    config.limits.max_calls_per_request = 1;
    config.limits.max_in_flight_calls = 1;
    for path in [EXECUTE, STREAM] {
        let server = server(&config).await;
        let connection = tokio::io::duplex(1 << 16);
        tokio::spawn(server.serve_connection(connection.1));
        let busy = RawClient::over(connection.0, &h2::client::Builder::new()).await;
        let first = busy.send(post(STREAM), one("hangs")).await.unwrap();
        // Its headers say that it was taken on.
        first.await.unwrap();

        let exhausted = Some(Code::ResourceExhausted);
        assert_one_frame(path, server, post(path), one("tool"), exhausted).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_deadline_while_the_request_comes_is_one_frame() {
    let server = Arc::new(server(&config()).await);
    let tape = Tape::default();
    let pipe = PipeConnect(Arc::clone(&server)).connect().await.unwrap();
    let client = RawClient::over(tape.of(pipe), &h2::client::Builder::new()).await;
    for path in [EXECUTE, STREAM, CHECK] {
        let timed = post_with(path, "grpc-timeout", "1S");
        let (response, mut body) = client.begin(timed, false).await.unwrap();
        let stream = response.stream_id().as_u32();
        body.send_data(one("tool").slice(..7), false).unwrap();

        let answer = Answer::read(response).await.unwrap();

        assert_eq!(answer.code(), Code::DeadlineExceeded);
        let frames = tape.of_stream(stream);
        assert_eq!(frames[0].kind, HEADERS);
        assert!(frames[0].ends_stream(), "{path}: {frames:?}");
    }
}
