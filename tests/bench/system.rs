//! The systems under measurement: each a column of the report. Fanfare with
//! another configuration is another system: add a line to [`SYSTEMS`].

use std::{net::SocketAddr, path::Path, process::Command};

use fanfare::{
    config::{Config, Service, Tool},
    core::call::ToolName,
};

use crate::{
    Result,
    cases::Case,
    envoy,
    load::Mode,
    process::{self, Process, THREADS},
    tool::name as tool_name,
};

/// The name of the system that the others are compared with: Fanfare with its
/// defaults.
pub(crate) const FANFARE: &str = "fanfare";
/// More calls at a time are for the first system alone.
const MOST_IN_FLIGHT: usize = 10_000;
/// Names the environment variable with the path of an older `fanfare`, which is
/// then measured as well.
const BEFORE: &str = "FANFARE_BENCH_BEFORE";
/// Fanfare without any telemetry.
pub(crate) const OFF: &str = "tel-off";

#[derive(Debug)]
pub(crate) struct System {
    pub(crate) name: &'static str,
    kind: Kind,
    /// Whether the callers send a trace context, sampled.
    pub(crate) traced: bool,
    /// Whether it measures telemetry, of which fewer cases tell all.
    telemetry: bool,
}

#[derive(Debug)]
enum Kind {
    /// The service, configured by the case and then by this.
    Fanfare {
        configure: fn(&mut Config),
        environment: &'static [(&'static str, &'static str)],
        /// Has a collector that takes everything and keeps nothing.
        collector: bool,
    },
    /// Another build of the service, configured by the case: see [`BEFORE`].
    Before,
    /// The same contract without features: `naive.rs`.
    Naive,
    /// The load process calls the tools by itself, on its own two threads.
    Bare,
    /// The load process calls the tools through Envoy.
    Envoy,
}

const fn fanfare(
    name: &'static str,
    environment: &'static [(&'static str, &'static str)],
) -> System {
    System {
        name,
        kind: Kind::Fanfare {
            configure: |_| {},
            environment,
            collector: false,
        },
        traced: true,
        telemetry: true,
    }
}

const fn exporting(
    name: &'static str,
    environment: &'static [(&'static str, &'static str)],
    traced: bool,
) -> System {
    System {
        kind: Kind::Fanfare {
            configure: |_| {},
            environment,
            collector: true,
        },
        traced,
        ..fanfare(name, environment)
    }
}

const fn yardstick(name: &'static str, kind: Kind) -> System {
    System {
        name,
        kind,
        traced: false,
        telemetry: false,
    }
}

/// In the order in which a round runs them.
pub(crate) const SYSTEMS: &[System] = &[
    System {
        telemetry: false,
        ..fanfare(FANFARE, &[])
    },
    fanfare(
        OFF,
        &[
            ("OTEL_SDK_DISABLED", "true"),
            ("OTEL_PROPAGATORS", "none"),
            ("RUST_LOG", "info,fanfare::access=off"),
        ],
    ),
    fanfare(
        "tel-context",
        &[
            ("OTEL_SDK_DISABLED", "true"),
            ("RUST_LOG", "info,fanfare::access=off"),
        ],
    ),
    fanfare(
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
    yardstick("before", Kind::Before),
    yardstick("naive", Kind::Naive),
    yardstick("bare", Kind::Bare),
    yardstick("envoy", Kind::Envoy),
];

/// A system that serves.
pub(crate) struct Running {
    /// What is measured; `None` if that is the load process.
    pub(crate) process: Option<Process>,
    /// Where its telemetry goes.
    pub(crate) collector: Option<Process>,
    pub(crate) address: SocketAddr,
    pub(crate) mode: Mode,
}

impl System {
    /// Whether it can do the case, and is there.
    pub(crate) fn runs(&self, case: &Case) -> bool {
        if self.telemetry && !case.telemetry {
            return false;
        }
        match self.kind {
            Kind::Fanfare { .. } => true,
            // The yardsticks have the limits that anybody would leave as they are.
            _ if case.in_flight() > MOST_IN_FLIGHT => false,
            Kind::Naive => true,
            Kind::Before => std::env::var_os(BEFORE).is_some(),
            Kind::Bare => !case.stream,
            Kind::Envoy => !case.stream && envoy::program().is_some(),
        }
    }

    /// Starts it for a case, with the tools at `tools`. Its files go to `folder`.
    pub(crate) fn start(&self, case: &Case, tools: SocketAddr, folder: &Path) -> Result<Running> {
        let mut collector = None;
        let (process, address) = match &self.kind {
            Kind::Fanfare {
                configure,
                environment,
                collector: has_collector,
            } => {
                let mut config = config(case, tools)?;
                configure(&mut config);
                let file = folder.join("fanfare.toml");
                std::fs::write(&file, config.to_toml())?;
                let mut command = Command::new(env!("CARGO_BIN_EXE_fanfare"));
                command
                    .args(["serve", "--log-format", "json", "--config"])
                    .arg(file)
                    .env_remove("RUST_LOG")
                    .env(THREADS, case.threads.to_string())
                    .envs(environment.iter().copied());
                if *has_collector {
                    let (process, address) = Process::serve(&mut process::role("collector", 1)?)?;
                    collector = Some(process);
                    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{address}"));
                }
                Process::serve(&mut command)?
            }
            Kind::Before => {
                let file = folder.join("before.toml");
                std::fs::write(&file, old_config(&config(case, tools)?, tools))?;
                let mut command = Command::new(std::env::var_os(BEFORE).unwrap_or_default());
                command
                    .args(["serve", "--log-format", "json", "--config"])
                    .arg(file)
                    .env_remove("RUST_LOG")
                    .env(THREADS, case.threads.to_string());
                Process::serve(&mut command)?
            }
            Kind::Naive => {
                let mut command = process::role("naive", case.threads)?;
                command.arg("--tools").arg(format!("http://{tools}"));
                Process::serve(&mut command)?
            }
            Kind::Bare => {
                return Ok(Running {
                    process: None,
                    collector,
                    address: tools,
                    mode: Mode::Direct,
                });
            }
            Kind::Envoy => envoy::start(case.threads, tools)?,
        };
        let mode = match self.kind {
            Kind::Bare | Kind::Envoy => Mode::Direct,
            Kind::Fanfare { .. } | Kind::Before | Kind::Naive if case.stream => Mode::Stream,
            Kind::Fanfare { .. } | Kind::Before | Kind::Naive => Mode::Unary,
        };
        Ok(Running {
            process: Some(process),
            collector,
            address,
            mode,
        })
    }
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
        "[server]\nlisten = \"127.0.0.1:0\"\n[limits]\nmax_calls_per_request = {}\n\
         max_in_flight_calls = {}\nmax_request_bytes = {}\n\
         [services.tools]\nendpoint = \"http://{tools}\"\n",
        limits.max_calls_per_request, limits.max_in_flight_calls, limits.max_request_bytes,
    );
    for name in config.tools.keys() {
        toml.push_str(&format!("[tools.{name}]\nservice = \"tools\"\n"));
    }
    toml
}
