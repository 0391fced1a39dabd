use std::sync::Arc;

use fanfare::{
    demo::tools::DemoTools,
    pb::{self, stream_execute_tools_response::Event, tool_execution_result::Outcome},
};
use serde_json::json;
use tokio::time::Instant;
use tonic::Code;

use crate::support::{
    SECOND, call, call_with, config, ms, pipes, request, seen,
    tools::{Scripted, catalog},
};

/// All messages of a stream, each with its time since `start`.
async fn read(
    mut stream: tonic::Streaming<pb::StreamExecuteToolsResponse>,
    start: Instant,
) -> (Vec<(Event, std::time::Duration)>, Option<tonic::Status>) {
    let mut events = Vec::new();
    loop {
        match stream.message().await {
            Ok(Some(message)) => events.push((message.event.unwrap(), start.elapsed())),
            Ok(None) => return (events, None),
            Err(status) => return (events, Some(status)),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn each_completion_comes_when_it_is_known_then_the_aggregate() {
    let config = config();
    let names = ["sleep", "echo", "fail"];
    let mut client = pipes::client_of_service(config, DemoTools::default(), &names).await;
    let calls = vec![
        call_with("a", "sleep", json!({"seconds": 3})),
        call_with("b", "fail", json!({"code": 5, "message": "no such city"})),
        call_with("c", "sleep", json!({"seconds": 1})),
        call("d", "unknown"),
    ];
    let unary = client.execute_tools(request(calls.clone())).await.unwrap();
    let start = Instant::now();

    let stream = client.stream_execute_tools(request(calls)).await.unwrap();
    let (events, end) = read(stream.into_inner(), start).await;

    assert!(end.is_none());
    let completions: Vec<_> = events
        .iter()
        .filter_map(|(event, at)| match event {
            Event::Completion(result) => Some((result.index, *at)),
            Event::Aggregate(_) => None,
        })
        .collect();
    assert_eq!(
        completions,
        // What comes right after another leaves a millisecond after it.
        [(3, ms(0)), (1, ms(1)), (2, SECOND), (0, 3 * SECOND)]
    );
    let (Some((Event::Aggregate(aggregate), at)), 5) = (events.last(), events.len()) else {
        panic!("no aggregate at the end: {events:#?}");
    };
    assert_eq!(*at, 3 * SECOND);
    let outcomes = |response: &pb::ExecuteToolsResponse| -> Vec<_> {
        let results = response.results.iter();
        results.map(|r| (r.index, r.id.clone(), seen(r))).collect()
    };
    assert_eq!(outcomes(aggregate), outcomes(unary.get_ref()));
    for (event, _) in &events {
        if let Event::Completion(result) = event {
            assert_eq!(result, &aggregate.results[result.index as usize]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_summary_leaves_out_what_was_streamed() {
    let names = ["echo", "fail"];
    let mut client = pipes::client_of_service(config(), DemoTools::default(), &names).await;
    let calls = vec![
        call_with("a", "echo", json!({"x": 1})),
        call_with("b", "fail", json!({"code": 5, "message": "no"})),
    ];
    let request = pb::ExecuteToolsRequest {
        aggregate_view: pb::AggregateView::Summary.into(),
        ..request(calls)
    };

    let stream = client.stream_execute_tools(request.clone()).await.unwrap();
    let (events, _) = read(stream.into_inner(), Instant::now()).await;

    let Some((Event::Aggregate(aggregate), _)) = events.last() else {
        panic!("no aggregate: {events:#?}");
    };
    assert_eq!(aggregate.results[0].outcome, None);
    assert!(aggregate.results[1].outcome.is_some());
    // The unary RPC ignores the view.
    let unary = client.execute_tools(request).await.unwrap().into_inner();
    assert!(unary.results[0].outcome.is_some());
}

#[tokio::test(start_paused = true)]
async fn nothing_gives_way_in_a_summary() {
    const BIG: usize = 900_000;
    let catalog = catalog([
        ("big", Scripted::answers_with(BIG)),
        ("fails", Scripted::fails_after(ms(1))),
    ]);
    let mut client = pipes::client(&config(), catalog).await;
    let mut calls = vec![call("", "big"); 8];
    calls.push(call("", "fails"));
    let request = |view: pb::AggregateView| pb::ExecuteToolsRequest {
        aggregate_view: view.into(),
        ..request(calls.clone())
    };

    let stream = client.stream_execute_tools(request(pb::AggregateView::Summary));
    let (mut events, end) = read(stream.await.unwrap().into_inner(), Instant::now()).await;

    assert!(end.is_none());
    let Some((Event::Aggregate(aggregate), _)) = events.pop() else {
        panic!("no aggregate: {events:#?}");
    };
    for (event, _) in &events {
        let Event::Completion(result) = event else {
            panic!("a second aggregate");
        };
        let in_aggregate = &aggregate.results[result.index as usize];
        match &result.outcome {
            Some(Outcome::Observation(observation)) => {
                assert_eq!(observation.len(), BIG);
                assert_eq!(in_aggregate.outcome, None);
            }
            _ => assert_eq!(in_aggregate, result),
        }
    }
    assert_eq!(events.len(), 9);
    // Eight of this size do not fit where they are wanted, whatever was streamed.
    let stream = client.stream_execute_tools(request(pb::AggregateView::Full));
    let (events, _) = read(stream.await.unwrap().into_inner(), Instant::now()).await;
    let failed = |results: &mut dyn Iterator<Item = &pb::ToolExecutionResult>| {
        results
            .filter(|result| matches!(result.outcome, Some(Outcome::Error(_))))
            .count()
    };
    let mut streamed = events.iter().filter_map(|(event, _)| match event {
        Event::Completion(result) => Some(result),
        Event::Aggregate(_) => None,
    });
    assert_eq!(failed(&mut streamed), 1);
    let Some((Event::Aggregate(aggregate), _)) = events.last() else {
        panic!("no aggregate at the end");
    };
    assert_eq!(failed(&mut aggregate.results.iter()), 5);
}

#[tokio::test(start_paused = true)]
async fn tools_do_not_wait_for_a_slow_reader() {
    let finished = Arc::new(tokio::sync::Semaphore::new(0));
    let tool = {
        let finished = finished.clone();
        Scripted::new(move |_| {
            let finished = finished.clone();
            async move {
                tokio::time::sleep(SECOND).await;
                finished.add_permits(1);
                // More than the pipe and the windows of the caller hold.
                Ok(bytes::Bytes::from(vec![0; 100_000]))
            }
        })
    };
    let mut config = config();
    config.limits.max_response_bytes = 64 << 20;
    let mut client = pipes::client(&config, catalog([("big", tool)])).await;
    let calls: Vec<_> = (0..200).map(|_| call("", "big")).collect();
    let request = pb::ExecuteToolsRequest {
        concurrency_limit: 20,
        ..request(calls)
    };

    let start = Instant::now();
    let stream = client.stream_execute_tools(request).await.unwrap();
    // Ten rounds of twenty end on time although nothing is read.
    let all = finished.acquire_many(200).await.unwrap();
    assert_eq!(start.elapsed(), 10 * SECOND);
    drop(all);
    let (events, end) = read(stream.into_inner(), start).await;

    assert!(end.is_none(), "{end:?}");
    assert_eq!(events.len(), 201);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_read_by_the_deadline_is_dropped() {
    let config = config();
    let server = fanfare::server::Server::orchestrator(
        &config,
        catalog([("big", Scripted::answers_with(900_000))]),
    )
    .await;
    let server = Arc::new(server);
    let mut client = pipes::client_of(&server).await;
    // More than the caller's windows hold: the rest waits in the server.
    let calls = (0..40).map(|_| call("", "big")).collect();
    let mut request = tonic::Request::new(pb::ExecuteToolsRequest {
        aggregate_view: pb::AggregateView::Summary.into(),
        ..request(calls)
    });
    request
        .metadata_mut()
        .insert("grpc-timeout", "5S".parse().unwrap());

    let start = Instant::now();
    let stream = client.stream_execute_tools(request).await.unwrap();
    tokio::time::sleep(6 * SECOND).await;
    let (events, end) = read(stream.into_inner(), start).await;

    assert_eq!(end.expect("an error").code(), Code::DeadlineExceeded);
    assert!(events.len() < 40, "{}", events.len());
}
