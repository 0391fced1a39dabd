use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use fanfare::{
    config::Config,
    pb::{self, stream_execute_tools_response::Event},
};
use h2::client::Builder;
use tokio::{
    net::TcpStream,
    sync::{Notify, Semaphore},
    time::timeout,
};
use tonic::{Code, transport::Endpoint};

use crate::support::{
    call, config, pipes,
    process::PATIENCE,
    raw::{Answer, EXECUTE, RawClient, STREAM, framed, loopback, next_data, post},
    request,
    tools::{Scripted, catalog},
};

const CALLS: usize = 20_000;
/// Far less than [`PATIENCE`], far more than an RPC takes on a busy machine.
const PROMPTLY: Duration = Duration::from_secs(5);

/// A server on a real socket, whose tool `tool` ends when it is told to, and
/// whose tool `fast` at once.
struct Server {
    address: SocketAddr,
    /// Ends the call with that id.
    gates: Arc<[Notify]>,
    ended: Arc<Semaphore>,
}

impl Server {
    async fn start() -> Self {
        let gates: Arc<[Notify]> = (0..CALLS).map(|_| Notify::new()).collect();
        let ended = Arc::new(Semaphore::new(0));
        let tool = {
            let (gates, ended) = (gates.clone(), ended.clone());
            Scripted::new(move |invocation| {
                let (gates, ended) = (gates.clone(), ended.clone());
                async move {
                    let id: usize = invocation.call().id.parse().unwrap();
                    gates[id].notified().await;
                    ended.add_permits(1);
                    Ok(Bytes::from_static(b"\x1a\x03yes"))
                }
            })
        };
        let catalog = catalog([("tool", tool), ("fast", Scripted::answers_with(0))]);
        Self {
            address: loopback(&roomy(), catalog).await,
            gates,
            ended,
        }
    }

    /// Ends all calls, one after the other in a random order, each after the
    /// completion before has left: so each is a DATA frame of its own, if the
    /// server lets it. Returns the order.
    async fn end_one_by_one(&self) -> Vec<String> {
        let mut order: Vec<usize> = (0..CALLS).collect();
        fastrand::Rng::with_seed(38).shuffle(&mut order);
        for &id in &order {
            self.gates[id].notify_one();
            let ended = timeout(PATIENCE, self.ended.acquire()).await;
            ended.expect("the tool to end").unwrap().forget();
            // The outbox, the response, the connection, the client's.
            for _ in 0..4 {
                tokio::task::yield_now().await;
            }
        }
        order.iter().map(usize::to_string).collect()
    }
}

fn roomy() -> Config {
    let mut config = config();
    config.limits.max_calls_per_request = CALLS;
    config.limits.concurrency_limit = CALLS;
    config.limits.max_in_flight_calls = 2 * CALLS;
    config.limits.max_response_bytes = CALLS << 10;
    config
}

fn many_calls() -> pb::ExecuteToolsRequest {
    let calls = (0..CALLS).map(|id| call(&id.to_string(), "tool"));
    request(calls.collect())
}

fn request_of_one() -> pb::ExecuteToolsRequest {
    request(vec![call("", "fast")])
}

/// All completions in the order in which the tools ended, then the aggregate in
/// the order of the calls.
fn assert_complete(messages: Vec<pb::StreamExecuteToolsResponse>, ended: &[String]) {
    let mut events: Vec<_> = messages.into_iter().map(|m| m.event.unwrap()).collect();
    let Some(Event::Aggregate(aggregate)) = events.pop() else {
        panic!("no aggregate at the end");
    };
    let completed: Vec<_> = events
        .into_iter()
        .map(|event| match event {
            Event::Completion(result) => result.id,
            Event::Aggregate(_) => panic!("a second aggregate"),
        })
        .collect();
    assert!(completed == ended, "not in the order of completion");
    assert_eq!(aggregate.results.len(), ended.len());
    for (index, result) in aggregate.results.iter().enumerate() {
        assert_eq!(result.index as usize, index);
        assert_eq!(result.id, index.to_string());
    }
}

/// Reads nothing until all tools have ended, then everything.
async fn stalls_and_drains(configure: impl FnOnce(Endpoint) -> Endpoint) {
    let server = Server::start().await;
    let endpoint = Endpoint::try_from(format!("http://{}", server.address)).unwrap();
    let channel = configure(endpoint).connect().await.unwrap();
    let mut client = pipes::Client::new(channel);

    let stream = client.stream_execute_tools(many_calls()).await.unwrap();
    let order = server.end_one_by_one().await;
    let another = timeout(PROMPTLY, client.execute_tools(request_of_one())).await;
    another.expect("an answer beside a stalled stream").unwrap();

    let mut stream = stream.into_inner();
    let mut messages = Vec::new();
    while let Some(message) = stream.message().await.unwrap() {
        messages.push(message);
    }
    assert_complete(messages, &order);
}

#[tokio::test]
async fn a_tonic_client_gets_everything_late() {
    stalls_and_drains(|endpoint| endpoint).await;
}

#[tokio::test]
async fn a_tonic_client_with_a_small_window_gets_everything_late() {
    // Frames that are charged would use up half of the connection's window
    // before they fill the stream's.
    stalls_and_drains(|endpoint| {
        endpoint
            .initial_stream_window_size(64 << 10)
            .initial_connection_window_size(256 << 10)
    })
    .await;
}

#[tokio::test]
async fn a_client_that_takes_byte_by_byte_gets_everything_late() {
    const BYTE_BY_BYTE: usize = 2000;
    let server = Server::start().await;
    let mut builder = Builder::new();
    builder.initial_window_size(1);
    let socket = TcpStream::connect(server.address).await.unwrap();
    let client = RawClient::over(socket, &builder).await;

    let request = framed(&many_calls());
    let response = client.send(post(STREAM), request).await.unwrap();
    let (head, mut body) = response.await.unwrap().into_parts();
    let order = server.end_one_by_one().await;
    let one = framed(&request_of_one());
    let another = timeout(PROMPTLY, client.ask(post(EXECUTE), one)).await;
    let another = another.expect("an answer beside a stalled stream");
    assert_eq!(another.unwrap().code(), Code::Ok);

    let mut received = BytesMut::new();
    for _ in 0..BYTE_BY_BYTE {
        let data = next_data(&mut body).await.unwrap().unwrap();
        assert_eq!(data.len(), 1);
        received.extend_from_slice(&data);
    }
    // The rest would take minutes.
    client.set_stream_window(1 << 20);
    while let Some(data) = next_data(&mut body).await.unwrap() {
        received.extend_from_slice(&data);
    }
    let answer = Answer {
        http: head.status,
        headers: head.headers,
        body: received.freeze(),
        trailers: body.trailers().await.unwrap().unwrap(),
    };
    assert_eq!(answer.code(), Code::Ok);
    assert_complete(answer.messages(), &order);
}
