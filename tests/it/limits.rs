use std::sync::Arc;

use bytes::Bytes;
use fanfare::{config::Config, pb, server::Server};
use futures_util::future::join_all;
use serde_json::json;
use tokio::time::{Instant, sleep};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::support::{
    SECOND, Seen, call, call_with, config, failed, length, ms, pipes,
    process::Process,
    raw::{EXECUTE, RawClient, framed, post, post_with},
    request, seen,
    service::Service,
    tools::{Running, Scripted, catalog},
};

/// Bytes of one connection or of its headers, and how long it lasts.
mod connections;
/// How many calls the process takes on.
mod in_flight;
/// The size of requests, observations and responses.
mod sizes;

#[tokio::test(start_paused = true)]
async fn a_request_may_have_so_many_calls() {
    let catalog = catalog([("tool", Scripted::answers_after(ms(1)))]);
    let mut config = config();
    config.limits.max_calls_per_request = 3;
    let mut client = pipes::client(&config, catalog).await;

    let response = client
        .execute_tools(request(vec![call("", "tool"); 3]))
        .await;
    assert_eq!(response.unwrap().get_ref().results.len(), 3);

    let status = client
        .execute_tools(request(vec![call("", "tool"); 4]))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let violations = status.get_details_bad_request().unwrap().field_violations;
    assert_eq!(violations[0].field, "calls");
}

#[tokio::test(start_paused = true)]
async fn the_reply_margin_is_a_setting_and_at_most_a_tenth() {
    let running = Running::default();
    let mut config = config();
    for (margin, timeout, expected) in [
        (ms(200), "10S", ms(9800)),
        (ms(200), "1S", ms(900)),
        (5 * SECOND, "10S", 9 * SECOND),
        (ms(0), "10S", 10 * SECOND),
    ] {
        config.limits.reply_margin = margin;
        let catalog = catalog([("hangs", Scripted::hangs(&running))]);
        let server = Arc::new(Server::orchestrator(&config, catalog).await);
        let client = RawClient::of_server(&server).await;
        let start = Instant::now();

        let request = post_with(EXECUTE, "grpc-timeout", timeout);
        let body = framed(&crate::support::request(vec![call("", "hangs")]));
        let answer = client.ask(request, body).await.unwrap();

        assert_eq!(start.elapsed(), expected);
        assert_eq!(answer.code(), Code::Ok);
    }
}

fn a_thousand_calls(name: &str) -> Vec<pb::ToolCall> {
    let arguments = json!({"seconds": 1});
    (0..1000)
        .map(|index| call_with(&index.to_string(), name, arguments.clone()))
        .collect()
}

fn assert_in_order(response: &pb::ExecuteToolsResponse, expected: &Seen) {
    assert_eq!(response.results.len(), 1000);
    for (index, result) in response.results.iter().enumerate() {
        assert_eq!(result.id, index.to_string());
        assert_eq!(seen(result), *expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_thousand_calls_take_as_long_as_one() {
    let mut config = config();
    config.limits.max_calls_per_request = 1000;
    config.limits.concurrency_limit = 1000;
    let tools = fanfare::demo::tools::DemoTools::default();
    let mut client = pipes::client_of_service(config, tools, &["sleep"]).await;
    let start = Instant::now();

    let response = client
        .execute_tools(request(a_thousand_calls("sleep")))
        .await;

    let response = response.unwrap().into_inner();
    assert_eq!(start.elapsed(), SECOND);
    assert_eq!(length(response.duration), SECOND);
    assert_in_order(&response, &Seen::Ok(json!({"slept_seconds": 1})));
}

/// Over real sockets, by counting: none is answered before all are with their tool.
#[tokio::test]
async fn a_thousand_calls_run_at_a_time_between_processes() {
    let service = Service::gathering(1000).await;
    let fanfare = Process::serve(&format!(
        "[server]\nlisten = '127.0.0.1:0'\n[limits]\nmax_calls_per_request = 1000\n\
         [services.tools]\nendpoint = 'http://{}'\n[tools.tool]\nservice = 'tools'\n",
        service.listen().await
    ))
    .await;

    let response = fanfare
        .client()
        .await
        .execute_tools(request(a_thousand_calls("tool")))
        .await;

    assert_in_order(response.unwrap().get_ref(), &Seen::Ok(json!(null)));
    assert_eq!(service.most(), 1000);
}
