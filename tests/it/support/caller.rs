//! A caller in a process of its own, to be killed or frozen: this test binary run
//! again, with nothing but [`be_a_caller`].

use std::{env, net::SocketAddr, process::Stdio};

use fanfare::{demo, pb::stream_execute_tools_response::Event};
use nix::sys::signal::Signal;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStderr, Command},
    time::timeout,
};
use tonic::Code;

use super::{
    call,
    process::{PATIENCE, send_signal},
    request,
};

/// Half of the calls that it makes: of so many `hang`, in one unary request and,
/// after an `echo`, in one stream.
pub const HANGING_CALLS: usize = 49;

const ADDRESS: &str = "FANFARE_TEST_CALLER_ADDRESS";
const PREFIX: &str = "caller: ";

/// A running caller. Killed when dropped.
pub struct Caller {
    child: Child,
    output: Lines<BufReader<ChildStderr>>,
}

impl Caller {
    /// Starts one that calls the server at `address`, and waits until it has got
    /// the first completion of its stream.
    pub async fn start(address: SocketAddr) -> Self {
        let mut child = Command::new(env::current_exe().expect("this binary"))
            .args(["--exact", "support::caller::be_a_caller"])
            .arg("--nocapture")
            .env(ADDRESS, address.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("to start the caller");
        let stderr = child.stderr.take().expect("stderr");
        let mut caller = Self {
            child,
            output: BufReader::new(stderr).lines(),
        };
        assert_eq!(caller.says().await, "reading");
        caller
    }

    /// What it says next.
    pub async fn says(&mut self) -> String {
        let said = async {
            loop {
                let line = self.output.next_line().await.expect("its output");
                let line = line.expect("the caller to go on");
                if let Some(said) = line.strip_prefix(PREFIX) {
                    return said.to_owned();
                }
            }
        };
        timeout(PATIENCE, said).await.expect("the caller to speak")
    }

    /// Sends a signal, such as `SIGSTOP`.
    pub fn signal(&self, signal: Signal) {
        let id = self.child.id().expect("a running process");
        send_signal(i32::try_from(id).expect("a pid"), signal);
    }
}

/// No test, but what the process of a [`Caller`] runs: says when it has the first
/// completion of its stream, and how both RPCs ended.
#[tokio::test]
async fn be_a_caller() {
    let Ok(address) = env::var(ADDRESS) else {
        return;
    };
    let address = address.parse().expect("an address");
    let client = demo::connect(address).await.expect("to connect");
    let hanging: Vec<_> = (0..HANGING_CALLS).map(|_| call("", "hang")).collect();
    let mut calls = hanging.clone();
    calls.push(call("", "echo"));

    let unary = {
        let mut client = client.clone();
        tokio::spawn(async move { client.execute_tools(request(hanging)).await })
    };
    let mut client = client;
    let stream = client.stream_execute_tools(request(calls)).await;
    let mut stream = stream.expect("a stream").into_inner();
    let first = stream.message().await.expect("a message").expect("one");
    assert!(matches!(first.event, Some(Event::Completion(_))));
    eprintln!("{PREFIX}reading");

    let stream_ended = loop {
        match stream.message().await {
            Ok(Some(_)) => {}
            Ok(None) => break Code::Ok,
            Err(status) => break status.code(),
        }
    };
    let unary_ended = unary.await.expect("no panic");
    let unary_ended = unary_ended.map_or_else(|status| status.code(), |_| Code::Ok);
    eprintln!("{PREFIX}stream {stream_ended:?}, unary {unary_ended:?}");
}
