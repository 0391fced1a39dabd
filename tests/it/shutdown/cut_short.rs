use fanfare::pb::{ExecuteToolsRequest, stream_execute_tools_response::Event};
use nix::sys::signal::Signal;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, timeout},
};
use tonic::{Code, transport::Channel};
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

use super::{
    NO_DRAIN,
    health::{ENDED, NOT_SERVING, SERVING, Watch},
};
use crate::support::{
    Seen, bare, call,
    caller::{Caller, HANGING_CALLS},
    failed, ledger, ms,
    process::{PATIENCE, Process},
    request, seen,
};

/// `echo`, which answers, and `hang`, which does not.
fn half_done() -> ExecuteToolsRequest {
    request(vec![call("call_1", "echo"), call("call_2", "hang")])
}

/// What becomes of [`half_done`].
fn cut_short() -> [Seen; 2] {
    let cancelled = failed(Code::Cancelled, "CANCELLED", "maybe");
    [Seen::Ok(json!({})), cancelled]
}

/// A reflection stream of that version, open after one answer.
async fn reflect(channel: Channel, version: &str) -> tonic::Streaming<ServerReflectionResponse> {
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest::ListServices;
    let request = ServerReflectionRequest {
        message_request: Some(ListServices(String::new())),
        ..Default::default()
    };
    let requests =
        tokio_stream::StreamExt::chain(tokio_stream::once(request), tokio_stream::pending());
    let path = format!("/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo");
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.expect("a connection");
    let codec = tonic_prost::ProstCodec::default();
    let answers = client
        .streaming(
            tonic::Request::new(requests),
            path.parse().expect("a path"),
            codec,
        )
        .await;
    let mut answers = answers.expect("a stream").into_inner();
    answers.message().await.expect("an answer").expect("one");
    answers
}

/// A connection that said `opening` and says no more.
async fn connect_and_say(server: &Process, opening: &[u8]) -> TcpStream {
    let mut connection = bare::connect(server.address).await;
    connection.write_all(opening).await.expect("to say it");
    connection
}

/// Waits until the server has closed a connection, with or without a last word.
async fn is_closed(mut connection: TcpStream) -> bool {
    let end = async {
        let mut buffer = [0; 1024];
        while connection
            .read(&mut buffer)
            .await
            .is_ok_and(|count| count > 0)
        {}
    };
    timeout(PATIENCE, end).await.is_ok()
}

const HALF_A_PREFACE: &[u8] = b"PRI * HTTP/2";

#[tokio::test]
async fn what_has_no_end_of_its_own_does_not_hold_the_drain() {
    let mut server = Process::serve("[server]\nlisten = \"127.0.0.1:0\"").await;
    let mut watch = Watch::start(server.channel().await, "").await;
    assert_eq!(watch.next().await, SERVING);
    let mut v1 = reflect(server.channel().await, "v1").await;
    let mut v1alpha = reflect(server.channel().await, "v1alpha").await;
    let mute = connect_and_say(&server, b"").await;
    let half = connect_and_say(&server, HALF_A_PREFACE).await;

    server.signal(Signal::SIGTERM);
    let start = Instant::now();
    assert_eq!(server.exit_code().await, Some(0));

    assert!(start.elapsed() < NO_DRAIN, "{:?}", start.elapsed());
    assert_eq!(watch.next().await, NOT_SERVING);
    assert_eq!(watch.next().await, ENDED);
    for reflection in [&mut v1, &mut v1alpha] {
        let end = reflection.message().await.unwrap_err();
        assert_eq!(end.code(), Code::Unavailable);
    }
    assert!(is_closed(mute).await);
    assert!(is_closed(half).await);
}

#[tokio::test]
async fn what_still_runs_at_the_end_of_the_drain_is_cut_short_with_results() {
    let tools = Process::demo_tools().await;
    let keys = r#"drain_timeout = "700ms""#;
    let mut server = Process::serve_demo(keys, "", tools.address).await;
    let mut watch = Watch::start(server.channel().await, "").await;
    assert_eq!(watch.next().await, SERVING);
    let mut v1 = reflect(server.channel().await, "v1").await;
    let mut v1alpha = reflect(server.channel().await, "v1alpha").await;
    let mute = connect_and_say(&server, b"").await;
    let half = connect_and_say(&server, HALF_A_PREFACE).await;
    let frozen = Caller::start(server.address).await;
    let mut client = server.client().await;
    let stream = client.stream_execute_tools(half_done()).await;
    let mut stream = stream.expect("a stream").into_inner();
    let mut next = async || stream.message().await.map(|m| m.and_then(|m| m.event));
    assert!(matches!(next().await, Ok(Some(Event::Completion(done))) if done.index == 0));
    let unary = tokio::spawn(async move { client.execute_tools(half_done()).await });
    // `echo` in three requests, `hang` in four.
    let calls = 3 + 2 * HANGING_CALLS + 2;
    ledger::started(&tools, calls).await;
    frozen.signal(Signal::SIGSTOP);

    let start = Instant::now();
    server.signal(Signal::SIGTERM);
    assert_eq!(watch.next().await, NOT_SERVING);
    assert_eq!(watch.next().await, ENDED);
    let exit_code = server.exit_code().await;
    let elapsed = start.elapsed();

    assert_eq!(exit_code, Some(0));
    assert!((ms(700)..NO_DRAIN).contains(&elapsed), "{elapsed:?}");
    let Ok(Some(Event::Completion(last))) = next().await else {
        panic!("no completion");
    };
    assert_eq!((last.index, seen(&last)), (1, cut_short()[1].clone()));
    let Ok(Some(Event::Aggregate(aggregate))) = next().await else {
        panic!("no aggregate");
    };
    assert_eq!(
        aggregate.results.iter().map(seen).collect::<Vec<_>>(),
        cut_short()
    );
    assert_eq!(next().await.unwrap(), None);
    let unary = unary.await.unwrap().expect("an answer").into_inner();
    assert_eq!(
        unary.results.iter().map(seen).collect::<Vec<_>>(),
        cut_short()
    );
    for reflection in [&mut v1, &mut v1alpha] {
        let end = reflection.message().await.unwrap_err();
        assert_eq!(end.code(), Code::Unavailable);
    }
    assert!(is_closed(mute).await);
    assert!(is_closed(half).await);
    // On the wire, too, although the process is gone.
    ledger::cancelled(&tools, 2 * HANGING_CALLS + 2).await;
}
