//! The commands: read arguments and configuration, start logging, bind, run until
//! a signal, drain. Exit codes: 0 done, 1 failed, 2 wrong usage, 130 a second signal
//! cut the drain short.

mod file;
mod terminal;
mod threads;

use std::{
    error::Error,
    future::pending,
    io::{self, IsTerminal as _, Write as _},
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use clap::{Parser, Subcommand};
use fanfare::{
    catalog::discovery::Discovery,
    config::{self, Config},
    core::workers::Workers,
    demo::{self, scenario, tools::DemoTools},
    logging::{self, LogFormat},
    probe,
    server::{
        self, Server,
        admin::{self, Admin, LivenessProbe, MetricsPage, ReadinessProbe},
        open_files,
    },
    telemetry::{Telemetry, settings::Settings},
    waterfall::{style::Style, view::View},
};
use tokio::{
    net::TcpListener,
    sync::oneshot,
    task::{JoinHandle, JoinSet},
};
use tokio_rustls::rustls::crypto::ring;
use tonic_health::pb::health_check_response::ServingStatus;

type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

/// How long the last telemetry may take to its collector.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(3);

/// Runs batches of tool calls in parallel over gRPC: streams each completion, answers in order.
#[derive(Debug, Parser)]
#[command(version, about)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,

    /// How log lines look; default: human on a terminal, json elsewhere
    #[arg(long, global = true, value_enum)]
    log_format: Option<LogFormat>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show it: demo tools and a server on loopback, 3 s + 1 s + 2 s of calls in about 3 s
    Demo {
        /// Keep serving, for grpcurl, until a signal comes
        #[arg(long)]
        serve: bool,
        /// Where to serve
        #[arg(
            long,
            value_name = "ADDR",
            value_parser = socket_address,
            requires = "serve",
            default_value = "127.0.0.1:50051"
        )]
        listen: SocketAddr,
    },
    /// Run the service
    Serve {
        /// The configuration, TOML; `-`: standard input
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Check a configuration and the environment, print the settings that result
    Check {
        /// The configuration, TOML; `-`: standard input
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// For another machine: skip certificates and the environment, and say so
        #[arg(long)]
        offline: bool,
    },
    /// Run only the demo tools: a tool service to try things with
    DemoTools {
        /// Where to serve
        #[arg(long, value_name = "ADDR", value_parser = socket_address)]
        listen: SocketAddr,
    },
    /// Ask a server for its health: prints the status, exits 0 only if it is SERVING
    Probe {
        /// Where it listens: host:port
        #[arg(value_name = "ADDR", default_value = "127.0.0.1:50051")]
        address: probe::Address,
        /// Which of its services to ask about, such as fanfare.v1.OrchestratorService [default: the whole server]
        #[arg(long, default_value = "", hide_default_value = true)]
        service: String,
        /// How long connecting and the answer may take together
        #[arg(long, default_value = "1s", value_parser = probe::parse_timeout)]
        timeout: Duration,
    },
}

/// Runs the command.
pub(crate) fn run(cli: Cli) -> Outcome {
    // One provider of cryptography for all, also for libraries that would pick their
    // own. It fails only if there is one already, which can't be yet.
    let _ = ring::default_provider().install_default();
    if let Command::Check { config, offline } = &cli.command {
        return file::check(config, *offline);
    }
    let runtime = match &cli.command {
        // Started every few seconds, for one RPC.
        Command::Probe { .. } => threads::one()?,
        // It has workers.
        Command::Serve { .. } => {
            threads::check()?;
            threads::one()?
        }
        _ => threads::many()?,
    };
    let outcome = runtime.block_on(async {
        match cli.command {
            Command::Serve { config } => serve(file::load(&config)?, cli.log_format).await,
            Command::DemoTools { listen } => demo_tools(listen, cli.log_format).await,
            Command::Demo {
                serve: true,
                listen,
            } => demo_serve(listen, cli.log_format).await,
            Command::Demo { serve: false, .. } => demo_show(cli.log_format).await,
            Command::Probe {
                address,
                service,
                timeout,
            } => probe(&address, &service, timeout).await,
            Command::Check { .. } => Ok(()),
        }
    });
    // Dropping it would wait for host names that are being resolved: many seconds
    // where no name server answers.
    runtime.shutdown_background();
    logging::flush();
    outcome
}

fn socket_address(text: &str) -> Result<SocketAddr, &'static str> {
    let expected = "expected an IP address and port such as 127.0.0.1:50051";
    text.parse().map_err(|_| expected)
}

async fn serve(mut config: Config, format: Option<LogFormat>) -> Outcome {
    log_to(io::stdout(), format, "info")?;
    let count = threads::workers(config.server.workers)?;
    open_files::raise_limit(&mut config, count);
    let telemetry = Telemetry::start(&Settings::from_env()?, config.tools.len());
    let listener = server::bind(config.server.listen).await?;
    let admin = match config.server.admin_listen {
        Some(address) => Some(admin::bind(address).await?),
        None => None,
    };
    let (workers, mut threads) = Workers::start(count)?;
    let discovery = Discovery::new(&config);
    let connecting = discovery.catalog();
    let server = Server::following(&config, discovery.snapshots())
        .await
        .on(workers.clone())
        .with_telemetry(telemetry.clone());
    let shutdown = signal()?;
    let admin = match admin {
        Some(admin) => {
            let readiness = Arc::new(server.readiness());
            let workers = workers.clone();
            let liveness = Arc::new(move || workers.check());
            Some(start_admin(admin, &telemetry, liveness, readiness)?)
        }
        None => None,
    };
    announce(&listener, config.tools.len(), Some(count))?;
    workers.spawn_on_each(move || connecting.connect());
    tokio::select! {
        () = server.run(listener, shutdown) => {}
        () = discovery.run() => {}
        // Half of a service is worse than none: who starts it again can tell that it ended.
        worker = threads.broken() => return Err(format!("worker {worker} has ended").into()),
    }
    threads.stop().await;
    if let Some(admin) = admin {
        admin.abort();
    }
    telemetry.shutdown(FLUSH_TIMEOUT).await;
    tracing::info!("done");
    Ok(())
}

async fn demo_tools(listen: SocketAddr, format: Option<LogFormat>) -> Outcome {
    log_to(io::stdout(), format, "info")?;
    let listener = server::bind(listen).await?;
    let server = Server::tools(&Config::default(), DemoTools::default()).await;
    let shutdown = signal()?;
    announce(&listener, demo::TOOLS.len(), None)?;
    server.run(listener, shutdown).await;
    Ok(())
}

async fn demo_serve(listen: SocketAddr, format: Option<LogFormat>) -> Outcome {
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

async fn demo_show(format: Option<LogFormat>) -> Outcome {
    log_to(io::stderr(), format.or(Some(LogFormat::Human)), "warn")?;
    let demo = Demo::start(server::bind(any_port()).await?, None).await?;
    let client = demo::connect(demo.address).await?;
    let mut view = View::new(io::stdout(), style());
    scenario::run(client, &scenario::SECONDS, &mut view).await?;
    demo.stop().await
}

async fn probe(address: &probe::Address, service: &str, timeout: Duration) -> Outcome {
    let status = probe::check(address, service, timeout)
        .await
        .map_err(|error| format!("{address}: {error}"))?;
    let name = status.as_str_name();
    writeln!(io::stdout(), "{name}")?;
    match status {
        ServingStatus::Serving => Ok(()),
        _ => Err(format!("{address}: the status is {name}").into()),
    }
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

/// How the demo is shown: live on a terminal, as plain lines in a pipe.
fn style() -> Style {
    if !io::stdout().is_terminal() {
        return Style::PIPE;
    }
    Style {
        live: true,
        color: std::env::var_os("NO_COLOR").is_none(),
        width: terminal::columns(),
    }
}

async fn bind_default_admin() -> io::Result<Admin> {
    let address = config::Server::default().admin_listen;
    admin::bind(address.unwrap_or_else(any_port)).await
}

/// Serves the operators' page until the task is aborted, or the runtime ends.
fn start_admin(
    admin: Admin,
    telemetry: &Telemetry,
    liveness: LivenessProbe,
    readiness: ReadinessProbe,
) -> io::Result<JoinHandle<()>> {
    let address = admin.local_addr()?;
    tracing::info!(%address, "admin on {address}");
    let telemetry = telemetry.clone();
    let metrics: MetricsPage =
        Arc::new(move || Some(telemetry.page()?.map_err(|error| error.to_string())));
    Ok(tokio::spawn(admin.run(metrics, liveness, readiness)))
}

fn any_port() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

fn announce(listener: &TcpListener, tools: usize, workers: Option<usize>) -> io::Result<()> {
    let address = listener.local_addr()?;
    tracing::info!(tools, workers, "listening on {address}");
    Ok(())
}

fn log_to<W>(output: W, format: Option<LogFormat>, level: &str) -> Outcome
where
    W: io::Write + io::IsTerminal + Send + 'static,
{
    let format = format.unwrap_or_else(|| logging::default_format(&output));
    logging::init(format, level, output.is_terminal(), output)
}

/// Resolves at the first SIGTERM or SIGINT from now on; a second one ends the process.
/// To be called before the process announces that it listens.
fn signal() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (first, signalled) = oneshot::channel();
    tokio::spawn(async move {
        let mut first = Some(first);
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            match first.take() {
                Some(first) => drop(first.send(())),
                None => {
                    logging::flush();
                    std::process::exit(130)
                }
            }
        }
    });
    Ok(async move {
        if signalled.await.is_err() {
            pending().await
        }
    })
}
