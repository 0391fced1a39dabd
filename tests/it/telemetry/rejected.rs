use std::future::ready;

use fanfare::{catalog::Catalog, pb};
use prost::Message as _;
use tokio::{net::TcpListener, time::timeout};
use tonic::Code;

use crate::support::{
    SECOND,
    bare::{self, Bare},
    call as tool_call, config, ms,
    observed::{Observed, Observer},
    request,
    spans::{Tree, rpc},
    tools::{Scripted, catalog},
};

const EXECUTE: &str = "/fanfare.v1.OrchestratorService/ExecuteTools";
const LIST: &str = "/fanfare.v1.OrchestratorService/ListTools";
const REJECTIONS: &str = "fanfare_request_rejections_total";

/// What a request came to: its code for the caller, its span, and how many
/// rejections there were for this reason.
async fn rejected(
    message: Option<Vec<u8>>,
    path: &str,
    headers: &[(&str, &str)],
    reason: &str,
) -> (Code, Tree, f64) {
    let mut config = config();
    config.limits.max_in_flight_calls = 2;
    config.limits.max_request_bytes = 1000;
    let catalog = catalog([("never", Scripted::new(|_| async { panic!("was called") }))]);
    let observed = Observed::of(&config, catalog, &[]).await;
    let mut caller = Bare::over(bare::pipe_to(&observed.server)).await;

    let answer = caller.call(path, headers, message).await.unwrap();

    drop(caller);
    let seen = observed.end().await;
    let all = seen.page.sum(REJECTIONS, &[]);
    let count = seen
        .page
        .sum(REJECTIONS, &[("fanfare_rejection_reason", reason)]);
    assert_eq!(all, count, "for another reason");
    let page = seen.page.clone();
    let tree = seen.tree();
    assert_eq!(tree.children, []);
    // The label of the metric is that of the span.
    let mut labels = vec![];
    for name in ["rpc.method", "rpc.response.status_code", "error.type"] {
        if let Some(value) = tree.attributes.get(name) {
            labels.push((name.replace('.', "_"), value.as_str().unwrap().to_owned()));
        }
    }
    let pairs: Vec<_> = labels
        .iter()
        .map(|(k, v)| (k.as_str(), v.as_str()))
        .collect();
    assert_eq!(
        page.value("rpc_server_call_duration_seconds_count", &pairs),
        1.0
    );
    (answer.code, tree, count)
}

fn of_calls(count: usize) -> Option<Vec<u8>> {
    let calls = vec![tool_call("", "never"); count];
    Some(request(calls).encode_to_vec())
}

#[tokio::test(start_paused = true)]
async fn what_the_caller_did_wrong_is_no_error_of_the_server() {
    let invalid = rejected(of_calls(0), EXECUTE, &[], "invalid").await;
    let tree = rpc("ExecuteTools", "INVALID_ARGUMENT");
    assert_eq!(invalid, (Code::InvalidArgument, tree, 1.0));

    tokio::time::pause();
    let overloaded = rejected(of_calls(3), EXECUTE, &[], "overloaded").await;
    let tree = rpc("ExecuteTools", "RESOURCE_EXHAUSTED");
    assert_eq!(overloaded, (Code::ResourceExhausted, tree, 1.0));

    tokio::time::pause();
    let too_large = rejected(of_calls(500), EXECUTE, &[], "too_large").await;
    let tree = rpc("ExecuteTools", "RESOURCE_EXHAUSTED");
    assert_eq!(too_large, (Code::ResourceExhausted, tree, 1.0));
}

/// Its first field is cut off.
#[tokio::test(start_paused = true)]
async fn a_message_that_can_not_be_decoded_is_no_error_of_the_server() {
    for (path, name) in [(EXECUTE, "ExecuteTools"), (LIST, "ListTools")] {
        let invalid = rejected(Some(vec![0x0a, 200, 1, 0]), path, &[], "invalid").await;
        let tree = rpc(name, "INVALID_ARGUMENT");
        assert_eq!(invalid, (Code::InvalidArgument, tree, 1.0));
        tokio::time::pause();
    }
}

#[tokio::test(start_paused = true)]
async fn a_timeout_that_can_not_be_read_is_invalid() {
    let headers = [("grpc-timeout", "bogus")];
    let invalid = rejected(of_calls(1), EXECUTE, &headers, "invalid").await;
    let tree = rpc("ExecuteTools", "INVALID_ARGUMENT").without("fanfare.request.timeout");
    assert_eq!(invalid, (Code::InvalidArgument, tree, 1.0));
}

#[tokio::test(start_paused = true)]
async fn a_request_without_time_is_an_error() {
    let headers = [("grpc-timeout", "0n")];
    let expired = rejected(of_calls(1), EXECUTE, &headers, "expired").await;
    let tree = rpc("ExecuteTools", "DEADLINE_EXCEEDED")
        .with("fanfare.request.timeout", 0.0)
        .with("error.type", "DEADLINE_EXCEEDED")
        .says("");
    assert_eq!(expired, (Code::DeadlineExceeded, tree, 1.0));
}

#[tokio::test(start_paused = true)]
async fn a_message_that_never_comes_is_waited_for_until_the_deadline() {
    let headers = [("grpc-timeout", "3S")];
    let expired = rejected(None, EXECUTE, &headers, "expired").await;
    let tree = rpc("ExecuteTools", "DEADLINE_EXCEEDED")
        .with("fanfare.request.timeout", 3.0)
        .with("error.type", "DEADLINE_EXCEEDED")
        .says("")
        .lasts(3 * SECOND);
    assert_eq!(expired, (Code::DeadlineExceeded, tree, 1.0));
}

#[tokio::test(start_paused = true)]
async fn a_method_that_a_caller_made_up_has_no_name() {
    for path in [
        "/no.such.Service/Method",
        "/fanfare.v1.OrchestratorService/Nope",
    ] {
        let (code, tree, count) = rejected(of_calls(1), path, &[], "").await;
        let mut expected = rpc("", "UNIMPLEMENTED")
            .with("rpc.method", "_OTHER")
            .with("error.type", "UNIMPLEMENTED")
            .says("");
        expected.name = "grpc".to_owned();
        assert_eq!((code, tree, count), (Code::Unimplemented, expected, 0.0));
        tokio::time::pause();
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_drains_says_unavailable() {
    let (server, observer) = Observer::start(&config(), Catalog::default(), &[]).await;
    let (pipe, gate) = bare::gated(bare::pipe_to(&server));
    let mut caller = Bare::over(pipe).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();

    // What the server says waits behind the gate, and with it that it drains.
    let early = caller.call(LIST, &[], Some(Vec::new()));
    is_counted(&observer, "rpc_server_call_duration_seconds_count").await;
    server.run(listener, ready(())).await;
    let late = caller.call(EXECUTE, &[], of_calls(1));
    is_counted(&observer, REJECTIONS).await;
    gate.open();

    assert_eq!(early.await.unwrap().code, Code::Ok);
    assert_eq!(late.await.unwrap().code, Code::Unavailable);
    let seen = observer.end().await;
    let draining = [("fanfare_rejection_reason", "draining")];
    assert_eq!(seen.page.value(REJECTIONS, &draining), 1.0);
    let tree = rpc("ExecuteTools", "UNAVAILABLE")
        .with("error.type", "UNAVAILABLE")
        .says("");
    let trees: Vec<_> = seen.trees.into_iter().map(Tree::timeless).collect();
    assert_eq!(trees, [rpc("ListTools", "OK"), tree].map(Tree::timeless));
}

async fn is_counted(observer: &Observer, name: &str) {
    let counted = async {
        while observer.page().sum(name, &[]) == 0.0 {
            tokio::time::sleep(ms(1)).await;
        }
    };
    let counted = timeout(SECOND, counted).await;
    assert!(counted.is_ok(), "{name}: {:#?}", observer.page());
}

#[tokio::test(start_paused = true)]
async fn http_that_is_no_grpc_is_not_observed() {
    let observed = Observed::of(&config(), Catalog::default(), &[]).await;
    let caller = crate::support::raw::RawClient::of_server(&observed.server).await;
    let get = http::Request::get("http://fanfare/").body(()).unwrap();
    let (answer, _) = caller.begin(get, true).await.unwrap();
    assert_eq!(answer.await.unwrap().status(), 405);
    let tools = pb::ListToolsRequest::default();
    observed.client.clone().list_tools(tools).await.unwrap();
    assert_eq!(observed.end().await.tree(), rpc("ListTools", "OK"));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_there_is_no_memory_for_is_counted() {
    let mut config = config();
    config.limits.max_buffered_bytes = 1000;
    let catalog = catalog([("never", Scripted::new(|_| async { panic!("was called") }))]);
    let mut observed = Observed::of(&config, catalog, &[]).await;

    let one = request(vec![tool_call("", "never")]);
    let status = observed.client.execute_tools(one).await.unwrap_err();

    assert_eq!(status.code(), Code::ResourceExhausted);
    let page = observed.end().await.page;
    let reason = [("fanfare_rejection_reason", "buffers_full")];
    assert_eq!(page.sum(REJECTIONS, &reason), 1.0);
    assert_eq!(page.value("fanfare_buffered_limit_bytes", &[]), 1000.0);
    assert_eq!(page.value("fanfare_buffered_bytes", &[]), 0.0);
}
