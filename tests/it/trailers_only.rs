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
    let timed = |path, timeout| post_with(path, "grpc-timeout", timeout);
    let snappy = post_with(EXECUTE, "grpc-encoding", "snappy");
    let unknown_service = framed_bytes(b"\x0a\x07no.such");
    let garbage = framed_bytes(&[0xff; 9]);
    let empty = || framed(&request(Vec::new()));
    let half = || one("tool").slice(..3);
    let over = || Bytes::from_static(&[0, 0xff, 0xff, 0xff, 0xff]);
    let not_found = vec![("health of nobody", post(CHECK), unknown_service)];
    let unimplemented = vec![
        ("health without a message", post(CHECK), Bytes::new()),
        (
            "health: no method",
            post("/grpc.health.v1.Health/No"),
            one(""),
        ),
        (
            "reflection: no method",
            post("/grpc.reflection.v1.ServerReflection/No"),
            one(""),
        ),
        ("nobody", post("/grpc.nobody/No"), one("")),
        (
            "no method",
            post("/fanfare.v1.OrchestratorService/No"),
            one(""),
        ),
        ("no path", post("/"), one("")),
        ("a compression that nobody offered", snappy, one("tool")),
    ];
    let invalid = vec![
        ("health: garbage", post(CHECK), garbage),
        ("health: bad timeout", timed(CHECK, "x"), one("")),
        ("reflection: bad timeout", timed(REFLECTION, "x"), one("")),
        ("no calls", post(EXECUTE), empty()),
        ("stream: no calls", post(STREAM), empty()),
        ("half a prefix", post(EXECUTE), half()),
        ("stream: half a prefix", post(STREAM), half()),
        ("list: half a prefix", post(LIST), half()),
        ("bad timeout", timed(EXECUTE, "x"), one("tool")),
    ];
    let too_large = vec![
        ("health: too large", post(CHECK), over()),
        ("too large", post(EXECUTE), over()),
        ("stream: too large", post(STREAM), over()),
    ];
    let expired = vec![
        ("health: no time", timed(CHECK, "0n"), one("")),
        ("no time", timed(STREAM, "0n"), one("tool")),
    ];
    for (code, cases) in [
        (Code::NotFound, not_found),
        (Code::Unimplemented, unimplemented),
        (Code::InvalidArgument, invalid),
        (Code::ResourceExhausted, too_large),
        (Code::DeadlineExceeded, expired),
    ] {
        for (what, request, body) in cases {
            let server = server(&config()).await;
            assert_one_frame(what, server, request, body, Some(code)).await;
        }
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
