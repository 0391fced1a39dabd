//! The lines of the real binary: never in the way, never lost in silence, and the
//! ones that `RUST_LOG` asks for.

use std::process::Stdio;

use fanfare::pb::{CallToolRequest, tool_service_client::ToolServiceClient};
use futures_util::{StreamExt as _, stream};
use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout},
    time::timeout,
};
use tonic::transport::Endpoint;

use crate::support::process::{PATIENCE, fanfare, message, send_signal};

/// More than fits into a pipe, the batch that is being written and the queue.
const CALLS: usize = 4000;

/// Tools whose output was read up to the first line, and that have noted the
/// beginning and the end of [`CALLS`] calls since.
async fn tools_that_nobody_listens_to() -> (Child, Lines<BufReader<ChildStdout>>) {
    let mut tools = fanfare(&["demo-tools", "--listen", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(tools.stdout.take().unwrap()).lines();
    let line = next(&mut output).await;
    let address = message(&line).rsplit(' ').next().unwrap();
    let endpoint = Endpoint::try_from(format!("http://{address}")).unwrap();
    let client = ToolServiceClient::new(endpoint.connect().await.unwrap());

    let call = |_| {
        let mut client = client.clone();
        let request = CallToolRequest {
            id: "x".repeat(200),
            name: "echo".to_owned(),
            ..Default::default()
        };
        async move { client.call_tool(request).await.is_ok() }
    };
    let calls = stream::iter(0..CALLS).map(call).buffer_unordered(16);
    let answered = calls.filter(|ok| std::future::ready(*ok)).count();
    assert_eq!(timeout(PATIENCE, answered).await, Ok(CALLS));
    (tools, output)
}

async fn next(output: &mut Lines<BufReader<ChildStdout>>) -> Value {
    let line = timeout(PATIENCE, output.next_line()).await;
    let line = line.expect("a line").unwrap().expect("a line");
    serde_json::from_str(&line).expect(&line)
}

async fn exit_code(child: &mut Child) -> Option<i32> {
    let pid = i32::try_from(child.id().unwrap()).unwrap();
    send_signal(pid, Signal::SIGTERM);
    let status = timeout(PATIENCE, child.wait()).await;
    status.expect("the end").unwrap().code()
}

#[tokio::test]
async fn lines_that_nobody_reads_are_counted() {
    let (mut tools, mut output) = tools_that_nobody_listens_to().await;
    let mut seen = 0;
    let lost = loop {
        let line = next(&mut output).await;
        match line["lost"].as_u64() {
            Some(lost) => break usize::try_from(lost).unwrap(),
            None => seen += 1,
        }
    };
    assert!(seen > 1000 && lost > 1000, "{seen} {lost}");
    // Each call begins, ends, and is an RPC.
    assert_eq!(seen + lost, 3 * CALLS);
    assert_eq!(exit_code(&mut tools).await, Some(0));
}

#[tokio::test]
async fn an_output_that_is_stuck_does_not_keep_the_process_alive() {
    let (mut tools, _output) = tools_that_nobody_listens_to().await;
    assert_eq!(exit_code(&mut tools).await, Some(0));
}

#[tokio::test]
async fn a_directive_that_can_not_be_read_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    for arguments in [
        &["serve", "--config", file.path().to_str().unwrap()][..],
        &["demo-tools", "--listen", "127.0.0.1:0"],
    ] {
        let output = fanfare(arguments)
            .env("RUST_LOG", "info,fanfare=loud")
            .output();
        let output = timeout(PATIENCE, output).await.unwrap().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        for named in ["RUST_LOG", "\"fanfare=loud\""] {
            assert!(stderr.contains(named), "{stderr}");
        }
    }
}

/// What the demo shows is for its output, and nothing else.
#[tokio::test]
async fn the_demo_logs_to_stderr() {
    let arguments = ["demo", "--serve", "--listen", "127.0.0.1:0"];
    let mut demo = fanfare(&arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(demo.stderr.take().unwrap()).lines();
    let ready = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.contains("listening on 127.0.0.1:") {
                return true;
            }
        }
        false
    };
    assert_eq!(timeout(PATIENCE, ready).await, Ok(true));

    demo.kill().await.unwrap();
    let mut shown = String::new();
    let mut stdout = demo.stdout.take().unwrap();
    stdout.read_to_string(&mut shown).await.unwrap();
    assert_eq!(shown, "");
}
