/// Streams that would last as long as their caller likes.
mod open_ended;

use std::{
    io::Write as _,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use fanfare::{config::Config, pb, server::Server, tool::Connect as _};
use flate2::{Compression, write::GzEncoder};
use futures_util::future::join_all;
use tokio::time::{Instant, sleep};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::support::{
    SECOND,
    by_hand::claims,
    call, config, ms,
    pipes::PipeConnect,
    raw::{Answer, EXECUTE, RawClient, STREAM, framed, framed_bytes, post, post_with},
    request,
    tools::{Scripted, registry},
};

const CHECK: &str = "/grpc.health.v1.Health/Check";
const LIST: &str = "/fanfare.v1.OrchestratorService/ListTools";
const MIB: usize = 1 << 20;

struct Setup {
    server: Arc<Server>,
    tool_calls: Arc<AtomicUsize>,
}

impl Setup {
    async fn of(config: &Config) -> Self {
        let tool_calls = Arc::<AtomicUsize>::default();
        let calls = Arc::clone(&tool_calls);
        let tool = Scripted::new(move |invocation| {
            calls.fetch_add(1, Ordering::SeqCst);
            async move { Ok(invocation.call().arguments.clone().unwrap_or_default()) }
        });
        let server = Server::orchestrator(config, registry([("tool", tool)])).await;
        Self {
            server: Arc::new(server),
            tool_calls,
        }
    }

    async fn connect(&self) -> RawClient {
        RawClient::of_server(&self.server).await
    }

    fn tool_calls(&self) -> usize {
        self.tool_calls.load(Ordering::SeqCst)
    }
}

fn good() -> Bytes {
    framed(&request(vec![call("", "tool")]))
}

async fn assert_serves(client: &RawClient, body: Bytes) {
    let answer = client.ask(post(EXECUTE), body).await.unwrap();
    assert_eq!(answer.code(), Code::Ok, "{answer:?}");
    let results = &answer.messages::<pb::ExecuteToolsResponse>()[0].results;
    assert_eq!(results.len(), 1);
}

/// Sends these parts one after the other, each in a frame of its own.
async fn ask_in_parts(client: &RawClient, path: &str, parts: &[&[u8]]) -> Answer {
    let (response, mut body) = client.begin(post(path), false).await.unwrap();
    for part in parts {
        // Declined already, maybe.
        let _ = body.send_data(Bytes::copy_from_slice(part), false);
        tokio::task::yield_now().await;
    }
    let _ = body.send_data(Bytes::new(), true);
    Answer::read(response).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_second_message_is_refused_before_a_tool_is_called() {
    let setup = Setup::of(&config()).await;
    let client = setup.connect().await;
    let good = good();
    let empty = framed_bytes(&[]);
    for path in [EXECUTE, STREAM, LIST, CHECK] {
        // No message of health has these fields, which it ignores.
        let first = if path == CHECK { &empty } else { &good };
        for (what, second) in [
            ("another", &good[..]),
            ("an empty one", &empty),
            ("half a prefix", &good[..3]),
            ("garbage", &[0xff; 100]),
        ] {
            let together = [first, second].concat();
            let answer = client.ask(post(path), together).await.unwrap();
            assert_eq!(answer.code(), Code::Internal, "{path}: {what}");
            let answer = ask_in_parts(&client, path, &[first, second]).await;
            assert_eq!(answer.code(), Code::Internal, "{path}: {what}, apart");
        }
    }
    assert_eq!(setup.tool_calls(), 0);
    assert_serves(&client, good).await;
}

#[tokio::test(start_paused = true)]
async fn a_request_may_come_in_any_pieces() {
    let setup = Setup::of(&config()).await;
    let client = setup.connect().await;
    let arguments: Vec<u8> = (0..100_000_u32).map(|index| index as u8).collect();
    let whole = framed(&request(vec![pb::ToolCall {
        arguments: Some(arguments.clone().into()),
        ..call("", "tool")
    }]));
    for size in [1, 3, 5, 7, 1000, 16 << 10, 1 << 20] {
        let cut = if size == 1 { &good()[..] } else { &whole[..] };
        let parts: Vec<&[u8]> = cut.chunks(size).collect();

        let answer = ask_in_parts(&client, EXECUTE, &parts).await;

        assert_eq!(answer.code(), Code::Ok, "{size}");
        if size > 1 {
            let response = &answer.messages::<pb::ExecuteToolsResponse>()[0];
            let outcome = response.results[0].outcome.clone().unwrap();
            let expected =
                pb::tool_execution_result::Outcome::Observation(arguments.clone().into());
            assert!(outcome == expected, "{size}: other bytes");
        }
    }
}

fn gzip(message: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(message).unwrap();
    encoder.finish().unwrap()
}

/// A message with the flag that says that it is compressed.
fn compressed(message: &[u8]) -> Bytes {
    let mut frame = framed_bytes(message).to_vec();
    frame[0] = 1;
    frame.into()
}

#[tokio::test(start_paused = true)]
async fn compressed_requests_are_understood_within_the_limits() {
    let mut config = config();
    config.limits.max_request_bytes = MIB;
    let setup = Setup::of(&config).await;
    let client = setup.connect().await;
    let zipped = |path| post_with(path, "grpc-encoding", "gzip");
    let message = good().slice(5..);
    let corrupt = gzip(&message)[..10].to_vec();
    let exact = request(vec![pb::ToolCall {
        arguments: Some(vec![7; MIB - 100].into()),
        ..call("", "tool")
    }]);
    let exact = framed(&exact).slice(5..);
    // 1 MB that stands for 1 GB.
    let bomb = gzip(&[0; MIB]).repeat(900);
    let cases = [
        ("gzip", compressed(&gzip(&message)), Code::Ok),
        ("not this one", good(), Code::Ok),
        ("a large one", compressed(&gzip(&exact)), Code::Ok),
        ("nothing", compressed(&[]), Code::Internal),
        ("cut off", compressed(&corrupt), Code::Internal),
        ("no gzip", compressed(&message), Code::Internal),
        (
            "too large",
            compressed(&gzip(&[0; MIB + 1])),
            Code::ResourceExhausted,
        ),
        ("a bomb", compressed(&bomb), Code::ResourceExhausted),
        (
            "empty calls",
            compressed(&gzip(&b"\x0a\x00".repeat(257))),
            Code::InvalidArgument,
        ),
    ];
    let mut served = 0;
    for (what, body, code) in cases {
        for path in [EXECUTE, STREAM] {
            let answer = client.ask(zipped(path), body.clone()).await.unwrap();
            assert_eq!(answer.code(), code, "{what}");
            served += usize::from(code == Code::Ok);
            let offered = &answer.headers["grpc-accept-encoding"];
            assert_eq!(offered, "identity,gzip", "{what}");
        }
    }
    assert_eq!(setup.tool_calls(), served);
    for path in [LIST, CHECK] {
        let body = compressed(&gzip(&[]));
        let answer = client.ask(zipped(path), body).await.unwrap();
        assert_eq!(answer.code(), Code::Ok, "{path}");
    }
    for other in ["snappy", "gzip,identity", "deflate", ""] {
        let request = post_with(EXECUTE, "grpc-encoding", other);
        let answer = client.ask(request, good()).await.unwrap();
        assert_eq!(answer.code(), Code::Unimplemented, "{other:?}");
        assert_eq!(answer.headers["grpc-accept-encoding"], "identity,gzip");
    }
    // The flag alone does not say how.
    let answer = client.ask(post(EXECUTE), compressed(&gzip(&message))).await;
    assert_eq!(answer.unwrap().code(), Code::Internal);
}

#[tokio::test(start_paused = true)]
async fn calls_are_counted_before_they_are_decoded() {
    let setup = Setup::of(&config()).await;
    let client = setup.connect().await;
    let two_million = framed_bytes(&b"\x0a\x00".repeat(2 * MIB));
    for path in [EXECUTE, STREAM] {
        let answer = client.ask(post(path), two_million.clone()).await.unwrap();
        let status = answer.status();
        assert_eq!(status.code(), Code::InvalidArgument);
        let violations = status.get_details_bad_request().unwrap().field_violations;
        assert_eq!(violations[0].field, "calls");
        let description = &violations[0].description;
        assert!(description.contains("at most 256 calls"), "{description}");
    }
}

fn assert_overloaded(status: &Status) {
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    let info = status.get_details_error_info().expect("an ErrorInfo");
    assert_eq!((&*info.reason, &*info.domain), ("OVERLOADED", "fanfare"));
    let retry = status.get_details_retry_info().expect("a RetryInfo");
    assert!(retry.retry_delay.is_some_and(|delay| !delay.is_zero()));
}

/// So much that the least that is allowed has room.
fn with_budget(bytes: usize) -> Config {
    let mut config = config();
    config.limits.max_buffered_bytes = bytes;
    config
}

#[tokio::test(start_paused = true)]
async fn what_is_claimed_takes_nothing() {
    let setup = Setup::of(&with_budget(32 * MIB)).await;
    let client = setup.connect().await;
    let start = Instant::now();
    let mut waiting = Vec::new();
    for _ in 0..100 {
        let (response, mut body) = client.begin(post(EXECUTE), false).await.unwrap();
        body.send_data(claims(4 << 20), false).unwrap();
        waiting.push((response, body));
    }
    assert_serves(&client, good()).await;

    let ends = waiting.into_iter().map(|(response, _body)| async move {
        let answer = Answer::read(response).await.unwrap();
        (answer.code(), start.elapsed())
    });
    let timeout = config().server.receive_timeout;
    let expected = (Code::DeadlineExceeded, timeout);
    assert_eq!(join_all(ends).await, vec![expected; 100]);
}

/// Begins requests of 1 MiB until one is refused. Returns how many were not.
async fn fill(client: &RawClient, held: &mut Vec<h2::SendStream<Bytes>>) -> usize {
    for taken in 0.. {
        assert!(taken < 1000, "there is no bound");
        let (response, mut body) = client.begin(post(EXECUTE), false).await.unwrap();
        let mut most = claims(2 << 20).to_vec();
        most.resize(MIB, 0);
        body.send_data(most.into(), false).unwrap();
        let answer = tokio::time::timeout(SECOND, Answer::read(response)).await;
        match answer {
            Ok(answer) => {
                assert_overloaded(&answer.unwrap().status());
                return taken;
            }
            Err(_) => held.push(body),
        }
    }
    unreachable!("a bound")
}

#[tokio::test(start_paused = true)]
async fn requests_that_do_not_become_complete_get_half_of_the_budget_at_most() {
    let mut config = with_budget(64 * MIB);
    config.server.receive_timeout = 1000 * SECOND;
    let setup = Setup::of(&config).await;
    let mut held = Vec::new();
    let mut clients = Vec::new();
    let mut taken = Vec::new();
    for _ in 0..6 {
        let client = setup.connect().await;
        taken.push(fill(&client, &mut held).await);
        clients.push(client);
    }
    // 8 MiB or so each, that is two requests of the most bytes; 32 MiB in all.
    assert!((6..=8).contains(&taken[0]), "{taken:?}");
    assert!(
        (20..=32).contains(&taken.iter().sum::<usize>()),
        "{taken:?}"
    );
    assert_eq!(taken[5], 0, "{taken:?}");

    // What is complete has the other half, on any connection.
    let large = framed(&request(vec![pb::ToolCall {
        arguments: Some(vec![7; 50_000].into()),
        ..call("", "tool")
    }]));
    for client in &clients {
        assert_serves(client, large.clone()).await;
    }
    // And whoever goes makes room.
    clients.truncate(4);
    sleep(SECOND).await;
    let client = setup.connect().await;
    let parts = [&large[..10], &large[10..]];
    drop(held);
    sleep(SECOND).await;
    let answer = ask_in_parts(&client, EXECUTE, &parts).await;
    assert_eq!(answer.code(), Code::Ok);
}

#[tokio::test(start_paused = true)]
async fn headers_of_requests_that_wait_count() {
    let mut config = with_budget(16 * MIB);
    config.server.receive_timeout = 1000 * SECOND;
    let setup = Setup::of(&config).await;
    let pipe = PipeConnect(Arc::clone(&setup.server)).connect().await;
    let mut builder = h2::client::Builder::new();
    builder.initial_max_send_streams(10_000);
    let client = RawClient::over(pipe.unwrap(), &builder).await;
    let mut waiting = Vec::new();
    let refused = loop {
        assert!(waiting.len() < 1000, "there is no bound");
        let long = post_with(EXECUTE, "x-long", vec![b'x'; 15_000]);
        let (response, body) = client.begin(long, false).await.unwrap();
        match tokio::time::timeout(ms(10), Answer::read(response)).await {
            Ok(answer) => break answer.unwrap().status(),
            Err(_) => waiting.push(body),
        }
    };
    assert_overloaded(&refused);
    // 8 MiB of them, with 15 KB of headers each and what a stream takes.
    assert!((300..500).contains(&waiting.len()), "{}", waiting.len());
}
