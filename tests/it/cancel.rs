use std::sync::Arc;

use fanfare::{pb, server::Server};
use futures_util::FutureExt as _;
use tonic::Code;

use crate::support::{
    SECOND, Seen, call, config, failed, length, ms, pipes, request, seen,
    tools::{Running, Scripted, catalog},
};

/// Waits until `running` is at `count`, for at most 250 ms.
async fn settles_at(running: &Running, count: usize) {
    let settled = async {
        while running.count() != count {
            tokio::time::sleep(ms(1)).await;
        }
    };
    tokio::time::timeout(ms(250), settled)
        .await
        .unwrap_or_else(|_| panic!("{} calls run, not {count}", running.count()));
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_cancels_ends_its_calls() {
    let running = Running::default();
    let catalog = catalog([("hangs", Scripted::hangs(&running))]);
    let mut client = pipes::client(&config(), catalog).await;
    let calls: Vec<_> = (0..100).map(|_| call("", "hangs")).collect();

    let mut rpc = client.execute_tools(request(calls)).boxed();
    assert!((&mut rpc).now_or_never().is_none());
    tokio::select! {
        _ = &mut rpc => panic!("hanging tools answered"),
        () = settles_at(&running, 100) => {}
    }
    drop(rpc);

    settles_at(&running, 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_drops_its_stream_ends_its_calls() {
    let running = Running::default();
    let catalog = catalog([
        ("hangs", Scripted::hangs(&running)),
        ("fast", Scripted::answers_after(ms(1))),
    ]);
    let mut client = pipes::client(&config(), catalog).await;
    let mut calls: Vec<_> = (0..99).map(|_| call("", "hangs")).collect();
    calls.push(call("", "fast"));

    let stream = client.stream_execute_tools(request(calls)).await.unwrap();
    let mut stream = stream.into_inner();
    stream.message().await.unwrap().expect("the fast one");
    settles_at(&running, 99).await;
    drop(stream);

    settles_at(&running, 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_breaks_ends_its_calls() {
    let running = Running::default();
    let catalog = catalog([("hangs", Scripted::hangs(&running))]);
    let server = Arc::new(Server::orchestrator(&config(), catalog).await);
    let mut client = pipes::client_of(&server).await;
    let calls: Vec<_> = (0..10).map(|_| call("", "hangs")).collect();

    let task = tokio::spawn(async move { client.execute_tools(request(calls)).await });
    settles_at(&running, 10).await;
    // Drops the channel with the call, and so the pipe.
    task.abort();

    settles_at(&running, 0).await;
}

#[tokio::test(start_paused = true)]
async fn the_first_failure_cancels_the_rest_if_asked_to() {
    let running = Running::default();
    let catalog = catalog([
        ("hangs", Scripted::hangs(&running)),
        ("fails", Scripted::fails_after(SECOND)),
        ("fast", Scripted::answers_after(ms(1))),
    ]);
    let mut client = pipes::client(&config(), catalog).await;
    let calls = vec![
        call("a", "hangs"),
        call("b", "fails"),
        call("c", "fast"),
        call("d", "hangs"),
    ];
    let request = pb::ExecuteToolsRequest {
        failure_policy: pb::FailurePolicy::CancelRest.into(),
        concurrency_limit: 3,
        ..request(calls)
    };

    let response = client.execute_tools(request.clone()).await.unwrap();

    let response = response.into_inner();
    assert_eq!(length(response.duration), SECOND);
    let outcomes: Vec<Seen> = response.results.iter().map(seen).collect();
    let cancelled = failed(Code::Cancelled, "CANCELLED", "maybe");
    assert_eq!(
        outcomes,
        [
            cancelled.clone(),
            failed(Code::Aborted, "TOOL_FAILED", "done"),
            Seen::Ok(serde_json::Value::Null),
            cancelled,
        ]
    );
    assert_eq!(running.count(), 0);

    // With room for one at a time, the others were never started.
    let mut one_at_a_time = request;
    one_at_a_time.concurrency_limit = 1;
    one_at_a_time.calls.rotate_left(1);
    let response = client.execute_tools(one_at_a_time).await.unwrap();
    let never = failed(Code::Cancelled, "CANCELLED", "not_started");
    let outcomes: Vec<Seen> = response.get_ref().results.iter().map(seen).collect();
    assert_eq!(outcomes[1..], [never.clone(), never.clone(), never]);
}
