use fanfare::pb;
use serde_json::{Value, json};

use crate::support::{
    call, call_with,
    process::{Process, message},
    request,
};

async fn serve(tools: &Process, server_keys: &str, environment: &[(&str, &str)]) -> Process {
    let demo = fanfare::demo::config_toml(tools.address);
    let toml = format!("[server]\nlisten = \"127.0.0.1:0\"\n{server_keys}\n{demo}");
    Process::serve_in(&toml, environment).await
}

fn sleep(seconds: f64) -> pb::ToolCall {
    call_with("", "sleep", json!({"seconds": seconds}))
}

fn fail() -> pb::ToolCall {
    call_with("no", "fail", json!({"code": 5, "message": "gone"}))
}

/// Runs the calls, and waits for the line of their RPC: those about calls are before it.
async fn run(server: &Process, calls: Vec<pb::ToolCall>) -> Vec<Value> {
    let mut client = server.client().await;
    client.execute_tools(request(calls)).await.unwrap();
    let of_rpc = |line: &Value| message(line).starts_with("OK ");
    server.log().wait_for("its line", of_rpc).await;
    server
        .log()
        .all(|line| line["target"] == "fanfare::access" && !of_rpc(line))
}

/// The line about the call of `tool` with this message.
fn line<'a>(lines: &'a [Value], tool: &str, text: &str) -> &'a Value {
    let found: Vec<_> = lines
        .iter()
        .filter(|line| line["tool"] == tool && message(line) == text)
        .collect();
    assert_eq!(found.len(), 1, "{text} of {tool}: {lines:#?}");
    found[0]
}

/// A duration in seconds, of three digits at most.
fn seconds(line: &Value, field: &str) -> f64 {
    let seconds = line[field]
        .as_f64()
        .unwrap_or_else(|| panic!("{field}: {line}"));
    let rounded: f64 = format!("{seconds:.2e}").parse().unwrap();
    assert_eq!(seconds, rounded, "{line}");
    seconds
}

#[tokio::test]
async fn debug_tells_of_each_call_and_of_no_frame() {
    let tools = Process::demo_tools().await;
    let server = serve(&tools, "", &[("RUST_LOG", "debug")]).await;

    let lines = run(&server, vec![sleep(0.05), fail(), call("", "nobody")]).await;

    let slept = line(&lines, "sleep", "a call succeeded");
    assert_eq!(
        (&slept["level"], &slept["attempts"], &slept["index"]),
        (&json!("DEBUG"), &json!(1), &json!(0))
    );
    assert!(seconds(slept, "duration") >= 0.05, "{slept}");
    assert!(seconds(slept, "queued") < 0.05, "{slept}");
    let failed = line(&lines, "fail", "a call failed");
    assert_eq!(
        (&failed["level"], &failed["reason"]),
        (&json!("INFO"), &json!("TOOL_FAILED"))
    );
    seconds(failed, "duration");
    let attempt = line(&lines, "fail", "an attempt failed");
    assert_eq!(
        (&attempt["level"], &attempt["attempt"]),
        (&json!("DEBUG"), &json!(1))
    );
    assert_eq!(
        (&attempt["code"], &attempt["error"]),
        (&json!("NOT_FOUND"), &json!("gone"))
    );
    assert_eq!(attempt["address"], tools.address.to_string());
    line(&lines, "nobody", "a call failed");
    assert_eq!(lines.len(), 4, "{lines:#?}");

    let of_libraries = server
        .log()
        .all(|line| !line["target"].as_str().unwrap().starts_with("fanfare"));
    assert_eq!(of_libraries, [] as [Value; 0]);
}

#[tokio::test]
async fn a_library_that_is_named_tells_of_frames() {
    let tools = Process::demo_tools().await;
    let server = serve(&tools, "", &[("RUST_LOG", "debug,h2=debug")]).await;

    run(&server, vec![call("", "echo")]).await;

    let of_h2 = |line: &Value| line["target"].as_str().unwrap().starts_with("h2");
    server.log().wait_for("a frame", of_h2).await;
}

#[tokio::test]
async fn who_asks_for_debug_gets_every_line() {
    let tools = Process::demo_tools().await;
    let server = serve(&tools, "", &[("RUST_LOG", "debug")]).await;
    let lines = run(&server, (0..200).map(|_| fail()).collect()).await;
    let failed = lines.iter().filter(|line| message(line) == "a call failed");
    assert_eq!(failed.count(), 200);

    // By default they are too many.
    let server = serve(&tools, "", &[]).await;
    let lines = run(&server, (0..200).map(|_| fail()).collect()).await;
    assert!(lines.len() < 50, "{}", lines.len());
}

#[tokio::test]
async fn slow_calls_have_a_line() {
    let tools = Process::demo_tools().await;
    let server = serve(&tools, "slow_call = \"50ms\"", &[]).await;

    let lines = run(&server, vec![sleep(0.06), call("", "nobody")]).await;

    let slow = line(&lines, "sleep", "a call was slow");
    assert_eq!(slow["level"], "INFO");
    assert!(seconds(slow, "duration") >= 0.06, "{slow}");
    line(&lines, "nobody", "a call failed");
    assert_eq!(lines.len(), 2, "{lines:#?}");

    // Off by default.
    let server = serve(&tools, "", &[]).await;
    assert_eq!(run(&server, vec![sleep(0.06)]).await, [] as [Value; 0]);
}
