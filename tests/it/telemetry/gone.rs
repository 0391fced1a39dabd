use fanfare::pb;
use serde_json::json;
use tokio::time::timeout;
use tonic::Request;

use crate::support::{
    SECOND,
    bare::{self, Bare},
    call as tool_call, call_with, config, ms,
    observed::Observed,
    request,
    spans::{Tree, attempt, call, rpc},
    tools::{Running, Scripted, catalog},
};

const GONE: &str = "the caller is gone";

/// One that ends, one that runs, one that waits for its turn.
fn three_calls() -> pb::ExecuteToolsRequest {
    pb::ExecuteToolsRequest {
        concurrency_limit: 2,
        ..request(vec![
            call_with("", "sleep", json!({"seconds": 1})),
            tool_call("", "hang"),
            tool_call("", "hang"),
            tool_call("", "hang"),
        ])
    }
}

/// What becomes of them when their caller goes after three seconds.
fn three_ends() -> [Tree; 4] {
    let cancelled = || attempt("CANCELLED").says("cancelled");
    let ended = attempt("OK").lasts(SECOND);
    [
        call(0, "sleep").lasts(SECOND).has([ended]),
        call(1, "hang")
            .fails("CANCELLED", "maybe", GONE)
            .lasts(3 * SECOND)
            .has([cancelled().lasts(3 * SECOND)]),
        call(2, "hang")
            .fails("CANCELLED", "maybe", GONE)
            .with("fanfare.call.queue_duration", 1.0)
            .lasts(3 * SECOND)
            .has([cancelled().starts(SECOND).lasts(2 * SECOND)]),
        call(3, "hang")
            .fails("CANCELLED", "not_started", GONE)
            .with("fanfare.call.attempts", 0)
            .with("fanfare.call.queue_duration", 3.0)
            .lasts(3 * SECOND),
    ]
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_cancels_leaves_no_span_without_an_outcome() {
    let mut observed = Observed::start().await;

    let rpc_of_caller = observed.client.execute_tools(three_calls());
    let left = timeout(3 * SECOND, rpc_of_caller).await;

    assert!(left.is_err());
    let seen = observed.end().await;
    let labels = [("error_type", "CANCELLED"), ("gen_ai_tool_name", "hang")];
    let count = "gen_ai_execute_tool_duration_seconds_count";
    assert_eq!(seen.page.value(count, &labels), 3.0);
    // That the caller left is no failure of the server.
    let expected = rpc("ExecuteTools", "CANCELLED").of_calls(4, 3);
    let expected = expected.lasts(3 * SECOND).has(three_ends());
    assert_eq!(seen.tree(), expected);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_drops_its_stream_leaves_none_either() {
    let mut observed = Observed::start().await;

    let stream = observed.client.stream_execute_tools(three_calls()).await;
    let mut stream = stream.unwrap().into_inner();
    stream.message().await.unwrap().expect("the one that ends");
    tokio::time::sleep(2 * SECOND).await;
    drop(stream);

    let expected = rpc("StreamExecuteTools", "CANCELLED").of_calls(4, 3);
    let expected = expected.lasts(3 * SECOND).has(three_ends());
    assert_eq!(observed.end().await.tree(), expected);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_does_not_read_its_stream_runs_out_of_time() {
    let tool = Scripted::answers_with(900_000);
    let catalog = catalog([("big", tool)]);
    let mut observed = Observed::of(&config(), catalog, &[]).await;
    // More than the caller's windows hold: the rest waits in the server.
    let calls = (0..40).map(|_| tool_call("", "big")).collect();
    let mut request = Request::new(request(calls));
    request
        .metadata_mut()
        .insert("grpc-timeout", "5S".parse().unwrap());

    let stream = observed.client.stream_execute_tools(request).await.unwrap();
    tokio::time::sleep(6 * SECOND).await;
    drop(stream);

    let mut tree = observed.end().await.tree();
    assert_eq!(tree.children.len(), 40);
    tree.children.clear();
    let expected = rpc("StreamExecuteTools", "DEADLINE_EXCEEDED")
        .of_calls(40, 0)
        .with("fanfare.request.timeout", 5.0)
        .with("error.type", "DEADLINE_EXCEEDED")
        .says("");
    // Who reads nothing does not take the end of the stream either.
    assert!(
        (5 * SECOND..=6 * SECOND).contains(&tree.duration),
        "{tree:#?}"
    );
    assert_eq!(tree.lasts(expected.duration), expected);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_breaks_cancels_what_runs_on_it() {
    let running = Running::default();
    let catalog = catalog([("hangs", Scripted::hangs(&running))]);
    let observed = Observed::of(&config(), catalog, &[]).await;
    let mut client = observed.client;

    let calls = request(vec![tool_call("", "hangs")]);
    // Drops the channel with the call, and so the pipe.
    let task = tokio::spawn(async move { client.execute_tools(calls).await });
    while running.count() == 0 {
        tokio::time::sleep(SECOND).await;
    }
    task.abort();

    let tree = observed.observer.end().await.tree();
    assert_eq!(tree.attributes["rpc.response.status_code"], "CANCELLED");
    assert_eq!(tree.error, None);
    assert_eq!(tree.children[0].attributes["error.type"], "CANCELLED");
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_leaves_while_it_sends_has_cancelled() {
    let observed = Observed::start().await;
    let mut caller = Bare::over(bare::pipe_to(&observed.server)).await;
    let path = "/fanfare.v1.OrchestratorService/ExecuteTools";
    let sending = caller.call(path, &[], None);
    let active = || observed.observer.page().sum("fanfare_active_requests", &[]);
    while active() == 0.0 {
        tokio::time::sleep(ms(1)).await;
    }

    drop(sending);
    observed.observer.idle().await;

    let page = observed.observer.page();
    let rpcs = page.all("rpc_server_call_duration_seconds_count", &[]);
    assert_eq!(rpcs.len(), 1, "{rpcs:?}");
    assert_eq!(rpcs[0].labels["rpc_response_status_code"], "CANCELLED");
    assert_eq!(rpcs[0].labels.get("error_type"), None);
}
