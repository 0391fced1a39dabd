//! The operators' page of the real binary: its paths, what it refuses, and that it
//! tells of a drain in time.

use std::{io::Write as _, net::SocketAddr, sync::Arc};

use fanfare::server::{Readiness, admin};
use nix::sys::signal::Signal;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::support::{
    SECOND, Seen, call,
    page::Page,
    process::{PATIENCE, Process, fanfare, message},
    request, seen,
};

/// Several times the places that the page has.
const CONNECTIONS: usize = 500;

/// The service without tools, and where its page is.
async fn service(server_keys: &str) -> (Process, SocketAddr) {
    let toml = format!("[server]\nlisten = \"127.0.0.1:0\"\n{server_keys}");
    let process = Process::serve(&toml).await;
    let address = ready(&process).await;
    (process, address)
}

/// Waits until it is ready, which it is not yet when it says where it listens;
/// where its page is.
async fn ready(process: &Process) -> SocketAddr {
    let address = admin_address(process);
    let ready = async { while get(address, "/readyz").await != line(200, "ready") {} };
    timeout(PATIENCE, ready).await.expect("to be ready");
    address
}

/// It is logged before the service is announced.
fn admin_address(process: &Process) -> SocketAddr {
    let lines = process
        .log()
        .all(|line| message(line).starts_with("admin on "));
    let address = lines[0]["address"].as_str().expect("an address");
    address.parse().expect("an address")
}

/// Everything that comes back for `text`, until the connection is closed.
async fn say(address: SocketAddr, text: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.expect("to connect");
    // It may be refused before all of it is sent.
    let _ = stream.write_all(text).await;
    let mut answer = Vec::new();
    let end = timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    // A reset is an end too.
    let _ = end.expect("the end");
    String::from_utf8_lossy(&answer).into_owned()
}

/// The status and the body for a request.
async fn ask(address: SocketAddr, method: &str, path: &str) -> (u16, String) {
    let text = format!("{method} {path} HTTP/1.1\r\nhost: a\r\n\r\n");
    parse(&say(address, text.as_bytes()).await)
}

fn parse(answer: &str) -> (u16, String) {
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
    let status = head.split(' ').nth(1).expect("a status");
    (status.parse().expect("a status"), body.to_owned())
}

async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    ask(address, "GET", path).await
}

fn line(status: u16, text: &str) -> (u16, String) {
    (status, format!("{text}\n"))
}

#[tokio::test]
async fn there_are_three_pages() {
    let (_process, address) = service("").await;
    assert_eq!(get(address, "/healthz").await, line(200, "ok"));
    assert_eq!(get(address, "/readyz?verbose").await, line(200, "ready"));

    for path in ["/", "/health", "/healthz/", "//metrics", "*"] {
        let (status, body) = get(address, path).await;
        assert_eq!(status, 404, "{path}");
        for page in ["/metrics", "/healthz", "/readyz"] {
            assert!(body.contains(page), "{path}: {body}");
        }
    }
    // The length of the page, and not the page.
    let head = say(address, b"HEAD /healthz HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(head.to_lowercase().contains("content-length: 3"), "{head}");
    assert_eq!(parse(&head), (200, String::new()));
    assert_eq!(
        say(address, b"GET /healthz HTTP/1.0\r\n\r\n")
            .await
            .matches("200")
            .count(),
        1
    );
}

#[tokio::test]
async fn whatever_else_is_sent_is_refused() {
    let (process, address) = service("").await;
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "BREW"] {
        let text = format!("{method} /metrics HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n");
        let answer = say(address, text.as_bytes()).await;
        assert_eq!(parse(&answer).0, 405, "{method}");
        assert!(
            answer.to_lowercase().contains("\r\nallow: get, head\r\n"),
            "{answer}"
        );
    }
    let long = format!(
        "GET /healthz HTTP/1.1\r\nlong: {}\r\n\r\n",
        "x".repeat(1 << 20)
    );
    let garbage: [&[u8]; 6] = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\0\0\0\0\r\n\r\n",
        b"GET /healthz\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nbad header\r\n\r\n",
        long.as_bytes(),
    ];
    for text in garbage {
        let answer = say(address, text).await;
        assert!(!answer.contains(" 200 "), "{answer}");
    }
    // One request per connection.
    let both = say(
        address,
        b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\nGET /healthz HTTP/1.1\r\nhost: a\r\n\r\n",
    );
    assert_eq!(both.await.matches("HTTP/1.1").count(), 1);
    assert_eq!(get(address, "/healthz").await, line(200, "ok"));
    drop(process);
}

#[tokio::test]
async fn in_the_drain_delay_it_is_not_ready_and_serves() {
    let tools = Process::demo_tools().await;
    let mut process = Process::serve_demo("drain_delay = \"3s\"", "", tools.address).await;
    let address = ready(&process).await;
    let mut client = process.client().await;

    process.signal(Signal::SIGTERM);
    let says_so = |line: &_| message(line).starts_with("shutting down");
    process.log().wait_for("shutting down", says_so).await;
    assert_eq!(get(address, "/readyz").await, line(503, "draining"));
    assert_eq!(get(address, "/healthz").await, line(200, "ok"));
    let response = client.execute_tools(request(vec![call("", "echo")])).await;
    let response = response.expect("an answer").into_inner();
    assert_eq!(seen(&response.results[0]), Seen::Ok(json!({})));

    // And in the drain itself, to the end.
    let sleep = tokio::spawn(async move {
        let arguments = json!({"seconds": 60});
        let sleep = crate::support::call_with("", "sleep", arguments);
        client.execute_tools(request(vec![sleep])).await
    });
    process
        .log()
        .wait_for("draining", |line| message(line) == "draining")
        .await;
    assert_eq!(get(address, "/readyz").await, line(503, "draining"));
    assert_eq!(get(address, "/metrics").await.0, 200);
    process.signal(Signal::SIGTERM);
    assert_eq!(process.exit_code().await, Some(130));
    assert!(sleep.await.unwrap().is_err());
}

#[tokio::test]
async fn those_who_say_nothing_do_not_keep_others_out() {
    let (mut process, address) = service("").await;
    let mut held = Vec::new();
    for index in 0..CONNECTIONS {
        let mut stream = TcpStream::connect(address).await.unwrap();
        if index % 2 == 0 {
            stream
                .write_all(b"GET /healthz HTTP/1.1\r\nhost: ")
                .await
                .unwrap();
        }
        held.push(stream);
    }
    // Behind all of them.
    assert_eq!(get(address, "/healthz").await, line(200, "ok"));
    // The oldest gave way: at the bound they are counted, and logged.
    let oldest = say_nothing_to_the_end(held.remove(1));
    timeout(PATIENCE, oldest).await.expect("the end");
    let page = Page::of_process(&process).await;
    let gave_way = page.value(
        "fanfare_overflows_total",
        &[("fanfare_bound", "admin_connections")],
    );
    assert!(gave_way >= (CONNECTIONS - 200) as f64, "{gave_way}");
    let warned = process.log().all(|line| line["level"] == "WARN");
    assert!(
        message(&warned[0]).contains("too many"),
        "{:?}",
        warned.first()
    );
    // Not a line for each.
    assert!(warned.len() < 60, "{}", warned.len());

    // Nor do they keep the process.
    let mute = TcpStream::connect(address).await.unwrap();
    process.signal(Signal::SIGTERM);
    assert_eq!(process.exit_code().await, Some(0));
    drop((held, mute));
}

async fn say_nothing_to_the_end(mut stream: TcpStream) {
    // A reset is an end too.
    let _ = stream.read_to_end(&mut Vec::new()).await;
}

/// A page in this process, with these metrics.
async fn page(metrics: fn() -> Option<Result<String, String>>) -> SocketAddr {
    let admin = admin::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = admin.local_addr().unwrap();
    tokio::spawn(admin.run(
        Arc::new(metrics),
        Arc::new(|| Ok(())),
        Arc::new(|| Readiness::Starting),
    ));
    address
}

#[tokio::test]
async fn metrics_are_whatever_is_written() {
    let address = page(|| Some(Ok("a_total 1\n".to_owned()))).await;
    assert_eq!(get(address, "/readyz").await, line(503, "starting"));
    let answer = say(address, b"GET /metrics HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(parse(&answer), line(200, "a_total 1"));
    let kind = "content-type: text/plain; version=0.0.4";
    assert!(answer.to_lowercase().contains(kind), "{answer}");

    let address = page(|| Some(Err("two of a name".to_owned()))).await;
    assert_eq!(get(address, "/metrics").await, line(500, "two of a name"));
    assert_eq!(get(address, "/healthz").await, line(200, "ok"));

    let address = page(|| None).await;
    assert_eq!(get(address, "/metrics").await.0, 404);
}

#[tokio::test]
async fn without_metrics_it_says_who_wants_it_so() {
    let toml = "[server]\nlisten = \"127.0.0.1:0\"\n";
    for (variable, value) in [
        ("OTEL_SDK_DISABLED", "true"),
        ("OTEL_METRICS_EXPORTER", "none"),
    ] {
        let process = Process::serve_in(toml, &[(variable, value)]).await;
        let (status, body) = get(admin_address(&process), "/metrics").await;
        assert_eq!(status, 404, "{variable}");
        assert!(body.contains(variable), "{body}");
    }
}

#[tokio::test]
async fn those_who_do_not_read_are_dropped() {
    const BYTES: usize = 64 << 20;
    let address = page(|| Some(Ok("x".repeat(BYTES)))).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = b"GET /metrics HTTP/1.1\r\nhost: a\r\n\r\n";
    stream.write_all(request).await.unwrap();
    stream.read_exact(&mut [0; 100]).await.unwrap();

    // Closed by the page: an error or the end, once all of what was sent is read.
    tokio::time::sleep(11 * SECOND).await;
    let mut rest = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut rest))
        .await
        .expect("the end");
    assert!(rest.len() < BYTES, "{}", rest.len());
}

#[tokio::test]
async fn it_can_be_elsewhere_or_nowhere() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    write!(
        file,
        "[server]\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"{address}\""
    )
    .unwrap();
    let output = fanfare(&["serve", "--config", file.path().to_str().unwrap()]).output();
    let output = timeout(PATIENCE, output).await.expect("an end").unwrap();
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    for named in ["server.admin_listen", &address.to_string()] {
        assert!(stderr.contains(named), "{stderr}");
    }

    let off = "[server]\nadmin_listen = \"off\"\nlisten = \"127.0.0.1:0\"\n";
    let process = Process::serve(off).await;
    let lines = process
        .log()
        .all(|line| message(line).starts_with("admin on "));
    assert!(lines.is_empty(), "{lines:?}");
}
