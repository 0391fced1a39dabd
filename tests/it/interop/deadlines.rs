use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use fanfare::{
    catalog::Catalog,
    config::{Service, Tool},
    core::call::ToolName,
    net::{Connect, Io},
    pb::{self, ExecuteToolsResponse},
    server::Server,
};
use futures_util::future::BoxFuture;
use prost::Message as _;
use serde_json::json;
use tokio::{sync::mpsc, time::Instant};
use tonic::Code;

use super::EXECUTE_TOOLS;
use crate::support::{
    SECOND, Seen,
    bare::{self, Bare},
    call, call_with, config, expired, ledger, ms,
    process::Process,
    request, seen,
    tools::{Running, Scripted, catalog},
};

fn encoded(calls: Vec<pb::ToolCall>) -> Option<Vec<u8>> {
    Some(request(calls).encode_to_vec())
}

/// gRPC's `timeout_on_sleeping_server`; here the sleeping tool costs its own
/// result and no other.
#[tokio::test]
async fn a_sleeping_tool_is_told_and_stopped_and_the_rest_arrives_in_time() {
    let tools = Process::demo_tools().await;
    let server = Process::serve_demo("", "", tools.address).await;
    let mut caller = Bare::over(bare::connect(server.address).await).await;
    let sleep = call_with("a", "sleep", json!({"seconds": 60}));
    let calls = || encoded(vec![sleep.clone(), call("b", "echo")]);
    let timeout = [("grpc-timeout", "2S")];
    // Exact times are tested on a paused clock.
    let bound = 20 * SECOND;

    let start = Instant::now();
    let answer = caller.call(EXECUTE_TOOLS, &timeout, calls()).await;
    let elapsed = start.elapsed();
    let response: ExecuteToolsResponse = answer.expect("an answer").decode();
    assert_eq!(seen(&response.results[0]), expired("maybe", "request"));
    assert_eq!(seen(&response.results[1]), Seen::Ok(json!({})));
    assert!(elapsed <= bound, "{elapsed:?}");

    let path = "/fanfare.v1.OrchestratorService/StreamExecuteTools";
    let start = Instant::now();
    let answer = caller.call(path, &timeout, calls()).await;
    let elapsed = start.elapsed();
    // A stream that the caller had no time to read, on a busy machine, is cut
    // after the 30 ms that are kept for it.
    let code = answer.expect("an answer").code;
    assert!(
        matches!(code, Code::Ok | Code::DeadlineExceeded),
        "{code:?}"
    );
    assert!(elapsed <= bound, "{elapsed:?}");

    for line in ledger::started(&tools, 4).await {
        assert!(
            line["timeout"].as_f64().expect("a timeout") <= 2.0,
            "{line}"
        );
    }
    for line in ledger::cancelled(&tools, 2).await {
        assert_eq!(line["tool"], "sleep");
        let elapsed = Duration::from_secs_f64(line["duration"].as_f64().unwrap());
        assert!(elapsed <= bound, "{line}");
    }
}

/// Seen on the wire, where no client's own timer can be behind it.
#[tokio::test]
async fn a_request_without_time_left_is_deadline_exceeded_and_calls_no_tool() {
    let catalog = catalog([("never", Scripted::new(|_| async { panic!("was called") }))]);
    let server = Server::orchestrator(&config(), catalog).await;
    let mut caller = Bare::over(bare::pipe_to(&server)).await;
    for timeout in ["0n", "1n", "0H", "00000000S"] {
        let timeout = [("grpc-timeout", timeout)];
        let calls = encoded(vec![call("", "never")]);
        let answer = caller.call(EXECUTE_TOOLS, &timeout, calls).await;
        assert_eq!(answer.expect("an answer").code, Code::DeadlineExceeded);
    }
    // Whatever the method.
    let path = "/fanfare.v1.OrchestratorService/ListTools";
    let answer = caller.call(path, &[("grpc-timeout", "0n")], Some(Vec::new()));
    let answer = answer.await.expect("an answer");
    assert_eq!(answer.code, Code::DeadlineExceeded);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_never_ends_is_deadline_exceeded_in_time() {
    let server = Server::orchestrator(&config(), Catalog::default()).await;
    let mut caller = Bare::over(bare::pipe_to(&server)).await;
    for (timeout, length) in [("300m", ms(300)), ("10S", 10 * SECOND)] {
        let start = Instant::now();
        let answer = caller
            .call(EXECUTE_TOOLS, &[("grpc-timeout", timeout)], None)
            .await;
        assert_eq!(answer.expect("an answer").code, Code::DeadlineExceeded);
        assert_eq!(start.elapsed(), length);
    }
}

/// What a tool does with the stream of one call, after its headers.
#[derive(Clone, Copy)]
enum Body {
    Never,
    /// A byte of a message in every 50 ms.
    Trickles,
}

/// A tool service by hand. Tells when each of its calls was reset, and by what.
struct Stalls {
    body: Body,
    resets: mpsc::UnboundedSender<(Instant, h2::Reason)>,
}

impl Connect for Stalls {
    fn connect(&self) -> BoxFuture<'static, io::Result<Box<dyn Io>>> {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let (body, resets) = (self.body, self.resets.clone());
        tokio::spawn(async move {
            let mut connection = h2::server::handshake(theirs).await.expect("a connection");
            while let Some(stream) = connection.accept().await {
                let (_, respond) = stream.expect("a stream");
                tokio::spawn(stall(respond, body, resets.clone()));
            }
        });
        Box::pin(async move { Ok(Box::new(ours) as Box<dyn Io>) })
    }
}

async fn stall(
    mut respond: h2::server::SendResponse<Bytes>,
    body: Body,
    resets: mpsc::UnboundedSender<(Instant, h2::Reason)>,
) {
    let headers = http::Response::builder().header("content-type", "application/grpc");
    let headers = headers.body(()).expect("a response");
    let mut stream = respond.send_response(headers, false).expect("to answer");
    if let Body::Trickles = body {
        let prefix = Bytes::from_static(&[0, 0, 0, 0xff, 0xff]);
        stream.send_data(prefix, false).expect("to send");
    }
    loop {
        let reset = std::future::poll_fn(|context| stream.poll_reset(context));
        match tokio::time::timeout(ms(50), reset).await {
            Ok(reason) => {
                let _ = resets.send((Instant::now(), reason.expect("a reason")));
                return;
            }
            Err(_) if matches!(body, Body::Never) => {}
            Err(_) => stream
                .send_data(Bytes::from_static(&[0]), false)
                .expect("to send"),
        }
    }
}

/// tonic's own timer ends with the headers.
#[tokio::test(start_paused = true)]
async fn an_answer_that_stalls_after_its_headers_is_cut_at_the_deadline() {
    for body in [Body::Never, Body::Trickles] {
        let (resets, mut reset) = mpsc::unbounded_channel();
        let mut config = config();
        let endpoint = "http://tools".parse().unwrap();
        config
            .services
            .insert("tools".to_owned(), Service::new(endpoint));
        let name = ToolName::try_new("stalls".to_owned()).unwrap();
        config.tools.insert(name, Tool::new("tools".to_owned()));
        let catalog = Catalog::with_connect(&config, |_| {
            let resets = resets.clone();
            Arc::new(Stalls { body, resets })
        });
        let server = Server::orchestrator(&config, catalog).await;
        let mut caller = Bare::over(bare::pipe_to(&server)).await;

        let start = Instant::now();
        let timeout = [("grpc-timeout", "2S")];
        let calls = encoded(vec![call("a", "stalls")]);
        let answer = caller.call(EXECUTE_TOOLS, &timeout, calls).await;
        let response: ExecuteToolsResponse = answer.expect("an answer").decode();

        // The reply margin of 50 ms before.
        let end = start + 2 * SECOND - ms(50);
        assert_eq!(Instant::now(), end);
        assert_eq!(seen(&response.results[0]), expired("maybe", "request"));
        assert_eq!(reset.recv().await, Some((end, h2::Reason::CANCEL)));
    }
}

/// The same for the caller's own end: what is left when it has gone.
#[tokio::test(start_paused = true)]
async fn a_caller_whose_time_is_over_leaves_nothing_behind() {
    let running = Running::default();
    let catalog = catalog([("hangs", Scripted::hangs(&running))]);
    let server = Server::orchestrator(&config(), catalog).await;
    let mut caller = Bare::over(bare::pipe_to(&server)).await;
    let path = "/fanfare.v1.OrchestratorService/StreamExecuteTools";

    let start = Instant::now();
    let timeout = [("grpc-timeout", "1S")];
    let calls = encoded((0..100).map(|_| call("", "hangs")).collect());
    let answer = caller.call(path, &timeout, calls).await;

    assert_eq!(answer.expect("an answer").code, Code::Ok);
    assert_eq!(start.elapsed(), SECOND - ms(50));
    assert_eq!(running.count(), 0);
}
