use fanfare::pb;
use tokio::time::Instant;
use tonic::Code;

use crate::support::{
    SECOND, Seen, call, config, failed, length, ms, pipes, request, seen,
    tools::{Running, Scripted, catalog},
};

#[tokio::test(start_paused = true)]
async fn a_request_takes_as_long_as_its_slowest_tool() {
    let catalog = catalog([
        ("three", Scripted::answers_after(3 * SECOND)),
        ("one", Scripted::answers_after(SECOND)),
        ("two", Scripted::answers_after(2 * SECOND)),
    ]);
    let mut client = pipes::client(&config(), catalog).await;
    let start = Instant::now();

    let calls = vec![call("a", "three"), call("b", "one"), call("c", "two")];
    let response = client.execute_tools(request(calls)).await.unwrap();

    assert_eq!(start.elapsed(), 3 * SECOND);
    let response = response.into_inner();
    assert_eq!(length(response.duration), 3 * SECOND);
    let results: Vec<_> = response
        .results
        .iter()
        .map(|r| (r.index, r.id.as_str(), r.name.as_str(), length(r.duration)))
        .collect();
    assert_eq!(
        results,
        [
            (0, "a", "three", 3 * SECOND),
            (1, "b", "one", SECOND),
            (2, "c", "two", 2 * SECOND),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn times_are_told_by_both_clocks() {
    let catalog = catalog([("one", Scripted::answers_after(SECOND))]);
    let mut client = pipes::client(&config(), catalog).await;

    let response = client.execute_tools(request(vec![call("", "one")])).await;

    let response = response.unwrap().into_inner();
    let result = &response.results[0];
    assert_eq!(result.start_time, response.start_time);
    assert_eq!(result.end_time, response.end_time);
    let (start, end) = (result.start_time.unwrap(), result.end_time.unwrap());
    let nanos = |t: prost_types::Timestamp| t.seconds * 1_000_000_000 + i64::from(t.nanos);
    assert_eq!(nanos(end) - nanos(start), 1_000_000_000);
    assert_eq!(length(result.queue_duration), ms(0));
}

#[tokio::test(start_paused = true)]
async fn the_concurrency_limit_makes_calls_wait_in_order() {
    let catalog = catalog([("one", Scripted::answers_after(SECOND))]);
    let mut client = pipes::client(&config(), catalog).await;
    let calls = (0..5).map(|_| call("", "one")).collect();
    let request = pb::ExecuteToolsRequest {
        concurrency_limit: 2,
        ..request(calls)
    };

    let response = client.execute_tools(request).await.unwrap().into_inner();

    let waited: Vec<_> = response
        .results
        .iter()
        .map(|r| (length(r.queue_duration), length(r.duration)))
        .collect();
    let zero = ms(0);
    assert_eq!(
        waited,
        [
            (zero, SECOND),
            (zero, SECOND),
            (SECOND, 2 * SECOND),
            (SECOND, 2 * SECOND),
            (2 * SECOND, 3 * SECOND),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn the_servers_concurrency_limit_is_the_upper_one() {
    let running = Running::default();
    let most = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let tool = {
        let (running, most) = (running.clone(), most.clone());
        Scripted::new(move |_| {
            let (running, most) = (running.clone(), most.clone());
            async move {
                let _guard = running.enter();
                most.fetch_max(running.count(), std::sync::atomic::Ordering::SeqCst);
                tokio::time::sleep(SECOND).await;
                Ok(bytes::Bytes::new())
            }
        })
    };
    let mut config = config();
    config.limits.concurrency_limit = 3;
    let mut client = pipes::client(&config, catalog([("one", tool)])).await;
    let calls = (0..9).map(|_| call("", "one")).collect();
    let request = pb::ExecuteToolsRequest {
        concurrency_limit: 100,
        ..request(calls)
    };

    let response = client.execute_tools(request).await.unwrap().into_inner();

    assert_eq!(length(response.duration), 3 * SECOND);
    assert_eq!(most.load(std::sync::atomic::Ordering::SeqCst), 3);
}

#[tokio::test(start_paused = true)]
async fn failures_are_data_beside_the_other_results() {
    let catalog = catalog([
        ("ok", Scripted::answers_after(SECOND)),
        ("fails", Scripted::fails_after(ms(1))),
        (
            "panics",
            Scripted::new(|_| async { panic!("a bug in a tool client") }),
        ),
    ]);
    let mut client = pipes::client(&config(), catalog).await;
    let calls = vec![
        call("a", "fails"),
        call("b", "ok"),
        call("c", "nobody"),
        call("d", "panics"),
    ];

    let response = client.execute_tools(request(calls)).await.unwrap();

    let outcomes: Vec<Seen> = response.get_ref().results.iter().map(seen).collect();
    assert_eq!(
        outcomes,
        [
            failed(Code::Aborted, "TOOL_FAILED", "done"),
            Seen::Ok(serde_json::Value::Null),
            failed(Code::NotFound, "UNKNOWN_TOOL", "not_started"),
            failed(Code::Internal, "INTERNAL", "maybe"),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn tools_are_listed_by_name() {
    let catalog = catalog([
        ("zeta", Scripted::answers_after(SECOND).timeout(7 * SECOND)),
        ("alpha", Scripted::answers_after(SECOND)),
        ("Mid", Scripted::answers_after(SECOND)),
    ]);
    let mut client = pipes::client(&config(), catalog).await;

    let tools = client
        .list_tools(pb::ListToolsRequest::default())
        .await
        .unwrap();

    let tools = tools.into_inner().tools;
    let names: Vec<_> = tools.iter().map(|tool| tool.name.as_str()).collect();
    assert_eq!(names, ["Mid", "alpha", "zeta"]);
    assert_eq!(length(tools[2].timeout), 7 * SECOND);
    assert_eq!(tools[1].description, "the tool alpha");
}
