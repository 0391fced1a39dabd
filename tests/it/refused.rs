//! What h2 refuses before anybody of ours sees it: each leaves a line that says why,
//! and whoever sends many of it does not write the log. By the real binary.

use std::time::Duration;

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::support::{
    Seen, call,
    process::{PATIENCE, Process, message},
    request, seen,
};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const EXECUTE: &str = crate::support::raw::EXECUTE;
const GOOD: &[(&str, &str)] = &[
    (":method", "POST"),
    (":scheme", "http"),
    (":path", EXECUTE),
    (":authority", "fanfare"),
    ("content-type", "application/grpc"),
    ("te", "trailers"),
];
/// Types of frames (RFC 9113, 6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Literals without indexing (RFC 7541, 6.2.2).
fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            // Prefixed with their length (RFC 7541, 5.1).
            let mut length = text.len();
            if length < 127 {
                block.push(length as u8);
            } else {
                block.push(127);
                length -= 127;
                while length >= 128 {
                    block.push((length % 128) as u8 | 128);
                    length /= 128;
                }
                block.push(length as u8);
            }
            block.extend(text.as_bytes());
        }
    }
    block
}

fn headers(stream: u32, fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &block(fields))
}

/// [`GOOD`], with this field instead of the one of its name, or beside them.
fn with(name: &str, value: &str) -> Vec<u8> {
    let mut fields = GOOD.to_vec();
    fields.retain(|(good, _)| *good != name);
    let pseudo = fields.iter().filter(|(name, _)| name.starts_with(':'));
    let place = pseudo.count();
    fields.insert(if name.starts_with(':') { 0 } else { place }, (name, value));
    headers(1, &fields)
}

fn without(name: &str) -> Vec<u8> {
    let fields: Vec<_> = GOOD.iter().copied().filter(|(n, _)| *n != name).collect();
    headers(1, &fields)
}

/// Headers of so many bytes and some more.
fn large_headers(bytes: usize) -> Vec<u8> {
    let block = block(&[GOOD, &[("x-long", &"x".repeat(bytes))]].concat());
    let chunks: Vec<_> = block.chunks(16_000).collect();
    let last = chunks.len() - 1;
    let frames = chunks.iter().enumerate().flat_map(|(index, chunk)| {
        let kind = if index == 0 { HEADERS } else { CONTINUATION };
        let flags = if index == last { END_HEADERS } else { 0 };
        frame(kind, flags, 1, chunk)
    });
    frames.collect()
}

async fn open(server: &Process) -> TcpStream {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(PREFACE).await.unwrap();
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
    stream
}

/// The type and the payload of the next frame that is one of `kinds`; `None` at
/// the end.
async fn next(stream: &mut TcpStream, kinds: &[u8]) -> Option<(u8, Vec<u8>)> {
    let read = async {
        loop {
            let mut head = [0; 9];
            stream.read_exact(&mut head).await.ok()?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; length as usize];
            stream.read_exact(&mut payload).await.ok()?;
            if kinds.contains(&head[3]) {
                return Some((head[3], payload));
            }
        }
    };
    timeout(PATIENCE, read).await.expect("an answer in time")
}

fn tells(line: &Value) -> bool {
    line["target"] == "fanfare::http2"
}

async fn assert_serves(server: &Process) {
    let mut client = server.client().await;
    let response = client.execute_tools(request(vec![call("", "echo")])).await;
    let results = response.unwrap().into_inner().results;
    assert!(matches!(seen(&results[0]), Seen::Ok(_)));
}

#[tokio::test]
async fn the_authority_of_several_addresses_is_refused_and_the_log_says_why() {
    let tools = Process::demo_tools().await;
    let server = Process::serve_demo("", "", tools.address).await;
    // What grpc-core makes of `ipv4:10.0.0.1:50051,10.0.0.2:50051`, by version.
    for authority in [
        "10.0.0.1:50051%2C10.0.0.2:50051",
        "10.0.0.1:50051,10.0.0.2:50051",
    ] {
        let mut stream = open(&server).await;
        let headers = with(":authority", authority);
        stream.write_all(&headers).await.unwrap();

        let protocol_error = Some((RST_STREAM, vec![0, 0, 0, 1]));
        let answer = next(&mut stream, &[RST_STREAM, GOAWAY]).await;
        assert_eq!(answer, protocol_error);

        let told = |line: &Value| tells(line) && message(line).contains(authority);
        let line = server.log().wait_for("the reason", told).await;
        assert_eq!(line["level"], "WARN");
        assert_eq!(line["peer"], "127.0.0.1");
        let text = message(&line);
        assert!(text.contains("malformed authority"), "{text}");
    }
    assert_serves(&server).await;
}

#[tokio::test]
async fn whatever_is_refused_leaves_a_line() {
    let good = || headers(1, GOOD);
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("no method", without(":method"), "missing method"),
        ("no scheme", without(":scheme"), "missing scheme"),
        ("no path", without(":path"), "path missing"),
        ("a bad scheme", with(":scheme", "a b"), "malformed scheme"),
        ("a bad path", with(":path", "/a b"), "malformed path"),
        ("an empty path", with(":path", ""), "missing path"),
        (
            "a status",
            with(":status", "200"),
            ":status header for requests",
        ),
        ("a protocol", with(":protocol", "websocket"), ":protocol"),
        ("capitals", with("X-Name", "x"), "HPACK"),
        (
            "a connection field",
            with("connection", "close"),
            "malformed header block",
        ),
        (
            "a length of letters",
            with("content-length", "x"),
            "content-length",
        ),
        (
            "a length that is none",
            [frame(
                HEADERS,
                END_HEADERS | END_STREAM,
                1,
                &block(&[GOOD, &[("content-length", "5")]].concat()),
            )]
            .concat(),
            "content-length",
        ),
        ("an even stream", headers(2, GOOD), "cannot open stream"),
        ("a stream of old", [headers(3, GOOD), good()].concat(), "id"),
        ("DATA on no stream", frame(DATA, 0, 7, b"x"), "recv_data"),
        (
            "CONTINUATION",
            frame(CONTINUATION, 0, 1, b""),
            "CONTINUATION",
        ),
        (
            "PUSH_PROMISE",
            [good(), frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2])].concat(),
            "failed to load frame",
        ),
        ("a short PING", frame(PING, 0, 0, b"x"), "load PING"),
        (
            "short SETTINGS",
            frame(SETTINGS, 0, 0, b"x"),
            "settings payload",
        ),
        (
            "an unasked ack",
            frame(SETTINGS, 1, 0, b"").repeat(3),
            "unexpected settings ack",
        ),
        (
            "no increment",
            frame(WINDOW_UPDATE, 0, 0, &[0; 4]),
            "WINDOW_UPDATE",
        ),
        (
            "too large a window",
            frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]),
            "FLOW_CONTROL_ERROR",
        ),
        (
            "too large a window of a stream",
            [
                good(),
                frame(WINDOW_UPDATE, 0, 1, &[0x7f, 0xff, 0xff, 0xff]),
            ]
            .concat(),
            "recv_stream_window_update",
        ),
        (
            "depends on itself",
            frame(PRIORITY, 0, 1, &[0, 0, 0, 1, 0]),
            "dependency",
        ),
        (
            "broken HPACK",
            frame(HEADERS, END_HEADERS, 1, &[0xff; 9]),
            "HPACK",
        ),
        (
            "a frame too large",
            vec![0xff, 0xff, 0xff, DATA, 0, 0, 0, 0, 1],
            "FRAME_SIZE_ERROR",
        ),
        (
            "headers of too many frames",
            large_headers(300_000),
            "too_many_continuations",
        ),
        (
            "headers too large",
            large_headers(70_000),
            "REQUEST_HEADER_FIELDS_TOO_LARGE",
        ),
    ];
    let tools = Process::demo_tools().await;
    let server = Process::serve_demo("", "", tools.address).await;
    let mut silent = Vec::new();
    for (what, bytes, text) in cases {
        let before = server.log().all(tells).len();
        let mut stream = open(&server).await;
        // It may be closed before all of it is taken.
        let _ = stream.write_all(&bytes).await;

        let told = |line: &Value| tells(line) && message(line).contains(text);
        let told = async {
            while !server.log().all(tells)[before..].iter().any(told) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if timeout(Duration::from_secs(3), told).await.is_err() {
            let lines = server.log().all(tells)[before..].to_vec();
            silent.push(format!("{what}: {lines:?}"));
        }
    }
    assert!(silent.is_empty(), "{silent:#?}");
    assert_serves(&server).await;
}

#[tokio::test]
async fn many_that_are_refused_write_few_lines() {
    const STREAMS: u32 = 1000;
    let tools = Process::demo_tools().await;
    let server = Process::serve_demo("", "", tools.address).await;
    let mut stream = open(&server).await;
    let mut resets = 0;
    for index in 0..STREAMS {
        let mut fields = GOOD.to_vec();
        fields[3].1 = "a%2Cb";
        stream
            .write_all(&headers(2 * index + 1, &fields))
            .await
            .unwrap();
        resets += u32::from(next(&mut stream, &[RST_STREAM]).await.is_some());
    }
    assert_eq!(resets, STREAMS);

    let told = |line: &Value| tells(line) && !line["left_out"].is_null();
    let report = server.log().wait_for("what was left out", told).await;
    assert_eq!(report["level"], "WARN");
    let like = report["like"].as_str().unwrap();
    assert!(like.contains("malformed authority"), "{like}");
    let lines = server.log().all(tells).len();
    assert!(lines < 100, "{lines}");
    assert_serves(&server).await;
}

#[tokio::test]
async fn they_are_hidden_by_rust_log_as_other_lines_are() {
    let tools = Process::demo_tools().await;
    let demo = fanfare::demo::config_toml(tools.address);
    let toml = format!("[server]\nlisten = \"127.0.0.1:0\"\n{demo}");
    let environment = [("RUST_LOG", "info,fanfare::http2=off")];
    let server = Process::serve_in(&toml, &environment).await;
    let mut stream = open(&server).await;
    stream
        .write_all(&with(":authority", "a%2Cb"))
        .await
        .unwrap();
    assert!(next(&mut stream, &[RST_STREAM]).await.is_some());
    // Its line comes later.
    assert_serves(&server).await;
    let served = |line: &Value| line["target"] == "fanfare::access";
    server.log().wait_for("a request", served).await;
    assert_eq!(server.log().all(tells).len(), 0);
}
