//! `fanfare probe` as Kubernetes starts it: what it prints, and why it says no.

use std::{net::SocketAddr, time::Duration};

use nix::sys::signal::Signal;
use tokio::time::{Instant, timeout};

use crate::support::{
    ms,
    process::{PATIENCE, Process, fanfare, message},
    sockets::{SETTINGS, black_hole, reserved, resetting, silent},
};

const SERVICE: &str = "fanfare.v1.OrchestratorService";

/// What it printed, what it complained of, how it ended, and after how long.
#[derive(Debug)]
struct Probed {
    stdout: String,
    stderr: String,
    code: Option<i32>,
    took: Duration,
}

async fn probe(arguments: &[&str]) -> Probed {
    let start = Instant::now();
    let output = fanfare(&["probe"]).args(arguments).output();
    let output = timeout(PATIENCE, output).await.expect("an end").unwrap();
    Probed {
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
        code: output.status.code(),
        took: start.elapsed(),
    }
}

impl Probed {
    #[track_caller]
    fn assert_serving(&self) {
        let said = (self.stdout.as_str(), self.stderr.as_str(), self.code);
        assert_eq!(said, ("SERVING\n", "", Some(0)));
    }

    /// There is no status, for one reason, which has a line.
    #[track_caller]
    fn assert_failed(&self, address: SocketAddr, reason: &str) {
        let expected = format!("fanfare: {address}: {reason}");
        assert!(self.stderr.starts_with(&expected), "{self:?}, {expected}");
        assert_eq!(self.stderr.lines().count(), 1, "{self:?}");
        assert_eq!((self.stdout.as_str(), self.code), ("", Some(1)), "{self:?}");
    }
}

async fn service(server_keys: &str) -> Process {
    Process::serve(&format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n{server_keys}"
    ))
    .await
}

/// It is not at once when it listens.
async fn serving(server: &Process) {
    let address = server.address.to_string();
    let serves = async { while probe(&[&address]).await.code != Some(0) {} };
    timeout(PATIENCE, serves).await.expect("to serve");
}

#[tokio::test]
async fn a_server_that_serves() {
    let tools = Process::demo_tools().await;
    let server = service("").await;
    for server in [&tools, &server] {
        serving(server).await;
    }
    let port = server.address.port();
    for address in [
        format!("127.0.0.1:{port}"),
        format!("localhost:{port}"),
        format!("http://127.0.0.1:{port}/"),
    ] {
        probe(&[&address]).await.assert_serving();
    }
    let address = server.address.to_string();
    probe(&[&address, "--service", SERVICE, "--timeout", "10s"])
        .await
        .assert_serving();
    let address = tools.address.to_string();
    probe(&["--service=fanfare.v1.ToolService", &address])
        .await
        .assert_serving();
}

#[tokio::test]
async fn a_server_that_drains() {
    let server = service("drain_delay = \"24h\"").await;
    serving(&server).await;
    server.signal(Signal::SIGTERM);
    let says_so = |line: &_| message(line).starts_with("shutting down");
    server.log().wait_for("shutting down", says_so).await;

    let address = server.address.to_string();
    for service in ["", SERVICE] {
        let probed = probe(&[&address, "--service", service]).await;
        assert_eq!(probed.stdout, "NOT_SERVING\n");
        let reason = format!("fanfare: {address}: the status is NOT_SERVING\n");
        assert_eq!((probed.stderr, probed.code), (reason, Some(1)));
    }
}

#[tokio::test]
async fn a_service_that_the_server_does_not_know() {
    let server = service("").await;
    let address = server.address.to_string();
    let probed = probe(&[&address, "--service", "fanfare.v2.ToolService"]).await;
    probed.assert_failed(
        server.address,
        "unknown service \"fanfare.v2.ToolService\"\n",
    );
}

#[tokio::test]
async fn nobody_there() {
    let nobody = reserved();
    let probed = probe(&[&nobody.address.to_string(), "--timeout", "1h"]).await;
    probed.assert_failed(nobody.address, "can't connect: Connection refused");

    // A top-level domain that no name server may have (RFC 6761).
    let probed = probe(&["nobody.invalid:1", "--timeout", "10s"]).await;
    let reason = "fanfare: nobody.invalid:1: ";
    assert!(probed.stderr.starts_with(reason), "{probed:?}");
    assert_eq!((probed.stdout.as_str(), probed.code), ("", Some(1)));
}

#[tokio::test]
async fn those_who_do_not_answer_get_the_timeout_and_no_more() {
    let hole = black_hole().await;
    let cases = [
        (hole.address, "connecting"),
        (silent(b"").await, "waiting for the answer"),
        (silent(SETTINGS).await, "waiting for the answer"),
    ];
    for (address, doing) in cases {
        let probed = probe(&[&address.to_string(), "--timeout", "300ms"]).await;
        probed.assert_failed(address, &format!("timed out after 300ms, {doing}\n"));
        assert!(probed.took >= ms(300), "{probed:?}");
    }
    let address = silent(b"").await;
    let probed = probe(&[&address.to_string()]).await;
    probed.assert_failed(address, "timed out after 1s, ");
}

#[tokio::test]
async fn those_who_speak_something_else() {
    let server = service("").await;
    let admin = server
        .log()
        .all(|line| message(line).starts_with("admin on "));
    let admin = admin[0]["address"].as_str().expect("an address");
    let others = [
        admin.parse().expect("an address"),
        silent(b"SSH-2.0-OpenSSH_9.7\r\n").await,
    ];
    for address in others {
        let probed = probe(&[&address.to_string(), "--timeout", "10s"]).await;
        probed.assert_failed(address, "not a gRPC server, or one that broke off: ");
    }
    // Perhaps before it is spoken to, and whoever notices first tells: the reader or
    // the writer.
    let address = resetting().await;
    let probed = probe(&[&address.to_string(), "--timeout", "10s"]).await;
    probed.assert_failed(address, "");
    let said = probed.stderr.to_lowercase();
    let known = ["connection reset", "broken pipe", "connection closed"];
    assert!(known.iter().any(|it| said.contains(it)), "{probed:?}");
}

#[tokio::test]
async fn what_is_no_address_or_no_timeout_is_wrong_usage() {
    let mistakes: [&[&str]; 10] = [
        &["127.0.0.1"],
        &[":50051"],
        &["50051"],
        &["127.0.0.1:0"],
        &["127.0.0.1:65536"],
        &["https://127.0.0.1:50051"],
        &["http://127.0.0.1:50051/healthz"],
        &["--timeout=0s"],
        &["--timeout", "1"],
        &["--timeout", "2days"],
    ];
    for arguments in mistakes {
        let probed = probe(arguments).await;
        assert_eq!((probed.stdout.as_str(), probed.code), ("", Some(2)));
        let value = arguments.last().unwrap().trim_start_matches("--timeout=");
        for named in [value, ": expected "] {
            assert!(probed.stderr.contains(named), "{probed:?}");
        }
    }
}
