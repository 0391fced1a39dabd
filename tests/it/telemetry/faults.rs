use std::{collections::BTreeSet, net::SocketAddr};

use fanfare::pb;
use nix::sys::signal::Signal;

use crate::support::{
    call as tool_call,
    collector::Collector,
    ledger,
    pipes::Client,
    process::Process,
    request,
    spans::{Tree, attempt, call, flat, rpc},
};

fn impatient(call: pb::ToolCall) -> pb::ToolCall {
    let timeout = prost_types::Duration {
        seconds: 0,
        nanos: 300_000_000,
    };
    pb::ToolCall {
        timeout: Some(timeout),
        ..call
    }
}

/// An attempt at a tool at that address.
fn attempt_at(tools: SocketAddr, code: &str) -> Tree {
    attempt(code)
        .with("server.address", tools.ip().to_string())
        .with("server.port", tools.port())
        .with("network.peer.address", tools.ip().to_string())
        .with("network.peer.port", tools.port())
}

fn lost(index: usize, effect: &str) -> Tree {
    call(index, "hang").fails("TOOL_UNAVAILABLE", effect, "")
}

async fn execute(mut client: Client, calls: Vec<pb::ToolCall>) {
    let response = client.execute_tools(request(calls)).await;
    response.expect("an answer, whatever happens to the tools");
}

#[tokio::test]
async fn each_request_is_one_trace_whose_calls_carry_their_outcomes() {
    let collector = Collector::start();
    let mut tools = Process::demo_tools().await;
    let demo = fanfare::demo::config_toml(tools.address);
    let impatient_tool = "[tools.hang.retry]\nconnect_patience = \"0s\"\nmax_attempts = 1\n";
    let toml = format!("[server]\nlisten = \"127.0.0.1:0\"\n{demo}\n{impatient_tool}");
    let endpoint = format!("http://{}", collector.address);
    let environment = [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str())];
    let mut server = Process::serve_in(&toml, &environment).await;
    let client = server.client().await;

    // One that hangs until its time is over.
    let hang = || tool_call("", "hang");
    let calls = vec![impatient(hang()), tool_call("", "echo")];
    execute(client.clone(), calls).await;
    // One whose caller leaves.
    let left = tokio::spawn({
        let mut client = client.clone();
        async move { client.stream_execute_tools(request(vec![hang()])).await }
    });
    let stream = left.await.unwrap().expect("a stream");
    ledger::started(&tools, 3).await;
    drop(stream);
    ledger::cancelled(&tools, 2).await;
    // One whose tools are killed.
    let calls = request(vec![hang(), tool_call("", "echo"), hang()]);
    let stream = client.clone().stream_execute_tools(calls).await;
    let mut stream = stream.expect("a stream").into_inner();
    ledger::started(&tools, 6).await;
    // That the tool says that it has answered would not mean that it has sent it.
    stream.message().await.unwrap().expect("the echo");
    tools.signal(Signal::SIGKILL);
    assert_eq!(tools.exit_code().await, None);
    while stream.message().await.unwrap().is_some() {}
    // One that comes too late.
    execute(client.clone(), vec![hang()]).await;
    server.signal(Signal::SIGTERM);
    assert_eq!(server.exit_code().await, Some(0));

    let unavailable = || attempt_at(tools.address, "UNAVAILABLE").says("");
    let expected = [
        rpc("ExecuteTools", "OK").of_calls(2, 1).has([
            call(0, "hang")
                .expires("call", "maybe", "")
                .has([attempt_at(tools.address, "DEADLINE_EXCEEDED").says("")]),
            call(1, "echo").has([attempt_at(tools.address, "OK")]),
        ]),
        rpc("StreamExecuteTools", "CANCELLED")
            .of_calls(1, 1)
            .has([call(0, "hang")
                .fails("CANCELLED", "maybe", "")
                .has([attempt_at(tools.address, "CANCELLED").says("")])]),
        rpc("StreamExecuteTools", "OK").of_calls(3, 2).has([
            lost(0, "maybe").has([unavailable()]),
            call(1, "echo").has([attempt_at(tools.address, "OK")]),
            lost(2, "maybe").has([unavailable()]),
        ]),
        rpc("ExecuteTools", "OK")
            .of_calls(1, 1)
            .has([lost(0, "not_started")
                .with("fanfare.call.attempts", 0)
                .has([unavailable().without_peer()])]),
    ]
    .map(|tree| tree.with("network.peer.address", "127.0.0.1").timeless());
    let trees = collector.trees().into_iter();
    let trees: Vec<_> = trees.map(|tree| tree.timeless().saying("")).collect();
    assert_eq!(trees, expected);
    let spans = flat(&collector.received().traces);
    let traces: BTreeSet<_> = spans.iter().map(|span| &span.trace_id).collect();
    assert_eq!(traces.len(), expected.len());
}
