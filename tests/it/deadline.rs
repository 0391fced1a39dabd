use std::sync::{Arc, Mutex};

use fanfare::{demo::tools::DemoTools, pb, transport::grpc_timeout};
use serde_json::json;
use tokio::time::Instant;
use tonic::{Code, Request};
use tonic_types::StatusExt as _;

use crate::support::{
    SECOND, Seen, call, call_with, config, error_info, expired, length, ms, pipes, request, seen,
    tools::{Running, Scripted, ServiceFn, catalog},
};

fn with_grpc_timeout<T>(message: T, value: &str) -> Request<T> {
    let mut request = Request::new(message);
    request
        .metadata_mut()
        .insert("grpc-timeout", value.parse().unwrap());
    request
}

#[tokio::test(start_paused = true)]
async fn a_hanging_tool_costs_its_own_result_and_the_answer_comes_in_time() {
    let running = Running::default();
    let catalog = catalog([
        ("hangs", Scripted::hangs(&running)),
        ("fast", Scripted::answers_after(ms(200))),
    ]);
    let mut client = pipes::client(&config(), catalog).await;
    let calls = vec![call("a", "hangs"), call("b", "fast")];
    let start = Instant::now();

    let request = with_grpc_timeout(request(calls), "1S");
    let response = client.execute_tools(request).await.unwrap().into_inner();

    // The reply margin of 50 ms before the second is over.
    assert_eq!(start.elapsed(), ms(950));
    assert_eq!(seen(&response.results[0]), expired("maybe", "request"));
    assert_eq!(seen(&response.results[1]), Seen::Ok(json!(null)));
    assert_eq!(running.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_shortest_of_all_limits_ends_a_call_and_is_named() {
    let running = Running::default();
    let catalog = catalog([
        ("hangs", Scripted::hangs(&running)),
        ("impatient", Scripted::hangs(&running).timeout(2 * SECOND)),
    ]);
    let mut config = config();
    config.limits.max_request_timeout = 20 * SECOND;
    let mut client = pipes::client(&config, catalog).await;
    let calls = vec![
        pb::ToolCall {
            timeout: Some(prost_types::Duration {
                seconds: 1,
                nanos: 0,
            }),
            ..call("a", "impatient")
        },
        call("b", "impatient"),
        call("c", "hangs"),
    ];

    let response = client.execute_tools(request(calls.clone())).await.unwrap();

    let ends = |response: &pb::ExecuteToolsResponse| -> Vec<_> {
        let results = response.results.iter();
        results.map(|r| (length(r.duration), seen(r))).collect()
    };
    assert_eq!(
        ends(response.get_ref()),
        [
            (SECOND, expired("maybe", "call")),
            (2 * SECOND, expired("maybe", "tool")),
            (20 * SECOND - ms(50), expired("maybe", "server")),
        ]
    );

    // A caller may ask for less than the cap, not for more.
    let response = client
        .execute_tools(with_grpc_timeout(request(calls.clone()), "10S"))
        .await
        .unwrap();
    let last = (10 * SECOND - ms(50), expired("maybe", "request"));
    assert_eq!(ends(response.get_ref())[2], last);
    let response = client
        .execute_tools(with_grpc_timeout(request(calls), "99999999H"))
        .await
        .unwrap();
    let last = (20 * SECOND - ms(50), expired("maybe", "server"));
    assert_eq!(ends(response.get_ref())[2], last);
}

#[tokio::test(start_paused = true)]
async fn the_clock_runs_while_a_call_waits_for_its_turn() {
    let catalog = catalog([("slow", Scripted::answers_after(10 * SECOND))]);
    let mut client = pipes::client(&config(), catalog).await;
    let short = pb::ToolCall {
        timeout: Some(prost_types::Duration {
            seconds: 2,
            nanos: 0,
        }),
        ..call("b", "slow")
    };
    let request = pb::ExecuteToolsRequest {
        concurrency_limit: 1,
        ..request(vec![call("a", "slow"), short])
    };

    let response = client.execute_tools(request).await.unwrap().into_inner();

    let second = &response.results[1];
    assert_eq!(seen(second), expired("not_started", "call"));
    assert_eq!(length(second.duration), 2 * SECOND);
    assert_eq!(length(second.queue_duration), 2 * SECOND);
    assert_eq!(second.attempts, 0);
    assert_eq!(length(response.duration), 10 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_tool_is_told_what_really_remains() {
    let noted = Arc::new(Mutex::new(Vec::new()));
    let notes = Arc::clone(&noted);
    let tools = ServiceFn(move |request: Request<pb::CallToolRequest>| {
        let value = request.metadata().get("grpc-timeout").expect("a timeout");
        let timeout = grpc_timeout::parse(value.to_str().unwrap()).unwrap();
        notes.lock().unwrap().push(timeout);
        async {
            tokio::time::sleep(SECOND).await;
            Ok(None)
        }
    });
    let mut client = pipes::client_of_service(config(), tools, &["tool"]).await;
    let calls = vec![
        call("a", "tool"),
        pb::ToolCall {
            timeout: Some(prost_types::Duration {
                seconds: 3,
                nanos: 0,
            }),
            ..call("b", "tool")
        },
    ];
    // The second call waits a second for the first.
    let request = pb::ExecuteToolsRequest {
        concurrency_limit: 1,
        ..request(calls)
    };

    client
        .execute_tools(with_grpc_timeout(request, "10S"))
        .await
        .unwrap();

    assert_eq!(
        *noted.lock().unwrap(),
        [10 * SECOND - ms(50), 3 * SECOND - SECOND]
    );
}

#[tokio::test(start_paused = true)]
async fn a_tool_that_hangs_is_cut_off_over_grpc_too() {
    let names = ["hang", "sleep"];
    let mut client = pipes::client_of_service(config(), DemoTools::default(), &names).await;
    let calls = vec![
        call("a", "hang"),
        call_with("b", "sleep", json!({"seconds": 0.1})),
    ];
    let start = Instant::now();

    let request = with_grpc_timeout(request(calls), "300m");
    let response = client.execute_tools(request).await.unwrap().into_inner();

    // At most a tenth is kept as a margin.
    assert_eq!(start.elapsed(), ms(270));
    assert_eq!(seen(&response.results[0]), expired("maybe", "request"));
    let info = error_info(crate::support::error(&response.results[0]));
    assert_eq!(info.metadata["retryable"], "false");
    assert!(matches!(seen(&response.results[1]), Seen::Ok(_)));
}

#[tokio::test(start_paused = true)]
async fn an_expired_request_calls_no_tool() {
    let catalog = catalog([("never", Scripted::new(|_| async { panic!("was called") }))]);
    let mut client = pipes::client(&config(), catalog).await;

    for value in ["0n", "0S"] {
        let request = with_grpc_timeout(request(vec![call("", "never")]), value);
        let status = client.execute_tools(request).await.unwrap_err();
        // tonic's client may give up first, with its own code.
        assert!(
            matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled),
            "{status}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_malformed_timeout_is_refused_and_never_unlimited() {
    let catalog = catalog([("never", Scripted::new(|_| async { panic!("was called") }))]);
    let mut client = pipes::client(&config(), catalog).await;

    for value in ["bogus", "", "123456789S", "-1S", "1s", "1.5S"] {
        let request = with_grpc_timeout(request(vec![call("", "never")]), value);
        let status = client.execute_tools(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{value:?}");
        let violations = status.get_details_bad_request().unwrap().field_violations;
        assert_eq!(violations[0].field, "grpc-timeout");
    }
    let mut twice = with_grpc_timeout(request(vec![call("", "never")]), "1S");
    twice
        .metadata_mut()
        .append("grpc-timeout", "2S".parse().unwrap());
    let status = client.execute_tools(twice).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
}
