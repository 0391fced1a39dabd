//! Peers that never close their connection: the drain waits for work, not for them.

use fanfare::{catalog::Catalog, config::Config, server::Server};
use nix::sys::signal::Signal;
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpStream},
    time::Instant,
};
use tonic::Code;

use super::{
    NO_DRAIN,
    health::{SERVING, Watch},
    sleep_call,
};
use crate::support::{
    SECOND, bare, call, ledger, ms,
    process::Process,
    raw::{EXECUTE, RawClient, STREAM, framed, post},
    request,
};

/// What a client says first; those here say no more, and read nothing.
const OPENING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

async fn frozen(server: &Process) -> TcpStream {
    let mut stream = bare::connect(server.address).await;
    stream.write_all(OPENING).await.expect("to say it");
    // It is being served when the next one is answered.
    let mut client = server.client().await;
    client
        .list_tools(fanfare::pb::ListToolsRequest::default())
        .await
        .expect("the tools");
    stream
}

#[tokio::test]
async fn a_frozen_caller_without_calls_does_not_hold_the_drain() {
    let tools = Process::demo_tools().await;
    let server = Process::serve_demo("", "", tools.address).await;
    for mut process in [server, tools] {
        let mut stream = bare::connect(process.address).await;
        stream.write_all(OPENING).await.expect("to say it");
        let mut alive = Watch::start(process.channel().await, "").await;
        assert_eq!(alive.next().await, SERVING);

        process.signal(Signal::SIGTERM);
        let start = Instant::now();
        assert_eq!(process.exit_code().await, Some(0));

        assert!(start.elapsed() < NO_DRAIN, "{:?}", start.elapsed());
        drop(stream);
    }
}

/// Answers that are not read, requests that do not become complete, streams that are
/// not ended: their callers say nothing. Nor do those whose calls run, and these are
/// waited for: by the server, and by the tools, which end at the same time.
#[tokio::test]
async fn what_waits_for_its_caller_does_not_hold_the_drain() {
    // Longer than who does not read is given.
    const RUNS: f64 = 7.0;
    let mut tools = Process::demo_tools().await;
    // Longer than a test waits.
    let keys = "drain_timeout = '10m'\nreceive_timeout = '10m'";
    let mut server = Process::serve_demo(keys, "", tools.address).await;
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(0);
    let unread = RawClient::over(bare::connect(server.address).await, &builder).await;
    let mut answers = Vec::new();
    for path in [EXECUTE, STREAM] {
        let body = framed(&request(vec![call("", "echo")]));
        let response = unread.send(post(path), body).await.unwrap();
        // Its head has come, the rest does not fit.
        answers.push(response.await.expect("a head"));
    }
    let half = RawClient::connect(server.address).await;
    let (_response, mut body) = half.begin(post(EXECUTE), false).await.unwrap();
    body.send_data(bytes::Bytes::from_static(&[0, 0, 0]), false)
        .unwrap();
    let _frozen = frozen(&server).await;
    let run = |path| async move {
        let caller = RawClient::connect(server.address).await;
        let body = framed(&request(vec![sleep_call(RUNS)]));
        caller.ask(post(path), body).await
    };
    let running = [EXECUTE, STREAM].map(|path| tokio::spawn(run(path)));
    ledger::started(&tools, 4).await;

    server.signal(Signal::SIGTERM);
    tools.signal(Signal::SIGTERM);
    let start = Instant::now();
    for answer in running {
        let answer = answer.await.unwrap().expect("an answer");
        assert_eq!(answer.code(), Code::Ok);
    }
    assert!(start.elapsed() >= 6 * SECOND);
    for process in [&mut server, &mut tools] {
        assert_eq!(process.exit_code().await, Some(0));
    }
    ledger::answered(&tools, 4).await;
}

/// Serves a connection whose peer says `OPENING` and then nothing, and has the server
/// drain; how long the connection lasts.
#[tokio::test(start_paused = true)]
async fn a_peer_that_says_nothing_gets_a_second() {
    let server = Server::orchestrator(&Config::default(), Catalog::default()).await;
    let (mut peer, ours) = tokio::io::duplex(64 << 10);
    let connection = tokio::spawn(server.serve_connection(ours));
    peer.write_all(OPENING).await.unwrap();
    tokio::time::sleep(10 * SECOND).await;
    assert!(!connection.is_finished());

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let start = Instant::now();
    server.run(listener, async {}).await;
    connection.await.unwrap();
    let took = start.elapsed();
    assert!((SECOND..=SECOND + ms(100)).contains(&took), "{took:?}");
}
