use fanfare::net::{Connect as _, Io};
use http::StatusCode;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::*;
use crate::support::{
    page::{self, Page},
    pipes::PipeConnect,
    process::{PATIENCE, message},
    raw::{Answer, loopback},
};

fn body_of(name: &str) -> Bytes {
    framed(&request(vec![call("", name)]))
}

async fn server_of(config: &Config, tool: Scripted) -> Arc<Server> {
    Arc::new(Server::orchestrator(config, catalog([("tool", tool)])).await)
}

#[tokio::test(start_paused = true)]
async fn a_connection_may_have_so_many_streams() {
    let mut config = config();
    config.server.max_streams_per_connection = 3;
    let tool = Scripted::answers_after(SECOND);
    let client = RawClient::of_server(&server_of(&config, tool).await).await;
    let start = Instant::now();
    // The server's settings are there when it has answered.
    client
        .ask(post("/"), Bytes::new())
        .await
        .expect("an answer");
    assert_eq!(client.sender.current_max_send_streams(), 3);

    let four = (0..4).map(|_| client.ask(post(EXECUTE), body_of("tool")));
    let ends = join_all(four.map(|answer| async {
        assert_eq!(answer.await.unwrap().code(), Code::Ok);
        start.elapsed()
    }))
    .await;

    // The fourth waits for one of the others.
    assert_eq!(ends, [SECOND, SECOND, SECOND, 2 * SECOND]);
}

#[tokio::test]
async fn headers_may_have_so_many_bytes() {
    let mut config = config();
    config.server.max_header_list_bytes = 16 << 10;
    let address = loopback(&config, catalog([("tool", Scripted::answers_with(1))])).await;
    let client = RawClient::connect(address).await;
    let ask = async |client: &RawClient, bytes: usize| {
        let request = post_with(EXECUTE, "x-custom", "x".repeat(bytes));
        client.ask(request, body_of("tool")).await
    };

    // RFC 9113, 6.5.2, counts 32 bytes with each field.
    let others = [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "fanfare"),
        (":path", EXECUTE),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("x-custom", ""),
    ];
    let others: usize = others.iter().map(|(n, v)| n.len() + v.len() + 32).sum();
    let most = (16 << 10) - others;
    assert_eq!(ask(&client, most).await.unwrap().code(), Code::Ok);
    for over in [most + 1, 17 << 10, 63 << 10] {
        let refused = ask(&client, over).await.unwrap();
        assert_eq!(refused.code(), Code::ResourceExhausted, "{over}");
    }
    // Far over it, HTTP/2 answers, in HTTP's way.
    let refused = ask(&client, 65 << 10).await.unwrap();
    assert_eq!(refused.http, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    // The connection survives that.
    assert_eq!(ask(&client, 1).await.unwrap().code(), Code::Ok);

    // It need not survive abuse, but the server does.
    let abused = ask(&client, 300 << 10).await;
    assert!(abused.is_err(), "{abused:?}");
    let another = RawClient::connect(address).await;
    assert_eq!(ask(&another, 1).await.unwrap().code(), Code::Ok);
}

/// Beyond the bound a connection is closed before anything is said on it: what gRPC's
/// clients take for an address that does not work now. Whoever is there is served, and
/// probes that ask for new callers say no.
#[tokio::test]
async fn a_connection_too_many_is_closed_at_once() {
    let server = Process::serve("[server]\nlisten = \"127.0.0.1:0\"\nmax_connections = 2").await;
    let ask = async |client: &RawClient| {
        let answer = client.ask(post(EXECUTE), body_of("nobody")).await;
        assert_eq!(answer.unwrap().code(), Code::Ok);
    };
    let one = RawClient::connect(server.address).await;
    let two = RawClient::connect(server.address).await;
    ask(&one).await;
    ask(&two).await;
    let readiness = async || page::of_admin(&server, "/readyz").await;
    assert!(readiness().await.starts_with("HTTP/1.1 503 "));

    for refused in 1..=50 {
        let mut third = TcpStream::connect(server.address).await.unwrap();
        let mut heard = Vec::new();
        let end = timeout(PATIENCE, third.read_to_end(&mut heard)).await;
        // A reset is an end too.
        let _ = end.expect("the end");
        assert_eq!(heard, b"", "it would count as a connection that works");
        if refused == 50 {
            break;
        }
    }
    ask(&two).await;
    let page = Page::of_process(&server).await;
    let bound = [("fanfare_bound", "server.max_connections")];
    assert_eq!(page.value("fanfare_overflows_total", &bound), 50.0);
    assert_eq!(page.value("fanfare_connections", &[]), 2.0);
    assert_eq!(page.value("fanfare_connections_limit", &[]), 2.0);
    let is_warning = |line: &Value| line["level"] == "WARN";
    server.log().wait_for("a warning", is_warning).await;
    let warned = server.log().all(is_warning);
    assert!(message(&warned[0]).contains("server.max_connections"));
    assert!(warned.len() < 40, "{}", warned.len());

    drop(one);
    let there_is_room = async { while !readiness().await.starts_with("HTTP/1.1 200 ") {} };
    timeout(PATIENCE, there_is_room).await.expect("room");
    ask(&RawClient::connect(server.address).await).await;
    ask(&two).await;
}

/// Callers get what file descriptors are left when tools and operators have theirs.
#[tokio::test]
async fn callers_leave_file_descriptors_for_tools_and_operators() {
    const LIMIT: u64 = 240;
    let tools = Process::demo_tools().await;
    let demo = fanfare::demo::config_toml(tools.address);
    let toml = format!("[server]\nlisten = \"127.0.0.1:0\"\n{demo}");
    let server = Process::serve_within(&toml, LIMIT).await;
    let warned = server.log().all(|line| line["level"] == "WARN");
    assert!(
        message(&warned[0]).contains("too few file descriptors"),
        "{warned:?}"
    );
    assert_eq!(warned[0]["limit"], LIMIT);
    let callers = warned[0]["for_callers"].as_u64().expect("a count");
    assert!((LIMIT / 2..LIMIT).contains(&callers), "{callers}");

    let caller = RawClient::connect(server.address).await;
    let list = post("/fanfare.v1.OrchestratorService/ListTools");
    caller.ask(list, framed(&())).await.expect("an answer");
    let mut idle = Vec::new();
    for _ in 0..LIMIT {
        idle.push(TcpStream::connect(server.address).await.unwrap());
    }
    // All of them were seen: those that are too many are counted.
    let bound = [("fanfare_bound", "server.max_connections")];
    let page = async {
        loop {
            let page = Page::of_process(&server).await;
            let closed = page.value("fanfare_overflows_total", &bound);
            if closed >= (LIMIT + 1 - callers) as f64 {
                return page;
            }
        }
    };
    let page = timeout(PATIENCE, page).await.expect("the operators' page");
    assert_eq!(page.value("fanfare_connections", &[]), callers as f64);
    let starved = [("fanfare_bound", "file_descriptors")];
    assert_eq!(page.value("fanfare_overflows_total", &starved), 0.0);
    // The tools can be dialed.
    let answer = caller.ask(post(EXECUTE), body_of("echo")).await.unwrap();
    let answer = &answer.messages::<pb::ExecuteToolsResponse>()[0];
    assert!(matches!(seen(&answer.results[0]), Seen::Ok(_)));
}

#[tokio::test]
async fn the_soft_limit_on_file_descriptors_is_raised() {
    let server = Process::serve("[server]\nlisten = \"127.0.0.1:0\"").await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", server.pid())).unwrap();
    let open_files = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let numbers: Vec<_> = open_files
        .unwrap()
        .split_whitespace()
        .filter(|word| word.chars().all(|c| c.is_ascii_digit()))
        .collect();
    assert_eq!(numbers.len(), 2, "{open_files:?}");
    assert_eq!(numbers[0], numbers[1]);
}

/// Reads to the end, which must come some time; returns when it came.
async fn end_of(io: &mut (impl Io + ?Sized)) -> Instant {
    let mut rest = Vec::new();
    // A broken pipe is an end as well.
    let end = timeout(PATIENCE, io.read_to_end(&mut rest)).await;
    assert!(end.is_ok(), "the connection stays open");
    Instant::now()
}

#[tokio::test(start_paused = true)]
async fn a_connection_must_begin_to_speak_in_time() {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    const EMPTY_SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let mut config = config();
    config.server.first_byte_timeout = 3 * SECOND;
    let server = server_of(&config, Scripted::answers_with(1)).await;

    let mute = [&[], &PREFACE[..1], &PREFACE[..12], PREFACE];
    for sent in mute {
        let mut pipe = PipeConnect(server.clone()).connect().await.unwrap();
        let start = Instant::now();
        pipe.write_all(sent).await.unwrap();
        let end = end_of(&mut *pipe).await;
        assert_eq!(end - start, 3 * SECOND, "{} bytes", sent.len());
    }

    // Byte by byte is no way around it.
    let mut pipe = PipeConnect(server.clone()).connect().await.unwrap();
    let start = Instant::now();
    let mut trickled = 0;
    for byte in PREFACE {
        sleep(ms(500)).await;
        if pipe.write_all(&[*byte]).await.is_err() {
            break;
        }
        trickled += 1;
    }
    assert!(trickled <= 6, "{trickled} bytes were taken");
    assert!(start.elapsed() <= 4 * SECOND);

    // Who spoke may be idle.
    let mut pipe = PipeConnect(server.clone()).connect().await.unwrap();
    pipe.write_all(PREFACE).await.unwrap();
    pipe.write_all(&EMPTY_SETTINGS).await.unwrap();
    let idle = timeout(10 * SECOND, end_of(&mut *pipe)).await;
    assert!(idle.is_err());
}

#[tokio::test]
async fn a_mute_socket_is_closed_in_time() {
    let mut config = config();
    config.server.first_byte_timeout = ms(200);
    let address = loopback(&config, catalog([])).await;
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let start = Instant::now();

    let end = end_of(&mut stream).await;

    assert!(end - start >= ms(190));
}

#[tokio::test(start_paused = true)]
async fn an_old_connection_finishes_its_calls_and_takes_no_more() {
    let mut config = config();
    // Give or take a tenth.
    config.server.max_connection_age = 10 * SECOND;
    let server = server_of(&config, Scripted::answers_after(25 * SECOND)).await;
    let client = RawClient::of_server(&server).await;
    let mut of_tonic = pipes::client_of(&server).await;
    let start = Instant::now();

    let long = client.send(post(EXECUTE), body_of("tool")).await.unwrap();
    of_tonic
        .list_tools(pb::ListToolsRequest::default())
        .await
        .unwrap();
    sleep(ms(8900)).await;
    let answer = client.ask(post("/"), Bytes::new()).await.unwrap();
    assert_eq!(answer.code(), Code::Unimplemented);

    sleep(ms(2200)).await;
    let refused = client.begin(post("/"), true).await.unwrap_err();
    assert!(refused.is_go_away() && refused.is_remote(), "{refused:?}");
    assert_eq!(refused.reason(), Some(h2::Reason::NO_ERROR));
    // Libraries open another connection.
    of_tonic
        .list_tools(pb::ListToolsRequest::default())
        .await
        .unwrap();

    let answer = Answer::read(long).await.unwrap();
    assert_eq!(answer.code(), Code::Ok);
    client.connection.await.unwrap().unwrap();
    assert_eq!(start.elapsed(), 25 * SECOND);
}
