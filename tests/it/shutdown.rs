/// What the drain cuts short when its time is over, and what never holds it up.
mod cut_short;
/// A second signal, and starts that fail.
mod exit_codes;
/// What health says before, during and after.
mod health;
/// Peers that are frozen, or do not read.
mod silent_peers;

use std::{net::SocketAddr, time::Duration};

use fanfare::pb::{self, orchestrator_service_client::OrchestratorServiceClient};
use nix::sys::signal::Signal;
use prost::Message as _;
use serde_json::json;
use tokio::{net::TcpStream, time::Instant};
use tonic::Code;

use crate::support::{
    SECOND, Seen, bare, call, call_with, ledger, process::Process, request, seen,
};
use health::{ENDED, NOT_SERVING, SERVING, Watch, health, health_is};

const SERVICE: &str = "fanfare.v1.OrchestratorService";
const EXECUTE_TOOLS: &str = "/fanfare.v1.OrchestratorService/ExecuteTools";

fn sleep_call(seconds: f64) -> pb::ToolCall {
    call_with("slow", "sleep", json!({ "seconds": seconds }))
}

/// Shorter than the drain may take, which is 25 s by default: so long an end has not
/// waited for it.
const NO_DRAIN: Duration = Duration::from_secs(20);

/// `call_1` to `echo`, which answers; `call_2` to `hang`, which does not.
fn half_done() -> pb::ExecuteToolsRequest {
    request(vec![call("call_1", "echo"), call("call_2", "hang")])
}

async fn refuses_connections(address: SocketAddr) -> bool {
    let connected = TcpStream::connect(address).await;
    connected.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
}

#[tokio::test]
async fn with_nothing_going_on_a_signal_ends_it_at_once() {
    let tools = Process::demo_tools().await;
    let server = Process::serve_demo("", "", tools.address).await;
    for mut process in [server, tools] {
        // A connection that could stay open, and a watch that never ends.
        let mut watch = Watch::start(process.channel().await, "").await;
        assert_eq!(watch.next().await, SERVING);

        process.signal(Signal::SIGTERM);
        let start = Instant::now();
        assert_eq!(process.exit_code().await, Some(0));

        assert!(start.elapsed() < NO_DRAIN, "{:?}", start.elapsed());
        assert_eq!(watch.next().await, NOT_SERVING);
        assert_eq!(watch.next().await, ENDED);
    }
}

#[tokio::test]
async fn a_signal_that_comes_with_the_first_log_line_is_heeded() {
    for _ in 0..5 {
        let mut tools = Process::demo_tools().await;
        tools.signal(Signal::SIGTERM);
        let mut server = Process::serve_demo("", "", tools.address).await;
        server.signal(Signal::SIGINT);
        assert_eq!(tools.exit_code().await, Some(0));
        assert_eq!(server.exit_code().await, Some(0));
    }
}

#[tokio::test]
async fn what_runs_gets_its_full_result_and_nothing_new_is_taken() {
    let mut tools = Process::demo_tools().await;
    let mut server = Process::serve_demo("", "", tools.address).await;
    let mut watch = Watch::start(server.channel().await, SERVICE).await;
    assert_eq!(watch.next().await, SERVING);
    let mut client = server.client().await;
    let rpc = tokio::spawn({
        let mut client = client.clone();
        async move { client.execute_tools(request(vec![sleep_call(1.0)])).await }
    });
    ledger::started(&tools, 1).await;

    server.signal(Signal::SIGTERM);
    assert_eq!(watch.next().await, NOT_SERVING);
    assert_eq!(watch.next().await, ENDED);
    assert!(refuses_connections(server.address).await);
    let refused = client.execute_tools(half_done()).await.unwrap_err();
    // What tonic's client makes of a connection that takes no more requests.
    assert!(matches!(
        refused.code(),
        Code::Unavailable | Code::Cancelled
    ));

    let response = rpc.await.unwrap().expect("an answer").into_inner();
    let answered = Instant::now();
    assert_eq!(
        seen(&response.results[0]),
        Seen::Ok(json!({"slept_seconds": 1}))
    );
    assert_eq!(server.exit_code().await, Some(0));
    assert!(answered.elapsed() < NO_DRAIN, "{:?}", answered.elapsed());
    assert_eq!(ledger::count(&tools, "call started"), 1);

    // A tool service ends in the same way, its callers answered.
    let again = Process::serve_demo("", "", tools.address).await;
    let mut client = again.client().await;
    let rpc = async move { client.execute_tools(request(vec![sleep_call(0.5)])).await };
    let rpc = tokio::spawn(rpc);
    ledger::started(&tools, 2).await;
    tools.signal(Signal::SIGTERM);
    let response = rpc.await.unwrap().expect("an answer").into_inner();
    assert!(matches!(seen(&response.results[0]), Seen::Ok(_)));
    assert_eq!(tools.exit_code().await, Some(0));
}

/// The caller does not read, so its requests cross the news that there shall be
/// none; and the server can't know which of them were sent before.
#[tokio::test]
async fn a_request_that_crosses_the_news_is_refused_unseen() {
    let tools = Process::demo_tools().await;
    let mut server = Process::serve_demo("", "", tools.address).await;
    let mut watch = Watch::start(server.channel().await, "").await;
    assert_eq!(watch.next().await, SERVING);
    let (connection, mut gate) = bare::gated(bare::connect(server.address).await);
    let mut caller = bare::Bare::over(connection).await;
    let encoded = |request: &pb::ExecuteToolsRequest| Some(request.encode_to_vec());
    let slow = encoded(&request(vec![sleep_call(0.5)]));
    let slow = caller.call(EXECUTE_TOOLS, &[], slow);
    ledger::started(&tools, 1).await;

    server.signal(Signal::SIGTERM);
    assert_eq!(watch.next().await, NOT_SERVING);
    assert_eq!(watch.next().await, ENDED);
    gate.forget_written();
    let late = caller.call(EXECUTE_TOOLS, &[], encoded(&half_done()));
    gate.written().await;
    gate.open();

    let late = late.await.expect("an answer");
    assert_eq!(late.code, Code::Unavailable);
    let slow: pb::ExecuteToolsResponse = slow.await.expect("an answer").decode();
    assert!(matches!(seen(&slow.results[0]), Seen::Ok(_)));
    // By then all have been told.
    let after = caller.call(EXECUTE_TOOLS, &[], encoded(&half_done()));
    assert!(after.await.is_err());
    assert_eq!(server.exit_code().await, Some(0));
    assert_eq!(ledger::count(&tools, "call started"), 1);
}

/// Each of many callers asks again and again until it is refused: whatever a
/// tool did was reported.
#[tokio::test]
async fn under_load_no_answer_is_lost() {
    let tools = Process::demo_tools().await;
    let mut server = Process::serve_demo("", "", tools.address).await;
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let mut client = server.client().await;
        callers.spawn(async move {
            let mut answers = 0;
            let calls = [sleep_call(0.02), sleep_call(0.03)].map(anonymous);
            let ask = || request(calls.to_vec());
            while let Ok(response) = client.execute_tools(ask()).await {
                let results = response.into_inner().results;
                assert!(results.iter().all(|r| matches!(seen(r), Seen::Ok(_))));
                answers += results.len();
            }
            answers
        });
    }
    ledger::answered(&tools, 200).await;

    server.signal(Signal::SIGTERM);
    let answers: usize = callers.join_all().await.into_iter().sum();

    assert_eq!(server.exit_code().await, Some(0));
    // The last lines may be on their way.
    assert_eq!(ledger::answered(&tools, answers).await.len(), answers);
    assert_eq!(ledger::count(&tools, "call started"), answers);
}

fn anonymous(call: pb::ToolCall) -> pb::ToolCall {
    pb::ToolCall {
        id: String::new(),
        ..call
    }
}

#[tokio::test]
async fn during_the_drain_delay_it_serves_but_says_that_it_ends() {
    let tools = Process::demo_tools().await;
    let keys = r#"drain_delay = "4s""#;
    let mut server = Process::serve_demo(keys, "", tools.address).await;
    let old = server.channel().await;
    let mut watch = Watch::start(old.clone(), "").await;
    assert_eq!(watch.next().await, SERVING);

    let start = Instant::now();
    server.signal(Signal::SIGTERM);
    assert_eq!(watch.next().await, NOT_SERVING);
    health_is(NOT_SERVING, &old).await;
    for channel in [old, server.channel().await] {
        assert_eq!(health(&channel, "").await, NOT_SERVING);
        assert_eq!(health(&channel, SERVICE).await, NOT_SERVING);
        let mut client = OrchestratorServiceClient::new(channel);
        let response = client.execute_tools(request(vec![call("", "echo")])).await;
        let response = response.expect("an answer").into_inner();
        assert_eq!(seen(&response.results[0]), Seen::Ok(json!({})));
    }

    assert_eq!(watch.next().await, ENDED);
    assert_eq!(server.exit_code().await, Some(0));
    let elapsed = start.elapsed();
    assert!((4 * SECOND..NO_DRAIN).contains(&elapsed), "{elapsed:?}");
}

/// In the steady state, too, connections end: so that callers spread over replicas.
#[tokio::test]
async fn a_connection_that_grew_old_finishes_its_calls_and_takes_no_more() {
    let tools = Process::demo_tools().await;
    let keys = r#"max_connection_age = "100ms""#;
    let server = Process::serve_demo(keys, "", tools.address).await;
    let mut caller = bare::Bare::over(bare::connect(server.address).await).await;
    let slow = request(vec![sleep_call(0.5)]).encode_to_vec();

    let answer = caller.call(EXECUTE_TOOLS, &[], Some(slow)).await;
    let response: pb::ExecuteToolsResponse = answer.expect("an answer").decode();
    assert!(matches!(seen(&response.results[0]), Seen::Ok(_)));
    let late = caller.call(EXECUTE_TOOLS, &[], Some(half_done().encode_to_vec()));
    assert!(late.await.is_err());
    // Anybody is welcome on a new one.
    let mut client = server.client().await;
    client
        .list_tools(pb::ListToolsRequest::default())
        .await
        .unwrap();
}
