use std::sync::Arc;

use fanfare::{net::Connect as _, server::Server};
use tokio::time::Instant;

use crate::support::{
    SECOND,
    by_hand::{ByHand, claims},
    call, config, ms,
    pipes::PipeConnect,
    raw::{EXECUTE, STREAM, framed},
    request,
    tools::{Scripted, catalog},
    wiretap::RST_STREAM,
};

const GRPC: &str = "application/grpc";
const GO_AWAY: u8 = 7;
/// More than h2 forgives on one connection, of each of its kinds of errors.
const REFUSALS: usize = 3000;
const BODY_BYTES: usize = 64 << 10;

async fn connection() -> (Arc<Server>, ByHand) {
    let mut config = config();
    config.limits.max_request_timeout = 3600 * SECOND;
    let tools = catalog([("slow", Scripted::answers_after(20 * SECOND))]);
    let server = Arc::new(Server::orchestrator(&config, tools).await);
    let pipe = PipeConnect(Arc::clone(&server)).connect().await.unwrap();
    (server, ByHand::over(pipe).await)
}

/// Begins a call that takes 20 s.
async fn long_call(client: &mut ByHand) -> u32 {
    let stream = client.open(EXECUTE, GRPC, &[]).await;
    let body = framed(&request(vec![call("", "slow")]));
    client.data(stream, &body, true).await;
    stream
}

/// The connection is as if nothing had happened, and the long call is answered.
async fn assert_survives(client: &mut ByHand, long: u32) {
    client.ping().await;
    assert!(!client.has_ended());
    let frames = client.answer(long).await;
    assert!(frames.iter().all(|frame| frame.kind != RST_STREAM));
    let bad = client.frames();
    assert!(bad.iter().all(|frame| frame.kind != GO_AWAY));
}

/// Each is refused at its headers or its first bytes; its body comes when it has its
/// answer, as it does when it was under way.
#[tokio::test(start_paused = true)]
async fn bodies_of_refused_requests_do_not_cost_the_connection() {
    let (_server, mut client) = connection().await;
    let long = long_call(&mut client).await;
    let no_method = "/fanfare.v1.OrchestratorService/No";
    let body = vec![0; BODY_BYTES];
    for index in 0..REFUSALS {
        let (stream, first) = match index % 6 {
            0 => (client.open(EXECUTE, "text/html", &[]).await, None),
            1 => (client.open(no_method, GRPC, &[]).await, None),
            2 => {
                let bad = [("grpc-timeout", "bogus")];
                (client.open(EXECUTE, GRPC, &bad).await, None)
            }
            3 => {
                let bad = [("grpc-encoding", "snappy")];
                (client.open(STREAM, GRPC, &bad).await, None)
            }
            4 => {
                let large = Some(claims(u32::MAX));
                (client.open(EXECUTE, GRPC, &[]).await, large)
            }
            _ => {
                let second = framed(&request(Vec::new())).repeat(2);
                (client.open(STREAM, GRPC, &[]).await, Some(second.into()))
            }
        };
        if let Some(first) = first {
            client.data(stream, &first, false).await;
        }
        client.answer(stream).await;
        client.data(stream, &body, true).await;
    }
    assert_survives(&mut client, long).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_read_of_a_refused_body_has_a_bound_in_time() {
    let (_server, mut client) = connection().await;
    let stream = client.open(EXECUTE, "text/html", &[]).await;
    let start = Instant::now();
    client.answer(stream).await;
    loop {
        client.data(stream, &[0; 100], false).await;
        client.ping().await;
        let frames = client.frames().into_iter();
        let mut of_stream = frames.filter(|frame| frame.stream == stream);
        if of_stream.any(|frame| frame.kind == RST_STREAM) {
            break;
        }
        assert!(start.elapsed() < 10 * SECOND, "it is read for ever");
        tokio::time::sleep(ms(100)).await;
    }
    assert!(start.elapsed() >= 2 * SECOND);
    assert!(!client.has_ended());
}

#[tokio::test(start_paused = true)]
async fn what_is_read_of_a_refused_body_has_a_bound_in_bytes() {
    let (_server, mut client) = connection().await;
    let stream = client.open(EXECUTE, "text/html", &[]).await;
    client.answer(stream).await;
    let mut sent = 0;
    let most = config().limits.max_request_bytes + (1 << 20);
    loop {
        client.data(stream, &[0; BODY_BYTES], false).await;
        sent += BODY_BYTES;
        client.ping().await;
        let frames = client.frames().into_iter();
        let mut of_stream = frames.filter(|frame| frame.stream == stream);
        if of_stream.any(|frame| frame.kind == RST_STREAM) {
            break;
        }
        assert!(sent < most, "{sent} bytes are read");
    }
    assert!(sent > config().limits.max_request_bytes);
    assert!(!client.has_ended());
}

/// h2 ends a connection after a hundred.
#[tokio::test(start_paused = true)]
async fn empty_frames_do_not_cost_the_connection() {
    let (_server, mut client) = connection().await;
    let long = long_call(&mut client).await;
    for _ in 0..REFUSALS {
        let stream = client.open(EXECUTE, GRPC, &[]).await;
        client.empty_data(stream).await;
        let body = framed(&request(vec![call("", "nobody")]));
        client.data(stream, &body, true).await;
        client.answer(stream).await;
    }
    assert_survives(&mut client, long).await;
}
