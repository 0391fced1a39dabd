//! Answers that their callers do not take: bounded in bytes and in time.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use fanfare::{
    config::Config,
    demo::tools::DemoTools,
    net::Connect as _,
    pb::{self, stream_execute_tools_response::Event, tool_execution_result::Outcome},
    server::Server,
};
use futures_util::future::join_all;
use h2::{Reason, RecvStream, client::Builder};
use prost::Message as _;
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::support::{
    SECOND, call, call_with, config, ms,
    pipes::{PipeConnect, client_of, service},
    raw::{Answer, EXECUTE, RawClient, STREAM, framed, next_data, post, post_with},
    request,
};

const MIB: usize = 1 << 20;
const LIST: &str = "/fanfare.v1.OrchestratorService/ListTools";
/// How long after its deadline a stream ends that is not read.
const MARGIN: Duration = Duration::from_secs(2);

async fn server(config: Config) -> Arc<Server> {
    let names = ["payload", "echo", "sleep"];
    let (config, catalog) = service(config, DemoTools::default(), &names).await;
    Arc::new(Server::orchestrator(&config, catalog).await)
}

/// A caller that lets each stream send so many bytes.
async fn caller(server: &Arc<Server>, window: u32) -> RawClient {
    let mut builder = Builder::new();
    builder
        .initial_window_size(window)
        .initial_connection_window_size(64 << 20);
    let pipe = PipeConnect(Arc::clone(server)).connect().await.unwrap();
    RawClient::over(pipe, &builder).await
}

fn payloads(count: usize, bytes: usize) -> Bytes {
    let call = call_with("", "payload", json!({"bytes": bytes}));
    framed(&request(vec![call; count]))
}

/// The end of a stream whose window is not opened further: when, and why.
async fn end_of(mut body: RecvStream) -> (Instant, Option<Reason>) {
    let end = async {
        loop {
            match body.data().await {
                Some(Ok(_)) => {}
                Some(Err(error)) => return error.reason(),
                None => return None,
            }
        }
    };
    let reason = timeout(1000 * SECOND, end).await.expect("an end");
    (Instant::now(), reason)
}

/// Comes true when the server holds nothing any more.
async fn holds_nothing(server: &Server) {
    let nothing = async {
        while server.buffered().held() > 0 {
            sleep(ms(1)).await;
        }
    };
    let held = || server.buffered().held();
    let end = timeout(SECOND, nothing).await;
    end.unwrap_or_else(|_| panic!("{} bytes are held for ever", held()));
}

#[tokio::test(start_paused = true)]
async fn a_unary_answer_that_is_not_taken_ends_after_its_deadline() {
    // Nothing is taken, or the beginning.
    for window in [0, 1, 1000] {
        let server = server(config()).await;
        let client = caller(&server, window).await;
        let start = Instant::now();

        let ask = post_with(EXECUTE, "grpc-timeout", "10S");
        let response = client.send(ask, payloads(4, 900_000)).await.unwrap();
        let (_, body) = response.await.unwrap().into_parts();

        sleep(5 * SECOND).await;
        let held = server.buffered().held();
        assert!(held > 3_600_000 && held < 3_700_000, "{held}");
        let (end, reason) = end_of(body).await;
        assert_eq!(reason, Some(Reason::CANCEL));
        let late = end - (start + 10 * SECOND + MARGIN);
        assert!(late < ms(100), "{late:?}");
        holds_nothing(&server).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_keeps_its_place_until_its_answer_was_taken() {
    let mut config = config();
    config.limits.max_in_flight_calls = 4;
    let server = server(config).await;
    let client = caller(&server, 0).await;
    let honest = caller(&server, 1 << 20).await;
    let code = async || {
        let answer = honest.ask(post(EXECUTE), payloads(1, 1)).await;
        answer.unwrap().status().code()
    };
    for bytes in [1, 900_000] {
        let response = client
            .send(post(EXECUTE), payloads(4, bytes))
            .await
            .unwrap();
        let (_, mut body) = response.await.unwrap().into_parts();
        assert_eq!(code().await, Code::ResourceExhausted, "{bytes}");

        client.set_stream_window(8 << 20);
        while next_data(&mut body).await.unwrap().is_some() {}

        assert_eq!(code().await, Code::Ok, "{bytes}");
        client.set_stream_window(0);
        sleep(ms(100)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn small_answers_that_are_not_taken_end_but_for_a_few() {
    const CALLERS: usize = 200;
    let server = server(config()).await;
    let client = caller(&server, 1).await;
    let ask = async || {
        let ask = post_with(EXECUTE, "grpc-timeout", "10S");
        let response = client.send(ask, payloads(1, 100)).await.unwrap();
        response.await.unwrap().into_body()
    };
    let mut bodies = Vec::new();
    for _ in 0..CALLERS {
        bodies.push(ask().await);
    }
    sleep(10 * SECOND + MARGIN + SECOND).await;

    // What h2 could not reset any more is bounded for each connection.
    let held = server.buffered().held();
    assert!((1..256 << 10).contains(&held), "{held}");
    client.set_stream_window(1000);
    let ends = join_all(bodies.into_iter().map(end_of)).await;
    let reset = ends.iter().filter(|(_, reason)| reason.is_some()).count();
    assert!((CALLERS - 72..CALLERS).contains(&reset), "{reset}");
    holds_nothing(&server).await;
    // The connection serves on.
    let answer = client.ask(post(EXECUTE), payloads(1, 100)).await;
    assert_eq!(answer.unwrap().code(), Code::Ok);
}

#[tokio::test(start_paused = true)]
async fn streams_that_are_not_read_hold_no_more_than_may_be_held() {
    const STREAMS: usize = 8;
    const CALLS: usize = 100;
    let mut config = config();
    config.limits.max_buffered_bytes = 64 * MIB;
    let server = server(config).await;
    let client = caller(&server, 1000).await;
    let start = Instant::now();
    let ask = async || {
        let ask = post_with(STREAM, "grpc-timeout", "60S");
        let response = client.send(ask, payloads(CALLS, 1_000_000)).await.unwrap();
        response.await.unwrap().into_body()
    };
    let mut bodies = Vec::new();
    for _ in 0..STREAMS {
        bodies.push(ask().await);
    }
    let mut most = 0;
    while start.elapsed() < 30 * SECOND {
        most = most.max(server.buffered().held());
        sleep(ms(50)).await;
    }
    // The last eighth is not for what is large.
    assert!(most > 54 * MIB && most <= 64 * MIB, "{most}");

    // Small calls of others go on.
    let honest = caller(&server, 1 << 20).await;
    let answer = honest.ask(post(EXECUTE), payloads(8, 1000)).await;
    let answer: pb::ExecuteToolsResponse = answer.unwrap().messages().remove(0);
    let observed =
        |result: &pb::ToolExecutionResult| matches!(result.outcome, Some(Outcome::Observation(_)));
    assert!(answer.results.iter().all(observed), "{answer:#?}");

    // Each call of the others has its outcome, also those that there was no room for.
    let last = bodies.pop().unwrap();
    client.set_stream_window(8 << 20);
    let ends = join_all(bodies.into_iter().map(end_of));
    let (results, ends) = tokio::join!(streamed(last), ends);
    assert_eq!(results.len(), CALLS);
    let failed: Vec<_> = results
        .iter()
        .filter_map(|result| match &result.outcome {
            Some(Outcome::Error(error)) => Some(error),
            _ => None,
        })
        .collect();
    assert!(!failed.is_empty());
    for error in failed {
        let info = crate::support::error_info(error);
        assert_eq!(error.code, Code::ResourceExhausted as i32);
        assert_eq!(info.reason, "RESULT_TOO_LARGE");
        assert_eq!(info.metadata["effect"], "done");
        assert!(error.message.contains("no room"), "{}", error.message);
    }
    for (end, _) in ends {
        assert!(end <= start + 60 * SECOND + MARGIN + ms(100));
    }
    holds_nothing(&server).await;
}

/// The completions of a stream, all of which is read.
async fn streamed(mut body: RecvStream) -> Vec<pb::ToolExecutionResult> {
    let mut received = bytes::BytesMut::new();
    while let Some(data) = next_data(&mut body).await.unwrap() {
        received.extend_from_slice(&data);
    }
    let answer = Answer {
        http: http::StatusCode::OK,
        headers: http::HeaderMap::new(),
        body: received.freeze(),
        trailers: body.trailers().await.unwrap().unwrap(),
    };
    assert_eq!(answer.code(), Code::Ok);
    let messages: Vec<pb::StreamExecuteToolsResponse> = answer.messages();
    messages
        .into_iter()
        .filter_map(|message| match message.event {
            Some(Event::Completion(result)) => Some(result),
            _ => None,
        })
        .collect()
}

#[tokio::test(start_paused = true)]
async fn requests_are_shed_when_no_more_may_be_held() {
    let mut config = config();
    config.limits.max_buffered_bytes = 8 * MIB;
    let server = server(config).await;
    let client = caller(&server, 0).await;
    let ask = || post_with(EXECUTE, "grpc-timeout", "10S");
    let two: Vec<_> = join_all((0..2).map(async |_| {
        let response = client.send(ask(), payloads(4, 900_000)).await.unwrap();
        response.await.unwrap().into_body()
    }))
    .await;
    assert!(server.buffered().held() > 7_000_000);

    let mut honest = client_of(&server).await;
    let sleeps = call_with("", "sleep", json!({"seconds": 5}));
    let many = request(vec![sleeps; 250]);
    let mut open = Vec::new();
    let status = loop {
        match honest.stream_execute_tools(many.clone()).await {
            Ok(stream) => open.push(stream),
            Err(status) => break status,
        }
        assert!(open.len() < 100, "never shed");
    };
    assert_shed(&status);
    drop(open);
    // A call that fits is taken on.
    let one = request(vec![call("", "echo")]);
    honest.execute_tools(one).await.unwrap();
    drop(two);
}

fn assert_shed(status: &Status) {
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.get_details_retry_info().is_some(), "{status:?}");
    let info = status.get_details_error_info().expect("ErrorInfo");
    assert_eq!(info.reason, "OVERLOADED");
    assert_eq!(info.domain, "fanfare");
}

#[tokio::test(start_paused = true)]
async fn lists_of_tools_that_are_not_taken_are_bounded_as_well() {
    let mut config = config();
    config.limits.max_buffered_bytes = 8 * MIB;
    let service = fanfare::config::Service::new("http://tools".parse().unwrap());
    config.services.insert("tools".to_owned(), service);
    for index in 0..1000 {
        let name = fanfare::core::call::ToolName::try_new(format!("tool{index}")).unwrap();
        let mut tool = fanfare::config::Tool::new("tools".to_owned());
        tool.description = "d".repeat(1000);
        config.tools.insert(name, tool);
    }
    let server = server(config).await;
    let client = caller(&server, 100).await;
    let list = || post_with(LIST, "grpc-timeout", "10S");
    let body = framed(&pb::ListToolsRequest::default());
    let mut bodies = Vec::new();
    for _ in 0..20 {
        let response = client.send(list(), body.clone()).await.unwrap();
        bodies.push(response.await.unwrap().into_body());
    }
    sleep(SECOND).await;
    let held = server.buffered().held();
    assert!(held > 6 * MIB && held <= 8 * MIB, "{held}");

    // Those that there was no room for said so; health is told even now.
    let full = client.ask(list(), body.clone()).await.unwrap();
    assert_shed(&full.status());
    let check = post("/grpc.health.v1.Health/Check");
    let health = client
        .ask(check, framed(&pb::ListToolsRequest::default()))
        .await;
    assert_eq!(health.unwrap().code(), Code::Ok);

    join_all(bodies.into_iter().map(end_of)).await;
    holds_nothing(&server).await;
    client.set_stream_window(4 << 20);
    let listed = client.ask(list(), body).await.unwrap();
    let listed: pb::ListToolsResponse = listed.messages().remove(0);
    assert!(listed.encoded_len() > 1_000_000 && listed.tools.len() > 1000);
}
