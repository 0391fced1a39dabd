use fanfare::pb;
use serde_json::json;
use tonic::Request;

use crate::support::{
    SECOND, call as tool_call, call_with, config, ms,
    observed::Observed,
    request,
    spans::{Tree, attempt, call, rpc},
    tools::{Scripted, catalog},
};

fn no_such_city() -> pb::ToolCall {
    call_with("", "fail", json!({"code": 5, "message": "no such city"}))
}

fn sleep(seconds: u64) -> pb::ToolCall {
    call_with("", "sleep", json!({"seconds": seconds}))
}

fn within(seconds: i64, call: pb::ToolCall) -> pb::ToolCall {
    let timeout = Some(prost_types::Duration { seconds, nanos: 0 });
    pb::ToolCall { timeout, ..call }
}

/// A call that never went to its tool.
fn not_asked(index: usize, tool: &str) -> Tree {
    call(index, tool).with("fanfare.call.attempts", 0)
}

#[tokio::test(start_paused = true)]
async fn a_failed_call_is_an_error_of_its_span_and_not_of_the_request() {
    let mut observed = Observed::start().await;

    let calls = vec![
        no_such_city(),
        tool_call("", "nobody"),
        tool_call("", "echo"),
    ];
    observed.client.execute_tools(request(calls)).await.unwrap();

    let not_found = attempt("NOT_FOUND").says("no such city");
    let seen = observed.end().await;
    let page = seen.page.clone();
    assert_eq!(
        seen.tree(),
        rpc("ExecuteTools", "OK").of_calls(3, 2).has([
            call(0, "fail")
                .fails("TOOL_FAILED", "done", "no such city")
                .has([not_found]),
            // A caller may make up as many names as it likes: no metric has them,
            // nor has the name of a span.
            not_asked(1, "_OTHER")
                .with("gen_ai.tool.name", "nobody")
                .fails("UNKNOWN_TOOL", "not_started", "no tool is named nobody"),
            call(2, "echo").has([attempt("OK")]),
        ])
    );
    let calls = "gen_ai_execute_tool_duration_seconds_count";
    for (tool, error) in [
        ("fail", "TOOL_FAILED"),
        ("_OTHER", "UNKNOWN_TOOL"),
        ("echo", ""),
    ] {
        let mut labels = vec![("gen_ai_tool_name", tool)];
        labels.extend((!error.is_empty()).then_some(("error_type", error)));
        assert_eq!(page.value(calls, &labels), 1.0, "{labels:?}");
    }
    assert_eq!(page.value(calls, &[("gen_ai_tool_name", "nobody")]), 0.0);
    let rejected = [
        ("gen_ai_tool_name", "_OTHER"),
        ("error_type", "UNKNOWN_TOOL"),
    ];
    assert_eq!(page.value("fanfare_tool_rejections_total", &rejected), 1.0);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_runs_out_of_time_names_the_limit() {
    let mut config = config();
    config.tools.insert(
        fanfare::core::call::ToolName::try_new("sleep".to_owned()).unwrap(),
        fanfare::config::Tool {
            timeout: 2 * SECOND,
            ..fanfare::config::Tool::new("tools".to_owned())
        },
    );
    let tools = fanfare::demo::tools::DemoTools::default();
    let mut observed = Observed::with(config, tools, &[]).await;

    let calls = vec![
        within(1, tool_call("", "hang")),
        sleep(9),
        tool_call("", "hang"),
        tool_call("", "echo"),
    ];
    let mut request = Request::new(request(calls));
    request.set_timeout(10 * SECOND);
    observed.client.execute_tools(request).await.unwrap();

    let expired = |index, tool, limit, time| {
        let says = match limit {
            "call" => "the call's timeout ran out after 1.000s",
            "tool" => "the tool's timeout ran out after 2.000s",
            _ => "the caller's deadline ran out after 9.950s",
        };
        let below = attempt("DEADLINE_EXCEEDED").says("ran out of time");
        call(index, tool)
            .expires(limit, "maybe", says)
            .lasts(time)
            .has([below.lasts(time)])
    };
    assert_eq!(
        observed.end().await.tree(),
        rpc("ExecuteTools", "OK")
            .of_calls(4, 3)
            .with("fanfare.request.timeout", 10.0)
            .lasts(10 * SECOND - ms(50))
            .has([
                expired(0, "hang", "call", SECOND),
                expired(1, "sleep", "tool", 2 * SECOND),
                expired(2, "hang", "request", 10 * SECOND - ms(50)),
                call(3, "echo").has([attempt("OK")]),
            ])
    );
}

#[tokio::test(start_paused = true)]
async fn the_servers_own_limit_is_named_too_and_what_was_not_begun_has_no_attempt() {
    let mut config = config();
    config.limits.max_request_timeout = 5 * SECOND;
    let tools = fanfare::demo::tools::DemoTools::default();
    let mut observed = Observed::with(config, tools, &[]).await;

    let request = pb::ExecuteToolsRequest {
        concurrency_limit: 1,
        ..request(vec![tool_call("", "hang"), within(2, sleep(1)), sleep(1)])
    };
    let stream = observed.client.stream_execute_tools(request).await;
    let mut stream = stream.unwrap().into_inner();
    while stream.message().await.unwrap().is_some() {}

    let end = 5 * SECOND - ms(50);
    let says = "the server's limit for a request ran out after 4.950s";
    let below = attempt("DEADLINE_EXCEEDED").says("ran out of time");
    assert_eq!(
        observed.end().await.tree(),
        rpc("StreamExecuteTools", "OK")
            .of_calls(3, 3)
            .with("fanfare.request.timeout", 5.0)
            .lasts(end)
            .has([
                call(0, "hang")
                    .expires("server", "maybe", says)
                    .lasts(end)
                    .has([below.lasts(end)]),
                not_asked(1, "sleep")
                    .expires(
                        "call",
                        "not_started",
                        "the call's timeout ran out after 2.000s"
                    )
                    .with("fanfare.call.queue_duration", 2.0)
                    .lasts(2 * SECOND),
                not_asked(2, "sleep")
                    .expires("server", "not_started", says)
                    .with("fanfare.call.queue_duration", 4.95)
                    .lasts(end),
            ])
    );
}

#[tokio::test(start_paused = true)]
async fn what_the_first_failure_cancels_says_so() {
    let mut observed = Observed::start().await;

    let request = pb::ExecuteToolsRequest {
        concurrency_limit: 2,
        failure_policy: pb::FailurePolicy::CancelRest.into(),
        ..request(vec![
            tool_call("", "hang"),
            sleep(1),
            no_such_city(),
            sleep(1),
        ])
    };
    observed.client.execute_tools(request).await.unwrap();

    let says = "cancelled: another call of the request failed";
    let cancelled = attempt("CANCELLED").says("cancelled").lasts(SECOND);
    let not_found = attempt("NOT_FOUND").says("no such city").starts(SECOND);
    assert_eq!(
        observed.end().await.tree(),
        rpc("ExecuteTools", "OK").of_calls(4, 3).lasts(SECOND).has([
            call(0, "hang")
                .fails("CANCELLED", "maybe", says)
                .lasts(SECOND)
                .has([cancelled]),
            call(1, "sleep")
                .lasts(SECOND)
                .has([attempt("OK").lasts(SECOND)]),
            call(2, "fail")
                .fails("TOOL_FAILED", "done", "no such city")
                .with("fanfare.call.queue_duration", 1.0)
                .lasts(SECOND)
                .has([not_found]),
            not_asked(3, "sleep")
                .fails("CANCELLED", "not_started", says)
                .with("fanfare.call.queue_duration", 1.0)
                .lasts(SECOND),
        ])
    );
}

#[tokio::test(start_paused = true)]
async fn panics_there_and_here_are_told_apart() {
    let mut observed = Observed::start().await;
    let there = vec![tool_call("", "panic"), tool_call("", "echo")];
    observed.client.execute_tools(request(there)).await.unwrap();
    assert_eq!(
        observed.end().await.tree(),
        rpc("ExecuteTools", "OK").of_calls(2, 1).has([
            call(0, "panic")
                .fails("TOOL_FAILED", "done", "internal error")
                .has([attempt("INTERNAL").says("internal error")]),
            call(1, "echo").has([attempt("OK")]),
        ])
    );

    tokio::time::pause();
    let panics = Scripted::new(|_| async { panic!("a bug in a tool client") });
    let catalog = catalog([("panics", panics)]);
    let mut observed = Observed::of(&config(), catalog, &[]).await;
    let here = vec![tool_call("", "panics")];
    observed.client.execute_tools(request(here)).await.unwrap();
    assert_eq!(
        observed.end().await.tree(),
        rpc("ExecuteTools", "OK")
            .of_calls(1, 1)
            .has([not_asked(0, "panics").fails("INTERNAL", "maybe", "internal error"),])
    );
}
