use std::sync::Arc;

use fanfare::{catalog::Catalog, core::call::ToolName, demo::tools::DemoTools, pb};
use serde_json::json;
use tonic::Request;

use crate::support::{
    SECOND,
    bare::{self, Bare},
    call, call_with, config,
    observed::Observed,
    page::Page,
    request,
    tools::Scripted,
};

const UNARY: &str = "fanfare.v1.OrchestratorService/ExecuteTools";
const STREAM: &str = "fanfare.v1.OrchestratorService/StreamExecuteTools";

fn sleep(seconds: u64) -> pb::ToolCall {
    call_with("", "sleep", json!({"seconds": seconds}))
}

fn fail() -> pb::ToolCall {
    call_with("", "fail", json!({"code": 5, "message": "no"}))
}

fn one_at_a_time(calls: Vec<pb::ToolCall>) -> pb::ExecuteToolsRequest {
    pb::ExecuteToolsRequest {
        concurrency_limit: 1,
        ..request(calls)
    }
}

/// How many values a histogram has, and their sum.
fn histogram(page: &Page, name: &str, labels: &[(&str, &str)]) -> (f64, f64) {
    let count = page.value(&format!("{name}_count"), labels);
    (count, page.value(&format!("{name}_sum"), labels))
}

/// An answered request of three calls with ten seconds, a stream of two that take
/// turns, a request that asks for nothing that is there.
async fn traffic(observed: &mut Observed) {
    let mut with_deadline = Request::new(request(vec![sleep(3), sleep(1), fail()]));
    with_deadline.set_timeout(10 * SECOND);
    observed.client.execute_tools(with_deadline).await.unwrap();

    let stream = one_at_a_time(vec![sleep(2), sleep(1)]);
    let stream = observed.client.stream_execute_tools(stream).await;
    let mut stream = stream.unwrap().into_inner();
    while stream.message().await.unwrap().is_some() {}

    let mut nothing = Request::new(request(vec![]));
    nothing.set_timeout(10 * SECOND);
    observed.client.execute_tools(nothing).await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn the_page_says_what_happened() {
    let mut observed = Observed::start().await;
    traffic(&mut observed).await;
    let page = observed.end().await.page;

    let rpcs = "rpc_server_call_duration_seconds";
    let ok = ("rpc_response_status_code", "OK");
    let labels = |method| [("rpc_method", method), ok];
    assert_eq!(histogram(&page, rpcs, &labels(UNARY)), (1.0, 3.0));
    assert_eq!(histogram(&page, rpcs, &labels(STREAM)), (1.0, 3.0));
    let invalid = [("rpc_response_status_code", "INVALID_ARGUMENT")];
    assert_eq!(histogram(&page, rpcs, &invalid), (1.0, 0.0));
    assert_eq!(page.sum("rpc_server_call_duration_seconds_count", &[]), 3.0);

    let attempts = "rpc_client_call_duration_seconds";
    let slept = [
        ("gen_ai_tool_name", "sleep"),
        ok,
        ("server_address", "tools"),
    ];
    assert_eq!(histogram(&page, attempts, &slept), (4.0, 7.0));
    let failed = [
        ("gen_ai_tool_name", "fail"),
        ("rpc_response_status_code", "NOT_FOUND"),
        ("error_type", "NOT_FOUND"),
        ("server_port", "80"),
    ];
    assert_eq!(histogram(&page, attempts, &failed), (1.0, 0.0));

    let calls = "gen_ai_execute_tool_duration_seconds";
    // The one that waits for two seconds takes three.
    let slept = [
        ("gen_ai_tool_name", "sleep"),
        ("gen_ai_tool_type", "extension"),
    ];
    assert_eq!(histogram(&page, calls, &slept), (4.0, 9.0));
    let failed = [("gen_ai_tool_name", "fail"), ("error_type", "TOOL_FAILED")];
    assert_eq!(histogram(&page, calls, &failed), (1.0, 0.0));

    let waits = "fanfare_tool_queue_wait_duration_seconds";
    assert_eq!(
        histogram(&page, waits, &[("gen_ai_tool_name", "sleep")]),
        (1.0, 2.0)
    );
    let sizes = "fanfare_request_batch_size";
    assert_eq!(
        histogram(&page, sizes, &[("rpc_method", UNARY)]),
        (1.0, 3.0)
    );
    assert_eq!(
        histogram(&page, sizes, &[("rpc_method", STREAM)]),
        (1.0, 2.0)
    );
    let saved = "fanfare_request_saved_time_seconds_total";
    assert_eq!(page.value(saved, &[("rpc_method", UNARY)]), 1.0);
    assert_eq!(page.value(saved, &[("rpc_method", STREAM)]), 2.0);
    // Only of results, and of the caller that said by when it wants them.
    let slack = "fanfare_request_deadline_slack_seconds";
    assert_eq!(histogram(&page, slack, &[]), (1.0, 7.0));
    let invalid = [
        ("rpc_method", UNARY),
        ("fanfare_rejection_reason", "invalid"),
    ];
    assert_eq!(
        page.value("fanfare_request_rejections_total", &invalid),
        1.0
    );
    for none in [
        "fanfare_tool_rejections_total",
        "fanfare_tool_retries_total",
    ] {
        assert_eq!(page.all(none, &[]).len(), 0, "{none}");
    }
    let dropped = page.all("fanfare_telemetry_dropped_spans_total", &[]);
    assert_eq!(dropped.len(), 2);
    assert!(dropped.iter().all(|sample| sample.value == 0.0));
}

/// Requests, calls with `hang`, calls that wait for it, all calls in flight.
fn under_way(page: &Page) -> (f64, f64, f64, f64) {
    let hang = [("gen_ai_tool_name", "hang")];
    (
        page.sum("fanfare_active_requests", &[]),
        page.value("fanfare_tool_active_calls", &hang),
        page.value("fanfare_tool_queue_length", &hang),
        page.value("fanfare_in_flight_calls", &[]),
    )
}

#[tokio::test(start_paused = true)]
async fn gauges_come_back_to_zero_however_a_request_ends() {
    let mut config = config();
    config.limits.max_request_timeout = 10 * SECOND;
    let observed = Observed::with(config, DemoTools::default(), &[]).await;
    let observer = &observed.observer;
    let page = || observer.page();
    let hanging = || pb::ExecuteToolsRequest {
        concurrency_limit: 2,
        ..request(vec![call("", "hang"); 5])
    };
    assert_eq!(under_way(&page()), (0.0, 0.0, 0.0, 0.0));

    // Expiry, unary and stream at the same time.
    let (mut unary, mut stream) = (observed.client.clone(), observed.client.clone());
    let unary = tokio::spawn(async move { unary.execute_tools(hanging()).await });
    let stream = tokio::spawn(async move { stream.stream_execute_tools(hanging()).await });
    tokio::time::sleep(SECOND).await;
    assert_eq!(under_way(&page()), (2.0, 4.0, 6.0, 10.0));
    unary.await.unwrap().unwrap();
    let mut stream = stream.await.unwrap().unwrap().into_inner();
    while stream.message().await.unwrap().is_some() {}
    // Once the streams to the tools are reset.
    observer.idle().await;
    assert_eq!(under_way(&page()), (0.0, 0.0, 0.0, 0.0));

    // The caller leaves.
    let (mut unary, mut stream) = (observed.client.clone(), observed.client.clone());
    let unary = tokio::spawn(async move { unary.execute_tools(hanging()).await });
    let stream = stream.stream_execute_tools(hanging()).await.unwrap();
    tokio::time::sleep(SECOND).await;
    assert_eq!(under_way(&page()), (2.0, 4.0, 6.0, 10.0));
    unary.abort();
    drop(stream);
    observer.idle().await;
    assert_eq!(under_way(&page()), (0.0, 0.0, 0.0, 0.0));

    // Another call fails, and these do not matter any more.
    let cancel_rest = pb::ExecuteToolsRequest {
        failure_policy: pb::FailurePolicy::CancelRest.into(),
        calls: vec![call("", "hang"), sleep(2), fail(), call("", "hang")],
        ..hanging()
    };
    let mut client = observed.client.clone();
    let rpc = tokio::spawn(async move { client.execute_tools(cancel_rest).await });
    tokio::time::sleep(SECOND).await;
    assert_eq!(under_way(&page()), (1.0, 1.0, 1.0, 4.0));
    rpc.await.unwrap().unwrap();
    observer.idle().await;
    assert_eq!(under_way(&page()), (0.0, 0.0, 0.0, 0.0));
}

#[tokio::test(start_paused = true)]
async fn calls_in_flight_are_shown_beside_their_limit_until_they_are_handed_on() {
    let mut config = config();
    config.limits.max_in_flight_calls = 5;
    let observed = Observed::with(config, DemoTools::default(), &[]).await;
    let in_flight = || {
        let page = observed.observer.page();
        let of = |name| page.all(name, &[]).first().map(|sample| sample.value);
        let limit = of("fanfare_in_flight_calls_limit");
        (of("fanfare_in_flight_calls"), limit)
    };
    assert_eq!(in_flight(), (Some(0.0), Some(5.0)));

    let mut client = observed.client.clone();
    let calls = request(vec![sleep(1), sleep(2), sleep(4)]);
    let stream = client.stream_execute_tools(calls).await.unwrap();
    let mut stream = stream.into_inner();
    assert_eq!(in_flight(), (Some(3.0), Some(5.0)));
    let too_many = client.execute_tools(request(vec![sleep(1); 3])).await;
    too_many.unwrap_err();
    assert_eq!(in_flight(), (Some(3.0), Some(5.0)));

    for left in [2.0, 1.0, 0.0] {
        stream.message().await.unwrap().unwrap();
        assert_eq!(in_flight(), (Some(left), Some(5.0)));
    }
    observed.end().await;
}

#[tokio::test(start_paused = true)]
async fn names_that_callers_make_up_add_no_series() {
    let mut observed = Observed::start().await;
    let mut caller = Bare::over(bare::pipe_to(&observed.server)).await;
    let mut make_up = async |from: usize, to: usize| {
        let names = (from..to).map(|number| format!("made_up_{number}"));
        let calls: Vec<_> = names.map(|name| call("", &name)).collect();
        for calls in calls.chunks(100) {
            let calls = request(calls.to_vec());
            observed.client.execute_tools(calls).await.unwrap();
        }
        for number in from..to {
            let path = format!("/made.up.Service{number}/Method{number}");
            caller.call(&path, &[], Some(Vec::new())).await.unwrap();
        }
        observed.observer.page()
    };

    let before = make_up(0, 1).await;
    let after = make_up(1, 1000).await;

    assert_eq!(before.samples.len(), after.samples.len());
    let labels: Vec<_> = after
        .samples
        .iter()
        .flat_map(|s| s.labels.values())
        .collect();
    assert!(labels.iter().all(|label| !label.contains("made")));
    let other = [("gen_ai_tool_name", "_OTHER")];
    assert_eq!(after.value("fanfare_tool_rejections_total", &other), 1000.0);
    let other = [("rpc_method", "_OTHER")];
    assert_eq!(
        after.value("rpc_server_call_duration_seconds_count", &other),
        1000.0
    );
}

#[tokio::test(start_paused = true)]
async fn each_of_many_tools_has_series_of_its_own() {
    let tools = (0..2500).map(|number| (format!("tool_{number}"), Scripted::answers_with(0)));
    let mut catalog = Catalog::default();
    for (name, tool) in tools {
        let name = ToolName::try_new(name).unwrap();
        catalog.insert(name, String::new(), Arc::new(tool));
    }
    // So many spans would be sent while the clock leaps, and time out.
    let variables = [("OTEL_TRACES_EXPORTER", "none")];
    let observed = Observed::of(&config(), catalog, &variables).await;
    for numbers in (0..2500).collect::<Vec<_>>().chunks(100) {
        let calls = numbers
            .iter()
            .map(|number| call("", &format!("tool_{number}")));
        let calls = request(calls.collect());
        observed.client.clone().execute_tools(calls).await.unwrap();
    }
    let page = observed.end().await.page;
    for name in [
        "fanfare_tool_active_calls",
        "gen_ai_execute_tool_duration_seconds_count",
    ] {
        assert_eq!(page.all(name, &[]).len(), 2500, "{name}");
    }
}

/// Where the buckets of a histogram end.
fn bounds(page: &Page, name: &str) -> Vec<f64> {
    let buckets = page.all(&format!("{name}_bucket"), &[]).into_iter();
    let ends = buckets.map(|bucket| bucket.labels["le"].parse().unwrap());
    let mut ends: Vec<f64> = ends.filter(|end: &f64| end.is_finite()).collect();
    ends.sort_by(f64::total_cmp);
    ends.dedup();
    ends
}

#[tokio::test(start_paused = true)]
async fn buckets_end_where_the_conventions_say() {
    let mut observed = Observed::start().await;
    traffic(&mut observed).await;
    let page = observed.end().await.page;

    let rpc = [
        0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    ];
    for name in ["rpc_server", "rpc_client"] {
        assert_eq!(bounds(&page, &format!("{name}_call_duration_seconds")), rpc);
    }
    let tool: Vec<_> = (0..14).map(|power| 0.01 * f64::from(1 << power)).collect();
    let name = "gen_ai_execute_tool_duration_seconds";
    assert_eq!(bounds(&page, name), tool);
}

#[tokio::test(start_paused = true)]
async fn whose_time_ran_out_is_counted() {
    let mut observed = Observed::start().await;
    let own = prost_types::Duration {
        seconds: 1,
        nanos: 0,
    };
    let with_own = pb::ToolCall {
        timeout: Some(own),
        ..call("", "hang")
    };
    let mut calls = Request::new(request(vec![with_own, call("", "hang"), sleep(1)]));
    calls.set_timeout(2 * SECOND);
    observed.client.execute_tools(calls).await.unwrap();
    let page = observed.end().await.page;

    let timeouts = "fanfare_tool_timeouts_total";
    for limit in ["call", "request"] {
        let labels = [("gen_ai_tool_name", "hang"), ("fanfare_call_limit", limit)];
        assert_eq!(page.value(timeouts, &labels), 1.0, "{limit}");
    }
    assert_eq!(page.sum(timeouts, &[]), 2.0);
}
