use std::io::Write as _;

use nix::sys::signal::Signal;
use tokio::time::{Instant, timeout};
use tonic::Code;

use super::NO_DRAIN;
use crate::support::{
    call, failed, ledger,
    process::{PATIENCE, Process, fanfare, message},
    request, seen,
};

/// Runs `fanfare` to its end: the exit code, and what it wrote to stderr.
async fn run(arguments: &[&str]) -> (Option<i32>, String) {
    let output = timeout(PATIENCE, fanfare(arguments).output())
        .await
        .expect("an end")
        .expect("to start");
    let stderr = String::from_utf8(output.stderr).expect("text");
    (output.status.code(), stderr)
}

/// Ends `process`, which has a call that hangs, by two signals.
async fn assert_two_signals_end(mut process: Process, first: Signal, second: Signal) {
    process.signal(first);
    let draining = |line: &_| message(line) == "draining";
    process.log().wait_for("draining", draining).await;
    process.signal(second);
    let start = Instant::now();
    assert_eq!(process.exit_code().await, Some(130), "{first} {second}");
    assert!(start.elapsed() < NO_DRAIN, "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    use Signal::{SIGINT, SIGTERM};
    for (first, second) in [(SIGTERM, SIGTERM), (SIGTERM, SIGINT), (SIGINT, SIGINT)] {
        let tools = Process::demo_tools().await;
        let mut rpcs = Vec::new();
        let mut servers = Vec::new();
        for _ in 0..2 {
            let server = Process::serve_demo("", "", tools.address).await;
            let mut client = server.client().await;
            let hang = request(vec![call("", "hang")]);
            rpcs.push(tokio::spawn(
                async move { client.execute_tools(hang).await },
            ));
            servers.push(server);
        }
        ledger::started(&tools, 2).await;

        // The tools have a call as long as a server lives.
        let server = servers.remove(0);
        assert_two_signals_end(server, first, second).await;
        assert_two_signals_end(tools, first, second).await;

        assert!(rpcs.remove(0).await.unwrap().is_err());
        let response = rpcs.remove(0).await.unwrap().expect("an answer");
        let lost = failed(Code::Unavailable, "TOOL_UNAVAILABLE", "maybe");
        assert_eq!(seen(&response.get_ref().results[0]), lost);
    }
}

#[tokio::test]
async fn a_configuration_with_mistakes_is_refused_with_each_key() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(
        b"[server]\nlisen = \"127.0.0.1:0\"\n\
          [limits]\nmax_calls_per_request = 0\n\
          [tools.a]\nservice = \"nobody\"\n",
    )
    .unwrap();
    let path = file.path().to_str().unwrap();
    for command in ["serve", "check"] {
        let (code, stderr) = run(&[command, "--config", path]).await;
        assert_eq!(code, Some(1), "{stderr}");
        let first = format!("fanfare: 3 mistakes in {path}:");
        assert_eq!(stderr.lines().next(), Some(first.as_str()));
        for key in [
            "server.lisen",
            "limits.max_calls_per_request",
            "tools.a.service",
        ] {
            assert!(stderr.contains(key), "{stderr}");
        }
    }
    let (code, stderr) = run(&["serve", "--config", "/nowhere/fanfare.toml"]).await;
    assert_eq!(code, Some(1));
    assert!(stderr.contains("/nowhere/fanfare.toml"), "{stderr}");
    assert_eq!(run(&["serve"]).await.0, Some(2));
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    write!(file, "[server]\nlisten = \"{address}\"").unwrap();
    let path = file.path().to_str().unwrap();
    for arguments in [
        &["serve", "--config", path][..],
        &["demo-tools", "--listen", &address],
        &["demo", "--serve", "--listen", &address],
    ] {
        let (code, stderr) = run(arguments).await;
        assert_eq!(code, Some(1), "{stderr}");
        assert!(stderr.contains(&address), "{stderr}");
    }
}
