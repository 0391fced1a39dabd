//! Each service is connected to at the start, and what is known of it is told.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use fanfare::{
    catalog::Catalog,
    config::Config,
    net::{Connect, Io},
    pb::{self, ConnectivityState},
};
use futures_util::future::BoxFuture;
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

use crate::support::{
    SECOND, call, ms,
    page::{self, Page},
    pipes::{self, Client},
    process::{PATIENCE, Process, message},
    results,
    service::Service,
    sockets::{black_hole, reserved},
};

/// What `ListTools` says of each tool's service.
async fn states(client: &Client) -> BTreeMap<String, ConnectivityState> {
    let tools = client
        .clone()
        .list_tools(pb::ListToolsRequest::default())
        .await;
    let tools = tools.expect("the tools").into_inner().tools.into_iter();
    tools
        .map(|tool| (tool.name.clone(), tool.connectivity_state()))
        .collect()
}

/// What `ListTools` says of the service of the one tool.
async fn state(client: &Client) -> ConnectivityState {
    states(client).await["tool"]
}

/// A service with a tool, each of that name.
fn section(name: &str, endpoint: &str) -> String {
    format!("[services.{name}]\nendpoint = \"{endpoint}\"\n[tools.{name}]\nservice = \"{name}\"\n")
}

#[tokio::test]
async fn who_can_not_be_reached_is_told_before_any_call() {
    let tools = Process::demo_tools().await;
    let (refused, black_hole) = (reserved(), black_hole().await);
    let mut toml = "[server]\nlisten = \"127.0.0.1:0\"\n".to_owned();
    for (name, endpoint) in [
        ("well", format!("http://{}", tools.address)),
        ("refused", format!("http://{}", refused.address)),
        ("dropped", format!("http://{}", black_hole.address)),
        ("named", "http://nowhere.invalid:1".to_owned()),
        ("plain", format!("https://{}", tools.address)),
    ] {
        toml.push_str(&section(name, &endpoint));
    }
    let server = Process::serve(&toml).await;
    // It is the tools that are down, not this process.
    let ready = async {
        while !page::of_admin(&server, "/readyz")
            .await
            .starts_with("HTTP/1.1 200 ")
        {}
    };
    timeout(PATIENCE, ready).await.expect("to be ready");

    for (service, text, reason) in [
        ("refused", "can't connect", "refused"),
        ("dropped", "can't connect", "no connection within 1s"),
        ("named", "can't resolve", ""),
        ("plain", "can't connect", "TLS: "),
    ] {
        let is_it = |line: &Value| line["service"] == service && line["level"] == "WARN";
        let warned = server.log().wait_for(service, is_it).await;
        assert_eq!(message(&warned), text, "{service}");
        let told = warned["reason"].as_str().expect("a reason");
        assert!(told.contains(reason) && !told.is_empty(), "{told}");
    }
    let client = server.client().await;
    let known = async {
        loop {
            let states = states(&client).await;
            let unknown = [ConnectivityState::Idle, ConnectivityState::Connecting];
            if !states.values().any(|state| unknown.contains(state)) {
                return states;
            }
        }
    };
    let states = timeout(PATIENCE, known).await.expect("to know");
    for (name, state) in states {
        let expected = match name.as_str() {
            "well" => ConnectivityState::Ready,
            _ => ConnectivityState::TransientFailure,
        };
        assert_eq!(state, expected, "{name}");
    }
    let page = Page::of_process(&server).await;
    let metric = "fanfare_tool_service_connectivity_state";
    for (service, value) in [("well", 3.0), ("refused", 4.0)] {
        let labels = [("fanfare_tool_service", service)];
        assert_eq!(page.value(metric, &labels), value, "{service}");
    }
    // No tool was called, and nothing is warned of twice.
    let warned = server.log().all(|line| line["service"] == "refused");
    assert_eq!(warned.len(), 1, "{warned:?}");
}

/// The catalog of a service `tools` with one `tool`.
fn catalog_of(service: &Service, keys: &str) -> (Config, Catalog) {
    let toml = format!(
        "[services.tools]\nendpoint = \"http://tools\"\n{keys}\n[tools.tool]\nservice = \"tools\"\n"
    );
    let config = Config::parse(&toml).expect("a configuration");
    let catalog = Catalog::with_connect(&config, |_| Arc::new(service.clone()));
    (config, catalog)
}

#[tokio::test(start_paused = true)]
async fn a_service_that_comes_later_is_found_without_a_call() {
    let service = Service::start(|_| async { Ok(()) }).await;
    service.kill();
    let (config, catalog) = catalog_of(&service, "connection_idle_timeout = \"2m\"");
    let connecting = catalog.connect();
    let client = pipes::client(&config, catalog).await;
    assert_eq!(state(&client).await, ConnectivityState::Idle);
    connecting.await;
    assert_eq!(state(&client).await, ConnectivityState::TransientFailure);

    sleep(600 * SECOND).await;
    assert_eq!(state(&client).await, ConnectivityState::TransientFailure);
    let dials = service.dials();
    assert!((20..=22).contains(&dials), "{dials} dials in 10 minutes");
    service.start_again();
    sleep(31 * SECOND).await;
    assert_eq!(state(&client).await, ConnectivityState::Ready);
    assert_eq!(service.met(), []);

    // As any other it is closed when nobody needs it; then nobody knows.
    sleep(170 * SECOND).await;
    assert_eq!(state(&client).await, ConnectivityState::Idle);
    let dials = service.dials();
    sleep(600 * SECOND).await;
    assert_eq!(service.dials(), dials);
    results(&client, vec![call("", "tool")]).await;
    assert_eq!(state(&client).await, ConnectivityState::Ready);
}

#[tokio::test(start_paused = true)]
async fn the_first_call_takes_the_connection_that_is_there() {
    let service = Service::start(|_| async { Ok(()) }).await;
    let (config, catalog) = catalog_of(&service, "");
    catalog.connect().await;
    let client = pipes::client(&config, catalog).await;
    assert_eq!(state(&client).await, ConnectivityState::Ready);
    results(&client, vec![call("", "tool")]).await;
    assert_eq!(service.dials(), 1);
    service.kill();
    sleep(ms(1)).await;
    assert_eq!(state(&client).await, ConnectivityState::Idle);
}

/// A network in which nothing answers.
#[derive(Default)]
struct Nowhere {
    now: AtomicUsize,
    most: AtomicUsize,
}

struct Dialing(Arc<Nowhere>);

impl Drop for Dialing {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::SeqCst);
    }
}

struct Dials(Arc<Nowhere>);

impl Connect for Dials {
    fn connect(&self) -> BoxFuture<'static, io::Result<Box<dyn Io>>> {
        let now = self.0.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.0.most.fetch_max(now, Ordering::SeqCst);
        let dialing = Dialing(Arc::clone(&self.0));
        Box::pin(async move {
            let _dialing = dialing;
            std::future::pending().await
        })
    }
}

#[tokio::test(start_paused = true)]
async fn hundreds_of_services_are_not_dialed_all_at_once() {
    let sections = (0..320).map(|index| section(&format!("s{index}"), "http://tools"));
    let toml = sections.collect::<String>();
    let config = Config::parse(&toml).expect("a configuration");
    let nowhere = Arc::new(Nowhere::default());
    let catalog = Catalog::with_connect(&config, |_| Arc::new(Dials(Arc::clone(&nowhere))));
    let start = Instant::now();

    catalog.connect().await;

    assert_eq!(nowhere.most.load(Ordering::SeqCst), 16);
    // Each takes a second, of which 16 pass together.
    let took = start.elapsed();
    assert!((20 * SECOND..21 * SECOND).contains(&took), "{took:?}");
    let client = pipes::client(&config, catalog).await;
    for (name, state) in states(&client).await {
        assert_eq!(state, ConnectivityState::TransientFailure, "{name}");
    }
}
