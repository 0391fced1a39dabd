use tokio::time::{Instant, sleep};

use super::*;
use crate::support::{SECOND, ms, raw::next_data};

const WATCH: &str = "/grpc.health.v1.Health/Watch";
const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
const MOST: usize = 8;

/// A stream that has begun: its first message has come, and its request goes on.
async fn begin(
    client: &RawClient,
    request: http::Request<()>,
) -> Result<(h2::RecvStream, h2::SendStream<Bytes>), Status> {
    let body = match request.uri().path() {
        WATCH => framed_bytes(&[]),
        // What is there?
        _ => framed_bytes(b"\x3a\x00"),
    };
    let is_watch = request.uri().path() == WATCH;
    let (response, mut send) = client.begin(request, false).await.unwrap();
    send.send_data(body, is_watch).unwrap();
    let response = response.await.unwrap();
    if let Some(status) = Status::from_header_map(response.headers()) {
        return Err(status);
    }
    let mut stream = response.into_body();
    next_data(&mut stream).await.unwrap().expect("a message");
    Ok((stream, send))
}

/// How the stream ends.
async fn end(mut stream: h2::RecvStream) -> Code {
    while next_data(&mut stream).await.unwrap().is_some() {}
    let trailers = stream.trailers().await.unwrap().expect("trailers");
    Status::from_header_map(&trailers).expect("a status").code()
}

#[tokio::test(start_paused = true)]
async fn a_connection_has_few_and_gets_back_what_ends() {
    let setup = Setup::of(&config()).await;
    let client = setup.connect().await;
    let mut streams = Vec::new();
    for index in 0..MOST {
        let path = if index % 2 == 0 { WATCH } else { REFLECTION };
        streams.push(begin(&client, post(path)).await.unwrap());
    }
    for path in [WATCH, REFLECTION] {
        let refused = begin(&client, post(path)).await.unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted);
    }
    // Nothing else is affected, nor another connection.
    let check = client.ask(post(CHECK), framed_bytes(&[])).await;
    assert_eq!(check.unwrap().code(), Code::Ok);
    assert_serves(&client, good()).await;
    let _another = begin(&setup.connect().await, post(WATCH)).await.unwrap();

    for (_, mut send) in streams.drain(..2) {
        send.send_reset(h2::Reason::CANCEL);
    }
    sleep(ms(10)).await;
    for path in [WATCH, REFLECTION] {
        streams.push(begin(&client, post(path)).await.unwrap());
    }
    assert_eq!(
        begin(&client, post(WATCH)).await.unwrap_err().code(),
        Code::ResourceExhausted
    );
}

#[tokio::test(start_paused = true)]
async fn they_end_with_their_connection() {
    let mut config = config();
    // Give or take a tenth.
    config.server.max_connection_age = 100 * SECOND;
    let setup = Setup::of(&config).await;
    let client = setup.connect().await;
    let start = Instant::now();
    let (watch, watching) = begin(&client, post(WATCH)).await.unwrap();
    let (reflection, asking) = begin(&client, post(REFLECTION)).await.unwrap();

    let (watch, reflection) = tokio::join!(end(watch), end(reflection));

    assert_eq!((watch, reflection), (Code::Unavailable, Code::Unavailable));
    let age = start.elapsed();
    assert!((90 * SECOND..=110 * SECOND).contains(&age), "{age:?}");
    drop((watching, asking));
    client.connection.await.unwrap().unwrap();
    assert!(start.elapsed() <= age + 3 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_connection_ends_although_nobody_reads_on_it() {
    let mut config = config();
    config.server.max_connection_age = 100 * SECOND;
    config.limits.max_request_timeout = 50 * SECOND;
    let setup = Setup::of(&config).await;
    let pipe = PipeConnect(Arc::clone(&setup.server)).connect().await;
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(0);
    let client = RawClient::over(pipe.unwrap(), &builder).await;
    let start = Instant::now();
    let (response, mut send) = client.begin(post(WATCH), false).await.unwrap();
    send.send_data(framed_bytes(&[]), true).unwrap();
    let _unread = response.await.unwrap();

    let _ = client.connection.await.unwrap();

    assert!(start.elapsed() <= (110 + 50 + 30) * SECOND);
}

#[tokio::test(start_paused = true)]
async fn they_end_when_their_caller_said_and_conversations_anyway() {
    let mut config = config();
    config.limits.max_request_timeout = 50 * SECOND;
    let setup = Setup::of(&config).await;
    let client = setup.connect().await;
    let start = Instant::now();
    for (request, expected) in [
        (post_with(WATCH, "grpc-timeout", "7S"), 7 * SECOND),
        (post_with(REFLECTION, "grpc-timeout", "7S"), 7 * SECOND),
        (post(REFLECTION), 50 * SECOND),
    ] {
        let start = Instant::now();
        let (stream, _send) = begin(&client, request).await.unwrap();
        assert_eq!(end(stream).await, Code::DeadlineExceeded);
        assert_eq!(start.elapsed(), expected);
    }
    let (mut watch, _send) = begin(&client, post(WATCH)).await.unwrap();
    let more = tokio::time::timeout(600 * SECOND, next_data(&mut watch)).await;
    assert!(more.is_err(), "{more:?}");
    assert!(start.elapsed() >= 600 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn they_count_against_the_budget() {
    let setup = Setup::of(&with_budget(10 * MIB)).await;
    let mut streams = Vec::new();
    let refused = loop {
        assert!(streams.len() < 1000, "there is no bound");
        let client = setup.connect().await;
        let mut begun = Vec::new();
        for _ in 0..MOST {
            begun.push(begin(&client, post(WATCH)).await);
        }
        let bad = begun.iter().position(Result::is_err);
        streams.extend(
            begun
                .into_iter()
                .map(|stream| (stream, client.sender.clone())),
        );
        if let Some(bad) = bad {
            let at = streams.len() - MOST + bad;
            break streams.swap_remove(at).0.unwrap_err();
        }
    };
    assert_overloaded(&refused);
    assert!((250..=330).contains(&streams.len()), "{}", streams.len());
}
