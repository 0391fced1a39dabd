//! The demo: its tools, and a server that calls them, on loopback.

use std::{error::Error, io, net::SocketAddr, sync::Arc};

use fanfare::{
    catalog::discovery::Discovery,
    config::{self, Config},
    demo::{self, scenario, tools::DemoTools},
    logging::LogFormat,
    server::{
        self, Server,
        admin::{self, Admin, ReadinessProbe},
    },
    telemetry::{Telemetry, settings::Settings},
    waterfall::view::View,
};
use tokio::{
    net::TcpListener,
    sync::oneshot,
    task::{JoinHandle, JoinSet},
};

use super::{FLUSH_TIMEOUT, Outcome, announce, any_port, log_to, signal, start_admin, style};

/// Serves only the tools.
pub(super) async fn tools(listen: SocketAddr, format: Option<LogFormat>) -> Outcome {
    log_to(io::stdout(), format, "info")?;
    let listener = server::bind(listen).await?;
    let server = Server::tools(&Config::default(), DemoTools::default()).await;
    let shutdown = signal()?;
    announce(&listener, demo::TOOLS.len(), None)?;
    server.run(listener, shutdown).await;
    Ok(())
}

/// Serves the demo until a signal comes.
pub(super) async fn serve(listen: SocketAddr, format: Option<LogFormat>) -> Outcome {
    log_to(io::stderr(), format, "info")?;
    let listener = server::bind(listen).await?;
    let settings = Settings::from_env()?;
    let demo = Demo::start(listener, Some(&settings)).await?;
    let shutdown = signal()?;
    // It may be taken by a service that runs already.
    match bind_default_admin().await {
        Ok(admin) => {
            let readiness = Arc::clone(&demo.readiness);
            start_admin(admin, &demo.telemetry, Arc::new(|| Ok(())), readiness)?;
        }
        Err(error) => tracing::warn!("no metrics are served: {error}"),
    }
    tracing::info!("listening on {}, with the demo tools", demo.address);
    shutdown.await;
    demo.stop().await
}

/// Shows the demo's scenario.
pub(super) async fn show(format: Option<LogFormat>) -> Outcome {
    log_to(io::stderr(), format.or(Some(LogFormat::Human)), "warn")?;
    let demo = Demo::start(server::bind(any_port()).await?, None).await?;
    let client = demo::connect(demo.address).await?;
    let mut view = View::new(io::stdout(), style());
    scenario::run(client, &scenario::SECONDS, &mut view).await?;
    demo.stop().await
}

/// The demo tools and a server that calls them, on loopback.
struct Demo {
    address: SocketAddr,
    telemetry: Telemetry,
    readiness: ReadinessProbe,
    stop: Vec<oneshot::Sender<()>>,
    servers: Vec<JoinHandle<()>>,
    discovery: JoinSet<()>,
}

impl Demo {
    /// Without settings it has no telemetry.
    async fn start(
        listener: TcpListener,
        settings: Option<&Settings>,
    ) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let tools = server::bind(any_port()).await?;
        let config = Config::parse(&demo::config_toml(tools.local_addr()?))?;
        let telemetry = match settings {
            Some(settings) => Telemetry::start(settings, config.tools.len()),
            None => Telemetry::default(),
        };
        let discovery = Discovery::new(&config);
        let orchestrator = Server::following(&config, discovery.snapshots())
            .await
            .with_telemetry(telemetry.clone());
        let mut demo = Self {
            address: listener.local_addr()?,
            telemetry,
            readiness: Arc::new(orchestrator.readiness()),
            stop: Vec::new(),
            servers: Vec::new(),
            discovery: JoinSet::new(),
        };
        demo.discovery.spawn(discovery.run());
        demo.run(orchestrator, listener);
        demo.run(Server::tools(&config, DemoTools::default()).await, tools);
        Ok(demo)
    }

    fn run(&mut self, server: Server, listener: TcpListener) {
        let (stop, stopped) = oneshot::channel();
        let shutdown = async { stopped.await.unwrap_or_default() };
        self.servers
            .push(tokio::spawn(server.run(listener, shutdown)));
        self.stop.push(stop);
    }

    /// Drains the server first: it needs the tools until then.
    async fn stop(self) -> Outcome {
        for (stop, server) in self.stop.into_iter().zip(self.servers) {
            let _ = stop.send(());
            server.await?;
        }
        self.telemetry.shutdown(FLUSH_TIMEOUT).await;
        Ok(())
    }
}

async fn bind_default_admin() -> io::Result<Admin> {
    let address = config::Server::default().admin_listen;
    admin::bind(address.unwrap_or_else(any_port)).await
}
