use fanfare::pb;
use serde_json::json;

use crate::support::{
    SECOND, call_with, ms,
    observed::Observed,
    request,
    spans::{attempt, call, rpc},
};

fn sleep(id: &str, seconds: u64) -> pb::ToolCall {
    call_with(id, "sleep", json!({"seconds": seconds}))
}

#[tokio::test(start_paused = true)]
async fn a_request_is_a_span_its_calls_are_below_and_their_attempts_below_them() {
    let mut observed = Observed::start().await;

    let calls = vec![
        sleep("a", 3),
        sleep("", 1),
        call_with("c", "echo", json!({})),
    ];
    let response = observed.client.execute_tools(request(calls)).await;

    assert_eq!(response.unwrap().into_inner().results.len(), 3);
    let lasts = |time, index, tool| {
        let below = attempt("OK").lasts(time);
        call(index, tool).lasts(time).has([below])
    };
    assert_eq!(
        observed.end().await.tree(),
        rpc("ExecuteTools", "OK")
            .of_calls(3, 0)
            .lasts(3 * SECOND)
            .has([
                lasts(3 * SECOND, 0, "sleep").with("gen_ai.tool.call.id", "a"),
                lasts(SECOND, 1, "sleep"),
                lasts(ms(0), 2, "echo").with("gen_ai.tool.call.id", "c"),
            ])
    );
}

#[tokio::test(start_paused = true)]
async fn a_stream_lasts_until_its_last_byte() {
    let mut observed = Observed::start().await;

    let calls = vec![sleep("", 2), sleep("", 1)];
    let stream = observed.client.stream_execute_tools(request(calls)).await;
    let mut stream = stream.unwrap().into_inner();
    let mut events = 0;
    while stream.message().await.unwrap().is_some() {
        events += 1;
    }

    assert_eq!(events, 3);
    let lasts = |time, index| {
        let below = attempt("OK").lasts(time);
        call(index, "sleep").lasts(time).has([below])
    };
    assert_eq!(
        observed.end().await.tree(),
        rpc("StreamExecuteTools", "OK")
            .of_calls(2, 0)
            .lasts(2 * SECOND)
            .has([lasts(2 * SECOND, 0), lasts(SECOND, 1)])
    );
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_for_its_turn_begins_with_its_request() {
    let mut observed = Observed::start().await;

    let request = pb::ExecuteToolsRequest {
        concurrency_limit: 1,
        ..request(vec![sleep("", 2), sleep("", 1)])
    };
    observed.client.execute_tools(request).await.unwrap();

    let first = attempt("OK").lasts(2 * SECOND);
    let second = attempt("OK").starts(2 * SECOND).lasts(SECOND);
    assert_eq!(
        observed.end().await.tree(),
        rpc("ExecuteTools", "OK")
            .of_calls(2, 0)
            .lasts(3 * SECOND)
            .has([
                call(0, "sleep").lasts(2 * SECOND).has([first]),
                call(1, "sleep")
                    .with("fanfare.call.queue_duration", 2.0)
                    .lasts(3 * SECOND)
                    .has([second]),
            ])
    );
}

#[tokio::test(start_paused = true)]
async fn a_request_without_calls_of_tools_is_a_span_alone() {
    let mut observed = Observed::start().await;

    let tools = pb::ListToolsRequest::default();
    observed.client.list_tools(tools).await.unwrap();

    assert_eq!(observed.end().await.tree(), rpc("ListTools", "OK"));
}
