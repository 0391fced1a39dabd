use fanfare::pb::{self, stream_execute_tools_response::Event};
use serde_json::json;
use tonic::Code;

use crate::support::{
    Seen, call, call_with, failed, ledger, ms,
    process::{PATIENCE, Process},
    request, seen,
};

const MANY: usize = 10_000;

/// Call `index` of many, each to one of four tools.
fn mixed(index: usize) -> pb::ToolCall {
    let id = format!("c{index}");
    match index % 4 {
        0 => call_with(&id, "echo", json!({"index": index})),
        1 => call_with(&id, "sleep", json!({"seconds": 0.01})),
        2 => call_with(&id, "payload", json!({"bytes": 3})),
        _ => call_with(&id, "fail", json!({"code": 5, "message": "no"})),
    }
}

fn answer_to(index: usize) -> Seen {
    match index % 4 {
        0 => Seen::Ok(json!({"index": index})),
        1 => Seen::Ok(json!({"slept_seconds": 0.01})),
        2 => Seen::Ok(json!("xxx")),
        _ => failed(Code::NotFound, "TOOL_FAILED", "done"),
    }
}

fn assert_in_order(results: &[pb::ToolExecutionResult]) {
    assert_eq!(results.len(), MANY);
    for (index, result) in results.iter().enumerate() {
        assert_eq!(result.index as usize, index);
        assert_eq!(result.id, format!("c{index}"));
        assert_eq!(result.attempts, 1);
        assert_eq!(seen(result), answer_to(index), "{index}");
    }
}

#[tokio::test]
async fn ten_thousand_calls_of_one_request_are_answered_in_order_once_each() {
    let tools = Process::demo_tools().await;
    let limits = "max_calls_per_request = 10000\nmax_response_bytes = \"32MiB\"";
    let server = Process::serve_demo("", limits, tools.address).await;
    let mut client = server.client().await.max_decoding_message_size(64 << 20);
    let calls = || request((0..MANY).map(mixed).collect());

    let response = client.execute_tools(calls()).await.unwrap().into_inner();
    assert_in_order(&response.results);

    let stream = client.stream_execute_tools(calls()).await;
    let mut stream = stream.unwrap().into_inner();
    let mut completed = vec![0; MANY];
    let mut aggregate = None;
    while let Some(message) = stream.message().await.unwrap() {
        match message.event.expect("an event") {
            Event::Completion(result) => completed[result.index as usize] += 1,
            Event::Aggregate(response) => aggregate = Some(response),
        }
    }
    assert!(completed.iter().all(|&count| count == 1));
    assert_in_order(&aggregate.expect("the aggregate").results);
    assert_eq!(ledger::started(&tools, 2 * MANY).await.len(), 2 * MANY);
}

#[tokio::test]
async fn a_hundred_thousand_calls_are_refused_before_any_is_made() {
    let tools = Process::demo_tools().await;
    let server = Process::serve_demo("", "", tools.address).await;
    let mut client = server.client().await;

    let refused = client
        .execute_tools(request(vec![call("", "echo"); 100_000]))
        .await;
    assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument);
    // What comes after it is the first that the tools hear of.
    let response = client.execute_tools(request(vec![call("", "echo")])).await;
    assert_eq!(response.unwrap().into_inner().results[0].attempts, 1);
    assert_eq!(ledger::started(&tools, 1).await.len(), 1);
}

#[tokio::test]
async fn a_thousand_cancels_a_second_cost_no_call_beside_them() {
    const BATCH: usize = 100;
    let tools = Process::demo_tools().await;
    let server = Process::serve_demo("", "", tools.address).await;
    let client = server.client().await;
    let long = (0..BATCH).map(|i| call_with(&format!("l{i}"), "sleep", json!({"seconds": 4})));
    let long = tokio::spawn({
        let (mut client, calls) = (client.clone(), long.collect());
        async move { client.execute_tools(request(calls)).await }
    });
    ledger::started(&tools, BATCH).await;

    let mut ticks = tokio::time::interval(ms(100));
    for _ in 0..30 {
        ticks.tick().await;
        let mut client = client.clone();
        let hanging = request(vec![call("", "hang"); BATCH]);
        // Cancelled by its drop.
        let _ = tokio::time::timeout(ms(50), client.execute_tools(hanging)).await;
    }

    let results = long.await.unwrap().unwrap().into_inner().results;
    for result in &results {
        assert_eq!(seen(result), Seen::Ok(json!({"slept_seconds": 4})));
        assert_eq!(result.attempts, 1);
    }
    // Nothing is left running.
    let count = |event| ledger::count(&tools, event);
    let all_ended = async {
        while count("call started") != count("call cancelled") + count("call answered") {
            tokio::time::sleep(ms(10)).await;
        }
    };
    let ended = tokio::time::timeout(PATIENCE, all_ended).await;
    assert!(ended.is_ok(), "{} are left", count("call started"));
}
