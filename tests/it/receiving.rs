/// Streams that would last as long as their caller likes.
mod long_lived;
/// What is held for requests that are not complete.
mod memory;

use std::{
    io::Write as _,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use fanfare::{
    config::{Compression, Config},
    net::Connect as _,
    pb,
    server::Server,
};
use flate2::write::GzEncoder;
use prost::Message as _;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::support::{
    call, config,
    pipes::PipeConnect,
    raw::{Answer, EXECUTE, RawClient, STREAM, framed, framed_bytes, post, post_with},
    request,
    tools::{Scripted, catalog},
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
            async move { Ok(invocation.payload().cloned().unwrap_or_default()) }
        });
        let server = Server::orchestrator(config, catalog([("tool", tool)])).await;
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

/// Sends these parts one after the other, each in a frame of its own, and `apart`, or as
/// many together as the connection takes.
async fn ask_in_parts(client: &RawClient, path: &str, parts: &[&[u8]], apart: bool) -> Answer {
    let (response, mut body) = client.begin(post(path), false).await.unwrap();
    for part in parts {
        // Declined already, maybe.
        let _ = body.send_data(Bytes::copy_from_slice(part), false);
        if apart {
            tokio::task::yield_now().await;
        }
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
            assert_eq!(answer.code(), Code::Unimplemented, "{path}: {what}");
            for apart in [true, false] {
                let answer = ask_in_parts(&client, path, &[first, second], apart).await;
                assert_eq!(
                    answer.code(),
                    Code::Unimplemented,
                    "{path}: {what}, {apart}"
                );
            }
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
    let sizes = [1, 3, 5, 7, 1000, 16 << 10, 1 << 20];
    for (size, apart) in sizes.into_iter().flat_map(|s| [(s, true), (s, false)]) {
        let cut = if size == 1 { &good()[..] } else { &whole[..] };
        let parts: Vec<&[u8]> = cut.chunks(size).collect();

        let answer = ask_in_parts(&client, EXECUTE, &parts, apart).await;

        assert_eq!(answer.code(), Code::Ok, "{size}, {apart}");
        if size > 1 {
            let response = &answer.messages::<pb::ExecuteToolsResponse>()[0];
            let outcome = response.results[0].outcome.clone().unwrap();
            let expected =
                pb::tool_execution_result::Outcome::Observation(arguments.clone().into());
            assert!(outcome == expected, "{size}, {apart}: other bytes");
        }
    }
}

fn gzip(message: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::best());
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
        ("nothing", compressed(&[]), Code::InvalidArgument),
        ("cut off", compressed(&corrupt), Code::InvalidArgument),
        ("no gzip", compressed(&message), Code::InvalidArgument),
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
    assert_eq!(answer.unwrap().code(), Code::InvalidArgument);
}

#[tokio::test(start_paused = true)]
async fn answers_are_compressed_if_both_sides_want_that() {
    let accepts = |path| post_with(path, "grpc-accept-encoding", "identity,gzip");
    for compression in [Compression::None, Compression::Gzip] {
        let mut config = config();
        config.server.compression = compression;
        let setup = Setup::of(&config).await;
        let client = setup.connect().await;
        for path in [EXECUTE, STREAM] {
            for (request, accepted) in [(post(path), false), (accepts(path), true)] {
                let answer = client.ask(request, good()).await.unwrap();
                assert_eq!(answer.code(), Code::Ok);
                let wanted = accepted && compression == Compression::Gzip;
                let encoding = answer.headers.get("grpc-encoding");
                assert_eq!(encoding.is_some_and(|name| name == "gzip"), wanted);
                assert_eq!(answer.body[0], u8::from(wanted), "{path}");
                if wanted {
                    let length = answer.body[1..5].try_into().map(u32::from_be_bytes);
                    let first = &answer.body[5..][..length.unwrap() as usize];
                    let message = fanfare::transport::gzip::inflate(first, MIB).unwrap();
                    let decoded = match path {
                        EXECUTE => pb::ExecuteToolsResponse::decode(message).is_ok(),
                        _ => pb::StreamExecuteToolsResponse::decode(message).is_ok(),
                    };
                    assert!(decoded, "{path}");
                }
            }
        }
    }
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
        // Whoever had decoded them would know how many they are.
        let description = &violations[0].description;
        assert!(description.ends_with(", are more"), "{description}");
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
