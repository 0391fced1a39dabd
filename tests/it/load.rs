use std::{
    collections::HashSet,
    future::{pending, ready},
};

use fanfare::pb::{self, stream_execute_tools_response::Event};
use serde_json::json;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{interval, timeout},
};
use tonic::Code;

use crate::support::{
    Seen, call, call_with, failed, ledger, ms,
    process::{PATIENCE, Process},
    relay::Relay,
    request, seen,
    service::Service,
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

/// Tools on a real socket, whose calls wait until they are let go; without an id,
/// those of `late` are answered at once, others hang.
async fn held() -> (Service, watch::Sender<bool>) {
    let (release, released) = watch::channel(false);
    let service = Service::start(move |call| {
        let mut released = released.clone();
        async move {
            match (call.id.as_str(), call.name.as_str()) {
                ("", "late") => return Ok(()),
                ("", _) => pending::<()>().await,
                _ => {}
            }
            released.wait_for(|&released| released).await.expect("it");
            Ok(())
        }
    })
    .await;
    (service, release)
}

/// Over 16 connections, all in flight with the tool at a time; each is answered, and
/// was made once. The tool, in one thread with the callers, may take its time to take a
/// connection.
#[tokio::test]
async fn ten_thousand_requests_have_a_call_each_in_flight() {
    let count = MANY;
    let (service, release) = held().await;
    let server = Process::serve(&format!(
        "[server]\nlisten = '127.0.0.1:0'\n[limits]\nmax_in_flight_calls = {count}\n\
         [services.tools]\nendpoint = 'http://{}'\nconnect_timeout = '30s'\n\
         [tools.tool]\nservice = 'tools'\ntimeout = '5m'\nretry.connect_patience = '30s'\n",
        service.listen().await
    ))
    .await;
    let mut clients = Vec::new();
    for _ in 0..16 {
        clients.push(server.client().await);
    }
    let mut running = JoinSet::new();
    for index in 0..count {
        let mut client = clients[index % clients.len()].clone();
        let batch = request(vec![call(&index.to_string(), "tool")]);
        running.spawn(async move { client.execute_tools(batch).await });
    }
    tokio::select! {
        () = service.works_on(count) => {}
        early = running.join_next() => panic!("before it was let go: {early:?}"),
    }
    release.send_replace(true);

    let mut answered = 0;
    for response in running.join_all().await {
        for result in &response.expect("an OK").get_ref().results {
            assert_eq!((seen(result), result.attempts), (Seen::Ok(json!(null)), 1));
            answered += 1;
        }
    }
    assert_eq!(answered, count);
    let ids: HashSet<_> = service.met().into_iter().map(|met| met.id).collect();
    assert_eq!((ids.len(), service.met().len()), (count, count));
    assert_eq!(service.cancelled(), 0);
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
async fn a_hundred_thousand_calls_of_one_request_are_answered_if_that_is_allowed() {
    const COUNT: usize = 100_000;
    let service = Service::start(|_| ready(Ok(()))).await;
    let server = Process::serve(&format!(
        "[server]\nlisten = '127.0.0.1:0'\n[limits]\nmax_calls_per_request = {COUNT}\n\
         concurrency_limit = 1000\nmax_in_flight_calls = {count}\n\
         max_response_bytes = '128MiB'\n\
         [services.tools]\nendpoint = 'http://{}'\n\
         [tools.tool]\nservice = 'tools'\ntimeout = '5m'\n",
        service.listen().await,
        count = COUNT + 100,
    ))
    .await;
    let client = server.client().await.max_decoding_message_size(64 << 20);
    let calls = (0..COUNT).map(|index| call(&index.to_string(), "tool"));
    let large = tokio::spawn({
        let (mut client, calls) = (client.clone(), request(calls.collect()));
        async move { client.execute_tools(calls).await }
    });

    // Others are served meanwhile.
    let mut small = 0;
    while !large.is_finished() {
        let batch = request(vec![call("", "tool")]);
        let response = client.clone().execute_tools(batch).await.expect("an OK");
        assert_eq!(seen(&response.get_ref().results[0]), Seen::Ok(json!(null)));
        small += 1;
    }

    assert!(small > 10, "{small} other requests");
    let response = large.await.expect("no panic").expect("an OK").into_inner();
    assert_eq!(response.results.len(), COUNT);
    for (index, result) in response.results.iter().enumerate() {
        assert_eq!(result.id, index.to_string());
        assert_eq!((seen(result), result.attempts), (Seen::Ok(json!(null)), 1));
    }
    let ids: HashSet<_> = service.met().into_iter().map(|met| met.id).collect();
    assert_eq!(ids.len(), COUNT + 1);
    assert_eq!(service.met().len(), COUNT + small);
}

/// On a line where an answer takes 100 ms, and comes after the cancel.
#[tokio::test]
async fn a_thousand_cancels_a_second_cost_no_call_beside_them() {
    const BATCH: usize = 100;
    let (service, release) = held().await;
    let line = Relay::to(service.listen().await, ms(50)).await;
    let server = Process::serve(&format!(
        "[server]\nlisten = '127.0.0.1:0'\n[services.tools]\nendpoint = 'http://{}'\n\
         max_connections_per_address = 1\n\
         [tools.tool]\nservice = 'tools'\ntimeout = '5m'\n\
         [tools.late]\nservice = 'tools'\n",
        line.address
    ))
    .await;
    let client = server.client().await;
    let long = (0..BATCH).map(|index| call(&format!("l{index}"), "tool"));
    let long = tokio::spawn({
        let (mut client, calls) = (client.clone(), long.collect());
        async move { client.execute_tools(request(calls)).await }
    });
    service.works_on(BATCH).await;

    let mut ticks = interval(ms(100));
    let mut sent = 0;
    let cancels = async {
        while service.cancelled() < 1500 {
            ticks.tick().await;
            sent += BATCH;
            let mut client = client.clone();
            let mut calls = vec![call("", "tool"); BATCH];
            calls[..BATCH / 2].fill(call("", "late"));
            // Cancelled by its drop.
            let _ = timeout(ms(75), client.execute_tools(request(calls))).await;
        }
    };
    timeout(PATIENCE, cancels)
        .await
        .expect("3000 cancels, half of them late");
    service.works_on(BATCH).await;
    release.send_replace(true);

    let results = long.await.unwrap().unwrap().into_inner().results;
    for result in &results {
        assert_eq!((seen(result), result.attempts), (Seen::Ok(json!(null)), 1));
        assert_eq!(service.attempts(&result.id), [1]);
    }
    // Each is left before its peer has seen too many resets; those that are left wait for
    // the long calls on them. A busy machine needs more cancels until the tool has seen so
    // many, and so more connections: of the 6,000 that are sent on an idle one, 64 at most.
    let connections = line.connections();
    assert!(
        connections <= sent / 93,
        "{connections} connections for {sent} cancels"
    );
}
