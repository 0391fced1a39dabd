use fanfare::{
    catalog::Catalog,
    pb,
    server::{self, Server},
};
use tokio::{sync::oneshot, time::timeout};
use tonic::{Code, transport::Channel};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus,
    health_client::HealthClient,
};

use super::SERVICE;
use crate::support::{bare, call, config, pipes, process::PATIENCE, request, tools};

pub type Health = Result<ServingStatus, Code>;

pub const SERVING: Health = Ok(ServingStatus::Serving);
pub const NOT_SERVING: Health = Ok(ServingStatus::NotServing);
/// What a watch ends with when the server drains.
pub const ENDED: Health = Err(Code::Unavailable);

/// A watch of the health of one service.
pub struct Watch(tonic::Streaming<HealthCheckResponse>);

impl Watch {
    pub async fn start(channel: Channel, service: &str) -> Self {
        let service = service.to_owned();
        let mut client = HealthClient::new(channel);
        let stream = client.watch(HealthCheckRequest { service }).await;
        Self(stream.expect("a watch").into_inner())
    }

    /// The next status, or the code that the watch ended with.
    pub async fn next(&mut self) -> Health {
        let next = timeout(PATIENCE, self.0.message()).await;
        let next = next.expect("the watch to go on");
        next.map_err(|status| status.code())
            .map(|response| response.map(|response| response.status()))
            .and_then(|status| status.ok_or(Code::Ok))
    }
}

/// Waits until the health of all and of the service has that status.
pub async fn health_is(status: Health, channel: &Channel) {
    for service in ["", SERVICE] {
        let mut watch = Watch::start(channel.clone(), service).await;
        loop {
            let now = watch.next().await;
            if now == status {
                break;
            }
            assert!(now.is_ok(), "the watch ended: {now:?}");
        }
    }
}

pub async fn health(channel: &Channel, service: &str) -> Health {
    let service = service.to_owned();
    let mut client = HealthClient::new(channel.clone());
    let response = client.check(HealthCheckRequest { service }).await;
    response
        .map_err(|status| status.code())
        .map(|response| response.get_ref().status())
}

#[tokio::test]
async fn health_tells_the_truth_from_before_the_start_to_the_end() {
    let server = Server::orchestrator(&config(), Catalog::default()).await;
    let channel = bare::channel_over(bare::pipe_to(&server)).await;
    for service in ["", SERVICE] {
        assert_eq!(health(&channel, service).await, NOT_SERVING);
    }
    let mut watch = Watch::start(channel.clone(), SERVICE).await;
    assert_eq!(watch.next().await, NOT_SERVING);

    let listener = server::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(server.run(listener, async {
        let _ = stopped.await;
    }));
    assert_eq!(watch.next().await, SERVING);
    health_is(SERVING, &channel).await;
    for service in ["", SERVICE, "fanfare.v1.ToolService"] {
        assert_eq!(health(&channel, service).await, SERVING);
    }
    for unknown in ["fanfare.v2.ToolService", "nobody"] {
        assert_eq!(health(&channel, unknown).await, Err(Code::NotFound));
    }

    drop(stop);
    assert_eq!(watch.next().await, NOT_SERVING);
    assert_eq!(watch.next().await, ENDED);
    timeout(PATIENCE, running).await.expect("the end").unwrap();
}

/// Restarting a server for being busy would make it worse.
#[tokio::test(start_paused = true)]
async fn a_full_server_is_a_healthy_one() {
    let running = tools::Running::default();
    let catalog = tools::catalog([("hangs", tools::Scripted::hangs(&running))]);
    let mut config = config();
    config.limits.max_calls_per_request = 2;
    config.limits.max_in_flight_calls = 2;
    let server = Server::orchestrator(&config, catalog).await;
    let listener = server::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let channel = bare::channel_over(bare::pipe_to(&server)).await;
    let _running = tokio::spawn(server.run(listener, std::future::pending()));
    health_is(SERVING, &channel).await;
    let mut client = pipes::Client::new(channel.clone());
    let calls = || request(vec![call("", "hangs"); 2]);
    let stream = client.stream_execute_tools(calls()).await.unwrap();
    assert_eq!(running.count(), 2);

    let shed = client.execute_tools(calls()).await.unwrap_err();
    assert_eq!(shed.code(), Code::ResourceExhausted);
    for service in ["", SERVICE] {
        assert_eq!(health(&channel, service).await, SERVING);
    }
    client
        .list_tools(pb::ListToolsRequest::default())
        .await
        .unwrap();
    drop(stream);
}
