//! The commands: read arguments and configuration, start logging, bind, run until
//! a signal, drain. Exit codes: 0 done, 1 failed, 2 wrong usage or, of `call`, a request
//! that failed as a whole, 130 cut short by a signal.

mod call;
mod demo;
mod exit;
mod file;
mod remote;
mod terminal;
mod threads;
mod tools;

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
    config::Config,
    core::workers::Workers,
    logging::{self, LogFormat},
    probe,
    server::{
        self, Server,
        admin::{self, Admin, LivenessProbe, MetricsPage, ReadinessProbe},
        open_files,
    },
    telemetry::{Telemetry, settings::Settings},
    waterfall::style::Style,
};
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};
use tokio_rustls::rustls::crypto::ring;
use tonic_health::pb::health_check_response::ServingStatus;

pub(crate) use self::exit::Exit;

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
        /// Where it listens: host:port; the same as --addr
        #[arg(value_name = "ADDR", conflicts_with = "addr")]
        address: Option<probe::Address>,
        /// Which of its services to ask about, such as fanfare.v1.OrchestratorService [default: the whole server]
        #[arg(long, default_value = "", hide_default_value = true)]
        service: String,
        /// How long connecting and the answer may take together
        #[arg(long, default_value = "1s", value_parser = probe::parse_timeout)]
        timeout: Duration,
        #[command(flatten)]
        server: remote::Server,
    },
    /// List the tools of a server, for people or ready to paste into a request to a model
    Tools(tools::Arguments),
    /// Run tool calls and show how they go; exits 0 if all succeeded, 1 if some failed, 2 if
    /// the request did
    Call(call::Arguments),
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
        // For one RPC; a probe every few seconds.
        Command::Probe { .. } | Command::Tools(_) | Command::Call(_) => threads::one()?,
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
            Command::DemoTools { listen } => demo::tools(listen, cli.log_format).await,
            Command::Demo {
                serve: true,
                listen,
            } => demo::serve(listen, cli.log_format).await,
            Command::Demo { serve: false, .. } => demo::show(cli.log_format).await,
            Command::Probe {
                address,
                service,
                timeout,
                server,
            } => {
                let address = address.map_or_else(|| server.address(), Ok)?;
                probe(&address, &service, timeout).await
            }
            Command::Tools(arguments) => tools::run(arguments).await,
            Command::Call(arguments) => call::run(arguments).await,
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

/// How something is shown: live on a terminal, as plain lines in a pipe.
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
