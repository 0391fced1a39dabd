//! The systems under measurement: each a column of the report. Fanfare with
//! another environment is another system: add a line to [`SYSTEMS`].

use std::{env, ffi::OsString, net::SocketAddr, path::Path, process::Command, thread};

use fanfare::{
    config::{Config, Service, Tool},
    core::call::ToolName,
};

use crate::{
    Result,
    cases::Case,
    envoy, go,
    load::Mode,
    process::{self, Process, THREADS},
    tool::name as tool_name,
};

/// Fanfare as a user gets it: without a setting or a variable that says how many
/// workers it has.
pub(crate) const FANFARE: &str = "fanfare";
/// With one worker, as others with `-1` in their name have one thread.
pub(crate) const ONE: &str = "fanfare-1";
const TWO: &str = "fanfare-2";
/// Two processes with one worker each: what workers cost that share nothing.
pub(crate) const TWICE: &str = "fanfare-1-twice";
/// Without any telemetry, and one worker.
pub(crate) const OFF: &str = "tel-off";
/// More calls at a time are for the first system alone.
const MOST_IN_FLIGHT: usize = 10_000;
/// Names the environment variable with the path of an older `fanfare`, which is
/// then measured as well.
const BEFORE: &str = "FANFARE_BENCH_BEFORE";
/// As a backend on two cores has. One would be cheaper: see `bare-1`.
const LOAD_THREADS: usize = 2;
/// How many threads a Go program uses.
const GO_THREADS: &str = "GOMAXPROCS";

#[derive(Debug)]
pub(crate) struct System {
    pub(crate) name: &'static str,
    kind: Kind,
    /// `None`: what it takes by itself.
    threads: Option<usize>,
    /// Each with as many threads; the load's connections go to them in turn.
    processes: usize,
    /// Which Fanfare is compared with it: one with as many threads.
    pub(crate) to: Option<&'static str>,
    /// Whether the callers send a trace context, sampled.
    pub(crate) traced: bool,
    /// Whether it measures telemetry, of which fewer cases tell all.
    telemetry: bool,
}

type Environment = &'static [(&'static str, &'static str)];

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// The service, configured by the case.
    Fanfare {
        environment: Environment,
        /// Has a collector that takes everything and keeps nothing.
        collector: bool,
    },
    /// Another build of the service, configured by the case: see [`BEFORE`].
    Before,
    /// The same contract without features: `naive.rs`.
    Naive,
    /// And in Go: `go/main.go`.
    Go,
    /// The load process calls the tools by itself.
    Bare,
    /// The load process calls the tools through Envoy.
    Envoy,
}

const fn fanfare(name: &'static str, threads: Option<usize>) -> System {
    System {
        name,
        kind: Kind::Fanfare {
            environment: &[],
            collector: false,
        },
        threads,
        processes: 1,
        to: None,
        traced: true,
        telemetry: false,
    }
}

/// Fanfare with one worker and other telemetry than by default.
const fn telemetry(name: &'static str, environment: Environment) -> System {
    System {
        kind: Kind::Fanfare {
            environment,
            collector: false,
        },
        to: Some(ONE),
        telemetry: true,
        ..fanfare(name, Some(1))
    }
}

const fn exporting(name: &'static str, environment: Environment, traced: bool) -> System {
    System {
        kind: Kind::Fanfare {
            environment,
            collector: true,
        },
        traced,
        ..telemetry(name, environment)
    }
}

/// Something else than this build of Fanfare.
const fn other(name: &'static str, kind: Kind, threads: Option<usize>, to: &'static str) -> System {
    System {
        name,
        kind,
        threads,
        processes: 1,
        to: Some(to),
        traced: true,
        telemetry: false,
    }
}

/// In the order in which a round runs them.
pub(crate) const SYSTEMS: &[System] = &[
    fanfare(FANFARE, None),
    System {
        to: Some(FANFARE),
        ..fanfare(ONE, Some(1))
    },
    System {
        to: Some(FANFARE),
        ..fanfare(TWO, Some(2))
    },
    System {
        processes: 2,
        to: Some(FANFARE),
        ..fanfare(TWICE, Some(1))
    },
    other("before", Kind::Before, None, FANFARE),
    other("before-1", Kind::Before, Some(1), ONE),
    other("naive-1", Kind::Naive, Some(1), ONE),
    other("bare", Kind::Bare, None, FANFARE),
    other("bare-1", Kind::Bare, Some(1), ONE),
    other("go", Kind::Go, None, FANFARE),
    other("go-1", Kind::Go, Some(1), ONE),
    other("envoy-1", Kind::Envoy, Some(1), ONE),
    telemetry(
        OFF,
        &[
            ("OTEL_SDK_DISABLED", "true"),
            ("OTEL_PROPAGATORS", "none"),
            ("RUST_LOG", "info,fanfare::access=off"),
        ],
    ),
    telemetry(
        "tel-context",
        &[
            ("OTEL_SDK_DISABLED", "true"),
            ("RUST_LOG", "info,fanfare::access=off"),
        ],
    ),
    telemetry(
        "tel-metrics",
        &[
            ("OTEL_PROPAGATORS", "none"),
            ("RUST_LOG", "info,fanfare::access=off"),
        ],
    ),
    exporting(
        "tel-1%",
        &[
            ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.01"),
        ],
        false,
    ),
    exporting(
        "tel-all",
        &[
            ("OTEL_TRACES_SAMPLER", "always_on"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "65536"),
        ],
        true,
    ),
];

/// The system that has two workers.
pub(crate) fn two() -> &'static str {
    match thread::available_parallelism() {
        Ok(cores) if cores.get() == 2 => FANFARE,
        _ => TWO,
    }
}

/// A system that serves.
pub(crate) struct Running {
    /// What is measured; none if that is the load process.
    pub(crate) processes: Vec<Process>,
    /// Where its telemetry goes.
    pub(crate) collector: Option<Process>,
    /// One of each process.
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) mode: Mode,
}

impl System {
    /// Whether it can do the case, and is there.
    pub(crate) fn runs(&self, case: &Case) -> bool {
        if self.name == FANFARE {
            return true;
        }
        // The yardsticks have the limits that anybody would leave as they are.
        if case.in_flight() > MOST_IN_FLIGHT
            || self.telemetry && !case.telemetry
            || self.name == TWO && two() != TWO
            || self.processes > case.connections.min(case.callers)
        {
            return false;
        }
        let is_there = match self.kind {
            Kind::Fanfare { .. } | Kind::Naive => true,
            Kind::Before => env::var_os(BEFORE).is_some(),
            Kind::Bare => !case.stream,
            Kind::Go => go::program().is_some(),
            Kind::Envoy => !case.stream && envoy::program().is_some(),
        };
        is_there && !(case.special() && self.is_one_of_two())
    }

    /// Whether it differs from another system in nothing but threads.
    fn is_one_of_two(&self) -> bool {
        match self.kind {
            Kind::Naive | Kind::Envoy => false,
            _ => self.threads.is_some(),
        }
    }

    /// The threads of the load process, the same but for a client that is measured itself.
    pub(crate) fn load_threads(&self) -> usize {
        match self.kind {
            Kind::Bare => self.threads.unwrap_or(LOAD_THREADS),
            _ => LOAD_THREADS,
        }
    }

    /// Starts it for a case, with the tools at `tools`. Its files go to `folder`.
    pub(crate) fn start(&self, case: &Case, tools: SocketAddr, folder: &Path) -> Result<Running> {
        let mut collector = None;
        let servers = match self.kind {
            Kind::Fanfare {
                environment,
                collector: has_collector,
            } => {
                let program = env!("CARGO_BIN_EXE_fanfare").into();
                let mut command = self.serve(program, folder, &config(case, tools)?.to_toml())?;
                command.envs(environment.iter().copied());
                if has_collector {
                    let (process, address) = Process::serve(&mut process::role("collector", 1)?)?;
                    collector = Some(process);
                    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{address}"));
                }
                (0..self.processes)
                    .map(|_| Process::serve(&mut command))
                    .collect::<Result<_>>()?
            }
            Kind::Before => {
                let program = env::var_os(BEFORE).unwrap_or_default();
                let config = old_config(&config(case, tools)?, tools);
                vec![Process::serve(&mut self.serve(program, folder, &config)?)?]
            }
            Kind::Naive => {
                let mut command = process::role("naive", 1)?;
                command.arg("--tools").arg(format!("http://{tools}"));
                vec![Process::serve(&mut command)?]
            }
            Kind::Go => {
                let mut command = Command::new(go::program().ok_or("go: not there")?);
                command.arg(tools.to_string());
                on_threads(&mut command, GO_THREADS, self.threads);
                vec![Process::serve(&mut command)?]
            }
            Kind::Bare => {
                return Ok(Running {
                    processes: Vec::new(),
                    collector,
                    addresses: vec![tools],
                    mode: Mode::Direct,
                });
            }
            Kind::Envoy => vec![envoy::start(1, tools)?],
        };
        let mode = match self.kind {
            Kind::Bare | Kind::Envoy => Mode::Direct,
            _ if case.stream => Mode::Stream,
            _ => Mode::Unary,
        };
        let (processes, addresses) = servers.into_iter().unzip();
        Ok(Running {
            processes,
            collector,
            addresses,
            mode,
        })
    }

    /// A Fanfare with this configuration.
    fn serve(&self, program: OsString, folder: &Path, config: &str) -> Result<Command> {
        let file = folder.join("fanfare.toml");
        std::fs::write(&file, config)?;
        let mut command = Command::new(program);
        command
            .args(["serve", "--log-format", "json", "--config"])
            .arg(file)
            .env_remove("RUST_LOG");
        on_threads(&mut command, THREADS, self.threads);
        Ok(command)
    }
}

/// Has a program use so many threads, or as many as it will.
fn on_threads(command: &mut Command, variable: &str, threads: Option<usize>) {
    match threads {
        Some(threads) => command.env(variable, threads.to_string()),
        None => command.env_remove(variable),
    };
}

/// The defaults, with the bounds that the case would break raised.
fn config(case: &Case, tools: SocketAddr) -> Result<Config> {
    let mut config = Config::default();
    config.server.listen = SocketAddr::from(([127, 0, 0, 1], 0));
    config.server.admin_listen = None;

    let limits = &mut config.limits;
    limits.max_calls_per_request = limits.max_calls_per_request.max(case.fan_out);
    limits.concurrency_limit = limits.max_calls_per_request;
    limits.max_in_flight_calls = limits.max_in_flight_calls.max(case.in_flight());
    // A call holds some 2.3 KiB, and its answer until it is read.
    let buffered = case.in_flight() * (case.argument_bytes + 4096);
    limits.max_buffered_bytes = limits.max_buffered_bytes.max(buffered);
    let request_bytes = case.fan_out * (case.argument_bytes + 1024);
    limits.max_request_bytes = limits.max_request_bytes.max(request_bytes);

    let endpoint = format!("http://{tools}").parse()?;
    config
        .services
        .insert("tools".to_owned(), Service::new(endpoint));
    for milliseconds in [0, case.tool_ms] {
        let mut tool = Tool::new("tools".to_owned());
        tool.max_concurrency = config.limits.max_in_flight_calls;
        let name = ToolName::try_new(tool_name(milliseconds))?;
        config.tools.insert(name, tool);
    }
    Ok(config)
}

/// With no key that an older build may not have.
fn old_config(config: &Config, tools: SocketAddr) -> String {
    let limits = &config.limits;
    let mut toml = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"off\"\n\
         [limits]\nmax_calls_per_request = {}\n\
         max_in_flight_calls = {}\nmax_request_bytes = {}\n\
         [services.tools]\nendpoint = \"http://{tools}\"\n",
        limits.max_calls_per_request, limits.max_in_flight_calls, limits.max_request_bytes,
    );
    for name in config.tools.keys() {
        toml.push_str(&format!("[tools.{name}]\nservice = \"tools\"\n"));
    }
    toml
}
