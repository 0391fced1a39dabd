//! A server with telemetry and all that is around it: tools behind pipes, a caller
//! at another pipe, a collector.

use std::sync::Arc;

use fanfare::{
    catalog::{
        Catalog,
        snapshot::{Snapshot, Snapshots},
    },
    config::{Config, Service, Tool},
    core::call::ToolName,
    demo::tools::DemoTools,
    pb::tool_service_server::ToolService,
    server::Server,
    telemetry::Telemetry,
};
use tokio::time::timeout;

use super::{
    collector::{Collector, Received},
    config, ms,
    page::Page,
    pipes::{self, Client, PipeConnect},
    process::PATIENCE,
    spans::{Tree, trees},
};

/// The demo tools that need no process.
pub const NAMES: [&str; 6] = ["echo", "sleep", "fail", "hang", "payload", "panic"];

/// Telemetry, and the collector that it goes to.
pub struct Observer {
    pub telemetry: Telemetry,
    pub collector: Collector,
}

/// A server that is observed, and a caller.
pub struct Observed {
    pub client: Client,
    pub server: Arc<Server>,
    pub observer: Observer,
}

/// What was seen of it.
#[derive(Debug)]
pub struct Seen {
    pub trees: Vec<Tree>,
    /// The page at the end.
    pub page: Page,
    pub received: Received,
}

impl Observed {
    /// With the demo tools.
    pub async fn start() -> Self {
        Self::with(config(), DemoTools::default(), &[]).await
    }

    /// With `tools`, each of [`NAMES`], under these settings.
    pub async fn with(
        mut config: Config,
        tools: impl ToolService,
        variables: &[(&str, &str)],
    ) -> Self {
        let endpoint = "http://tools".parse().expect("a URL");
        let service = Service::new(endpoint);
        config.services.insert("tools".to_owned(), service);
        for name in NAMES {
            let name = ToolName::try_new(name.to_owned()).expect("a tool name");
            let tool = Tool::new("tools".to_owned());
            config.tools.entry(name).or_insert(tool);
        }
        let tools = Arc::new(Server::tools(&config, tools).await);
        let connect = |_: &Service| Arc::new(PipeConnect(Arc::clone(&tools))) as Arc<_>;
        let catalog = Catalog::with_connect(&config, connect);
        Self::of(&config, catalog, variables).await
    }

    /// With the tools of `catalog`, under these settings.
    pub async fn of(config: &Config, catalog: Catalog, variables: &[(&str, &str)]) -> Self {
        let (server, observer) = Observer::start(config, catalog, variables).await;
        let server = Arc::new(server);
        Self {
            client: pipes::client_of(&server).await,
            server,
            observer,
        }
    }

    /// See [`Observer::end`].
    pub async fn end(self) -> Seen {
        self.observer.end().await
    }
}

impl Observer {
    /// A server with the tools of `catalog`, under these settings, and who
    /// observes it.
    pub async fn start(
        config: &Config,
        catalog: Catalog,
        variables: &[(&str, &str)],
    ) -> (Server, Self) {
        let limits = config.limits.clone();
        let snapshots = Snapshots::fixed(Snapshot { limits, catalog });
        Self::following(config, snapshots, variables).await
    }

    /// The same with whichever snapshot is in force.
    pub async fn following(
        config: &Config,
        snapshots: Snapshots,
        variables: &[(&str, &str)],
    ) -> (Server, Self) {
        let collector = Collector::start();
        let settings = collector.settings(variables);
        let tools = snapshots.current().catalog.iter().count();
        let telemetry = Telemetry::start(&settings, tools);
        let server = Server::following(config, snapshots).await;
        let server = server.with_telemetry(telemetry.clone());
        let observer = Self {
            telemetry,
            collector,
        };
        (server, observer)
    }

    pub fn page(&self) -> Page {
        Page::of(&self.telemetry)
    }

    /// Waits until no request and no call is under way.
    pub async fn idle(&self) {
        let idle = async {
            while !self.page().is_idle() {
                tokio::time::sleep(ms(1)).await;
            }
        };
        let idle = timeout(PATIENCE, idle).await;
        assert!(idle.is_ok(), "not idle: {:#?}", self.page());
    }

    /// What was seen when all is over. The clock was paused, and goes on: the
    /// collector is beyond a real socket, for which a clock that leaps whenever
    /// nothing is to be done does not wait.
    pub async fn end(self) -> Seen {
        self.idle().await;
        tokio::time::resume();
        self.end_by_real_time().await
    }

    /// The same for a clock that was not paused.
    pub async fn end_by_real_time(self) -> Seen {
        self.idle().await;
        let page = self.page();
        self.telemetry.shutdown(PATIENCE).await;
        let received = self.collector.received();
        Seen {
            trees: trees(&received.traces),
            page,
            received,
        }
    }
}

impl Seen {
    /// The one tree.
    pub fn tree(mut self) -> Tree {
        assert_eq!(self.trees.len(), 1, "{:#?}", self.trees);
        self.trees.remove(0)
    }
}
