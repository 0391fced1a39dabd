use std::{
    future::pending,
    net::SocketAddr,
    sync::{Arc, mpsc},
    time::Duration,
};

use fanfare::{
    catalog::Catalog,
    config::Config,
    pb::{
        self, CallToolRequest, CallToolResponse, FailurePolicy,
        tool_service_server::{ToolService, ToolServiceServer},
    },
};
use tokio::{
    net::TcpListener,
    runtime,
    sync::oneshot,
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep, timeout},
};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Request, Response, Status, transport::Server};

use crate::support::{
    SECOND, Seen, amid_others, answered, call, failed,
    hostile::Hostile,
    ms,
    observed::Observed,
    pipes::{self, Client},
    request, results, seen,
    service::Service,
};

/// Tools behind tonic's server as it is by default, in a thread of their own.
struct Tonic {
    address: SocketAddr,
    _stop: oneshot::Sender<()>,
}

struct Tools;

#[tonic::async_trait]
impl ToolService for Tools {
    async fn call_tool(
        &self,
        request: Request<CallToolRequest>,
    ) -> Result<Response<CallToolResponse>, Status> {
        match request.into_inner().name.as_str() {
            "fail" => return Err(Status::aborted("no")),
            "hang" => pending().await,
            _ => sleep(ms(20)).await,
        }
        Ok(Response::new(CallToolResponse::default()))
    }

    async fn list_tools(
        &self,
        _: Request<pb::ListToolsRequest>,
    ) -> Result<Response<pb::ListToolsResponse>, Status> {
        Err(Status::unimplemented("it describes nothing"))
    }
}

impl Tonic {
    fn start() -> Self {
        let (stop, stopped) = oneshot::channel();
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            let runtime = runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
                tell.send(listener.local_addr().expect("an address"))
                    .expect("the test");
                let serving = Server::builder()
                    .add_service(ToolServiceServer::new(Tools))
                    .serve_with_incoming_shutdown(TcpListenerStream::new(listener), async {
                        let _ = stopped.await;
                    });
                serving.await.expect("to serve");
            });
        });
        Self {
            address: told.recv().expect("an address"),
            _stop: stop,
        }
    }

    /// A client of Fanfare whose tools these are.
    async fn client(&self) -> Client {
        let mut toml = format!("[services.tools]\nendpoint = 'http://{}'\n", self.address);
        for tool in ["fail", "hang", "work"] {
            toml.push_str(&format!("[tools.{tool}]\nservice = 'tools'\n"));
        }
        let config = Config::parse(&toml).expect("a configuration");
        pipes::client(&config, Catalog::new(&config)).await
    }
}

/// Calls of others, one after the other and several at a time, until told to stop:
/// how many were answered. Each of them must be.
struct Innocent {
    stop: oneshot::Sender<()>,
    calls: JoinSet<usize>,
}

impl Innocent {
    fn start(client: &Client) -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = futures_util::FutureExt::shared(stopped);
        let mut calls = JoinSet::new();
        for _ in 0..4 {
            let (client, mut stopped) = (client.clone(), stopped.clone());
            calls.spawn(async move {
                let mut well = 0;
                loop {
                    let one = results(&client, vec![call("innocent", "work")]).await;
                    assert_eq!(seen(&one[0]), answered(), "{one:?}");
                    assert_eq!(one[0].attempts, 1);
                    well += 1;
                    if futures_util::FutureExt::now_or_never(&mut stopped).is_some() {
                        return well;
                    }
                }
            });
        }
        Self { stop, calls }
    }

    async fn stop(self) -> usize {
        drop(self.stop);
        self.calls.join_all().await.into_iter().sum()
    }
}

fn hanging(count: usize) -> Vec<pb::ToolCall> {
    vec![call("", "hang"); count]
}

/// A call that works, and then a batch of 400 that hang on the same connection.
async fn a_batch_beside_another_call(
    service: &Service,
    client: &Client,
) -> (
    JoinHandle<Vec<pb::ToolExecutionResult>>,
    JoinHandle<Result<Response<pb::ExecuteToolsResponse>, Status>>,
) {
    let other = tokio::spawn({
        let client = client.clone();
        async move { results(&client, vec![call("", "work")]).await }
    });
    service.works_on(1).await;
    let batch = tokio::spawn({
        let mut client = client.clone();
        async move { client.execute_tools(request(hanging(400))).await }
    });
    service.works_on(401).await;
    (other, batch)
}

#[tokio::test]
async fn failing_batches_that_cancel_their_rest_harm_nobody() {
    let tools = Tonic::start();
    let mut client = tools.client().await;
    let innocent = Innocent::start(&client);
    for _ in 0..40 {
        let mut calls = vec![call("", "fail")];
        calls.extend(hanging(255));
        let failing = pb::ExecuteToolsRequest {
            failure_policy: FailurePolicy::CancelRest.into(),
            ..request(calls)
        };
        let response = client.execute_tools(failing).await.expect("an OK");
        let results = response.into_inner().results;
        // That one, too, is told by the tool.
        let aborted = failed(Code::Aborted, "TOOL_FAILED", "done");
        assert_eq!(seen(&results[0]), aborted);
        for result in &results[1..] {
            assert!(matches!(seen(result), Seen::Err(Code::Cancelled, ..)));
        }
    }
    assert!(innocent.stop().await >= 4);
}

/// Callers that send so many requests and give them up, again and again.
async fn storm(client: &Client, requests: usize, calls: usize, time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        let mut given_up = JoinSet::new();
        for _ in 0..requests {
            let mut client = client.clone();
            given_up.spawn(async move {
                let rpc = client.execute_tools(request(hanging(calls)));
                assert!(timeout(ms(30), rpc).await.is_err(), "they never answer");
            });
        }
        given_up.join_all().await;
    }
}

#[tokio::test]
async fn callers_that_cancel_all_the_time_harm_nobody() {
    let tools = Tonic::start();
    for (requests, calls) in [(4, 256), (100, 8)] {
        let client = tools.client().await;
        let innocent = Innocent::start(&client);
        storm(&client, requests, calls, 2 * SECOND).await;
        // However little a busy machine comes to.
        assert!(innocent.stop().await >= 4, "{requests} of {calls}");
    }
}

/// A bare server of h2 bears 20 streams that are reset before it accepts them.
#[tokio::test]
async fn calls_that_are_given_up_as_they_are_sent_harm_nobody() {
    let service = Hostile::start(vec![]).await;
    let mut client = amid_others::client_of(&service, "").await;
    let sibling = tokio::spawn({
        let client = client.clone();
        async move { results(&client, vec![call("", "sibling")]).await }
    });
    service.has_sibling().await;
    for _ in 0..30 {
        let rpc = client.execute_tools(request(vec![call("", "hostile"); 90]));
        // Just sent, not yet looked at.
        assert!(timeout(ms(2), rpc).await.is_err());
    }
    service.release();
    assert_eq!(seen(&sibling.await.unwrap()[0]), answered());
}

const ONE_CONNECTION: &str = "
    [tools.hang]
    service = 'tools'
    timeout = '200s'
    [tools.work]
    service = 'tools'
    timeout = '200s'
    [services.tools]
    endpoint = 'http://tools'
    max_connections_per_address = 1
    max_streams_per_connection = 1000
    [limits]
    max_calls_per_request = 2000
";

/// More calls are cancelled than their connection may reset soon, and somebody else's
/// is on it.
#[tokio::test(start_paused = true)]
async fn what_is_cancelled_ends_within_seconds_and_the_others_stay() {
    let service = Service::start(|call| async move {
        match call.name.as_str() {
            "hang" => pending().await,
            _ => sleep(60 * SECOND).await,
        }
        Ok(())
    })
    .await;
    let config = Config::parse(ONE_CONNECTION).expect("a configuration");
    let client = service.client_of(&config).await;
    let (other, batch) = a_batch_beside_another_call(&service, &client).await;

    batch.abort();
    // As many as every known server bears.
    sleep(ms(250)).await;
    assert!(
        (150..200).contains(&service.cancelled()),
        "{}",
        service.cancelled()
    );
    sleep(6 * SECOND).await;
    assert_eq!(service.cancelled(), 400);

    // New calls go elsewhere meanwhile.
    assert_eq!(service.dials(), 1);
    let next = results(&client, vec![call("", "work")]).await;
    assert_eq!(seen(&next[0]), answered());
    assert_eq!(service.dials(), 2);
    assert_eq!(seen(&other.await.unwrap()[0]), answered());
}

/// What is cancelled and not yet reset is still with its tool, and nobody gets its
/// place before.
#[tokio::test(start_paused = true)]
async fn no_more_are_with_a_tool_than_may_be_while_cancelled_ones_wait_for_their_reset() {
    let service = Service::start(|call| async move {
        match (call.name.as_str(), call.id.as_str()) {
            ("hang", "") => pending().await,
            ("hang", "lone") => {}
            ("hang", _) => sleep(10 * SECOND).await,
            _ => sleep(60 * SECOND).await,
        }
        Ok(())
    })
    .await;
    let bounded = ONE_CONNECTION.replacen("timeout", "max_concurrency = 400\ntimeout", 1);
    let config = Config::parse(&bounded).expect("a configuration");
    let catalog = Catalog::with_connect(&config, |_| Arc::new(service.clone()));
    let observed = Observed::of(&config, catalog, &[]).await;
    let with_tool = || {
        let page = observed.observer.page();
        page.value("fanfare_tool_active_calls", &[("gen_ai_tool_name", "hang")])
    };
    let client = observed.client.clone();
    let (other, batch) = a_batch_beside_another_call(&service, &client).await;

    batch.abort();
    let start = Instant::now();
    let lone = results(&client, vec![call("lone", "hang")]).await;

    // It waits for the first of them, not for all.
    assert_eq!(seen(&lone[0]), answered());
    assert!(start.elapsed() < ms(100), "{:?}", start.elapsed());
    sleep(ms(250)).await;
    let cancelled = service.cancelled();
    assert!((150..200).contains(&cancelled), "{cancelled}");
    assert_eq!(with_tool(), (400 - cancelled) as f64);
    // The batch itself, sent again, waits for them no longer than that takes.
    let again = (0..400).map(|index| call(&index.to_string(), "hang"));
    let again = results(&client, again.collect()).await;
    assert!(again.iter().all(|result| seen(result) == answered()));
    assert!(start.elapsed() < 17 * SECOND, "{:?}", start.elapsed());
    assert_eq!((service.cancelled(), service.most()), (400, 401));
    let page = observed.observer.page();
    let worn = page.sum("fanfare_tool_service_worn_connections_total", &[]);
    assert_eq!(worn, 1.0);
    assert_eq!(with_tool(), 0.0);
    other.abort();
}

/// When nobody else is on it, a connection that would need long is closed.
#[tokio::test(start_paused = true)]
async fn a_connection_with_nothing_but_cancelled_calls_is_closed() {
    let service = Service::start(|_| pending()).await;
    let config = Config::parse(ONE_CONNECTION).expect("a configuration");
    let client = service.client_of(&config).await;
    let batch = tokio::spawn({
        let mut client = client.clone();
        async move { client.execute_tools(request(hanging(1000))).await }
    });
    service.works_on(1000).await;

    batch.abort();
    sleep(ms(250)).await;

    assert_eq!(service.cancelled(), 1000);
}
