use std::collections::BTreeMap;

use fanfare::pb;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tonic::Request;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use super::passed_on::{SAMPLED, TRACE, UNSAMPLED};
use crate::support::{
    call, call_with,
    collector::Collector,
    ledger,
    process::{PATIENCE, Process},
    request,
    spans::{attributes, flat},
};

const METHOD: &str = "fanfare.v1.OrchestratorService/ExecuteTools";

async fn serve(tools: &Process, environment: &[(&str, &str)]) -> Process {
    let demo = fanfare::demo::config_toml(tools.address);
    let toml = format!("[server]\nlisten = \"127.0.0.1:0\"\n{demo}");
    Process::serve_in(&toml, environment).await
}

/// A call that succeeds, one that fails, one of nothing.
fn three_calls(traceparent: Option<&str>) -> Request<pb::ExecuteToolsRequest> {
    let mut request = Request::new(request(vec![
        call("ok", "echo"),
        call_with("no", "fail", json!({"code": 5, "message": "gone\u{9b}"})),
        call("", "nobody"),
    ]));
    if let Some(parent) = traceparent {
        let parent = parent.parse().expect("a header");
        request.metadata_mut().insert("traceparent", parent);
    }
    request
}

/// The lines about requests, without what differs each time: the first `count`,
/// for which it waits, and all that there are by then.
async fn access_lines(server: &Process, count: usize) -> Vec<Value> {
    let ours = |line: &Value| line["target"] == "fanfare::access";
    let mut lines = server.log().wait_for_all("a line", count, ours).await;
    for line in &mut lines {
        let line = line.as_object_mut().expect("an object");
        for varying in ["timestamp", "duration"] {
            assert!(line.remove(varying).is_some(), "{line:?}");
        }
        // Of calls.
        assert_eq!(line.remove("queued").is_some(), line.contains_key("index"));
    }
    lines
}

/// The lines about [`three_calls`]; each with the ids of one of `spans`: the call
/// that fails, the call of nothing, the RPC.
fn expected(trace: &str, spans: [&str; 3], flags: &str) -> Vec<Value> {
    let mut lines = [
        json!({
            "message": "a call failed", "tool": "nobody", "id": "", "index": 2, "attempts": 0,
            "reason": "UNKNOWN_TOOL", "effect": "not_started", "error": "no tool is named nobody",
        }),
        json!({
            "message": "a call failed", "tool": "fail", "id": "no", "index": 1, "attempts": 1,
            "reason": "TOOL_FAILED", "effect": "done", "error": "gone\u{9b}",
        }),
        json!({
            "message": format!("OK {METHOD}"), "method": METHOD, "code": "OK", "calls": 3,
            "failed": 2, "peer": "127.0.0.1",
        }),
    ];
    for (line, span) in lines.iter_mut().zip([spans[1], spans[0], spans[2]]) {
        line["level"] = "INFO".into();
        line["target"] = "fanfare::access".into();
        if !trace.is_empty() {
            line["trace_id"] = trace.into();
            line["span_id"] = span.into();
            line["trace_flags"] = flags.into();
        }
    }
    lines.to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn an_rpc_and_each_failed_call_have_a_line_that_names_their_spans() {
    let tools = Process::demo_tools().await;
    let collector = Collector::start();
    let endpoint = format!("http://{}", collector.address);
    let environment = [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str())];
    let mut server = serve(&tools, &environment).await;
    let mut client = server.client().await;

    client
        .execute_tools(three_calls(Some(SAMPLED)))
        .await
        .unwrap();

    let lines = access_lines(&server, 3).await;
    server.signal(Signal::SIGTERM);
    assert_eq!(server.exit_code().await, Some(0));
    let spans = flat(&collector.received().traces);
    let ids: BTreeMap<_, _> = spans
        .iter()
        .map(|span| {
            let attributes = attributes(&span.attributes);
            let index = attributes.get("fanfare.call.index");
            let index = index.and_then(Value::as_u64);
            ((span.kind, index), hex(&span.span_id))
        })
        .collect();
    let call = |index: u64| ids[&(1, Some(index))].as_str();
    let rpc = ids[&(2, None)].as_str();
    assert_eq!(lines, expected(TRACE, [call(1), call(2), rpc], "01"));
}

#[tokio::test]
async fn without_an_exporter_lines_name_the_callers_span() {
    let tools = Process::demo_tools().await;
    let server = serve(&tools, &[]).await;
    let mut client = server.client().await;
    // Probes come every few seconds: nobody wants to read of them.
    let mut health = HealthClient::new(server.channel().await);
    health.check(HealthCheckRequest::default()).await.unwrap();

    client
        .execute_tools(three_calls(Some(UNSAMPLED)))
        .await
        .unwrap();
    let lines = access_lines(&server, 3).await;
    assert_eq!(lines, expected(TRACE, ["b7ad6b7169203331"; 3], "00"));

    client.execute_tools(three_calls(None)).await.unwrap();
    let lines = access_lines(&server, 6).await;
    assert_eq!(lines[3..], expected("", [""; 3], ""));
}

#[tokio::test]
async fn what_a_caller_leaves_behind_is_one_line() {
    let tools = Process::demo_tools().await;
    let server = serve(&tools, &[]).await;
    let mut client = server.client().await;
    let hanging = request(vec![call("", "hang"), call("", "hang")]);
    let stream = client.stream_execute_tools(hanging).await.unwrap();
    ledger::started(&tools, 2).await;

    drop(stream);

    let method = "fanfare.v1.OrchestratorService/StreamExecuteTools";
    let expected = json!({
        "level": "INFO", "target": "fanfare::access", "message": format!("CANCELLED {method}"),
        "method": method, "code": "CANCELLED", "calls": 2, "failed": 2, "peer": "127.0.0.1",
    });
    assert_eq!(access_lines(&server, 1).await, [expected]);
}

#[tokio::test]
async fn rust_log_hides_lines_and_no_spans() {
    let tools = Process::demo_tools().await;
    let collector = Collector::start();
    let endpoint = format!("http://{}", collector.address);
    let environment = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("RUST_LOG", "off,fanfare::cli=info"),
    ];
    let mut server = serve(&tools, &environment).await;
    let mut client = server.client().await;

    client.execute_tools(three_calls(None)).await.unwrap();
    server.signal(Signal::SIGTERM);
    let done = |line: &Value| line["message"] == "done";
    server.log().wait_for("the end", done).await;

    let others = server.log().all(|line| line["target"] != "fanfare::cli");
    assert_eq!(others, [] as [Value; 0]);
    // The RPC, three calls, two attempts.
    assert_eq!(collector.spans(), 6);
    let ended = tokio::time::timeout(PATIENCE, server.exit_code()).await;
    assert_eq!(ended, Ok(Some(0)));
}
