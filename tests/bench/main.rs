//! Measures the whole service: the real binary, a tool service and a load
//! generator, each a process of its own on loopback, beside yardsticks that do
//! the same calls with less or other code. `cargo bench --bench service -- --help`
//! tells the options.
//!
//! This file parses the arguments and leads the rounds. The processes that are
//! not the service are this same program in a role, started by `process`.

mod cases;
mod checks;
mod collector;
mod envoy;
mod go;
mod load;
mod machine;
mod measure;
mod naive;
mod process;
mod report;
mod results;
mod system;
mod tables;
mod tool;

use std::{error::Error, path::PathBuf, process::ExitCode};

use clap::Parser;
use tokio::runtime::Builder;

use cases::{CASES, Case};
use measure::Pace;
use results::Results;
use system::{SYSTEMS, System};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Measures Fanfare beside a plain client, a featureless orchestrator, Go and Envoy
#[derive(Debug, Parser)]
#[command(name = "service")]
struct Args {
    /// About two minutes: fewer cases, shorter, two rounds
    #[arg(long)]
    quick: bool,
    /// Only the cases whose name contains one of these
    #[arg(long, value_name = "SUBSTRING,...", value_delimiter = ',')]
    case: Vec<String>,
    /// Only these systems
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    systems: Vec<String>,
    /// How often each case is measured with each system; default 5
    #[arg(long)]
    rounds: Option<usize>,
    /// Write all results and what machine this is
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the tables of the documents; what is not measured is left empty
    #[arg(long)]
    tables: bool,
    /// Exit with 1 if something that must hold does not
    #[arg(long)]
    check: bool,
    /// What cargo passes to every bench
    #[arg(long, hide = true)]
    bench: bool,
}

/// What this program is when it is started by itself.
#[derive(Debug, Parser)]
#[command(name = "role")]
enum Role {
    /// Runs the tools
    Tool,
    /// Orchestrates without features
    Naive(naive::Naive),
    /// Takes telemetry and forgets it
    Collector,
    /// Calls, and tells how long it took
    Load(load::Load),
}

fn main() -> ExitCode {
    let mut arguments = std::env::args();
    let program = arguments.next();
    let result = if std::env::args().nth(1).as_deref() == Some(process::ROLE) {
        play(Role::parse_from(arguments)).map(|()| true)
    } else {
        bench(&Args::parse_from(program.into_iter().chain(arguments)))
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a role, on as many threads as the environment says. One thread is cheaper
/// without the scheduler of several: for single calls by a quarter.
fn play(role: Role) -> Result<()> {
    let one = std::env::var(process::THREADS).is_ok_and(|threads| threads == "1");
    let mut builder = if one {
        Builder::new_current_thread()
    } else {
        Builder::new_multi_thread()
    };
    builder.enable_all().build()?.block_on(async {
        match role {
            Role::Tool => tool::run().await,
            Role::Naive(naive) => naive.run().await,
            Role::Collector => collector::run().await,
            Role::Load(load) => load.run().await,
        }
    })
}

/// Measures and reports; whether everything is as it must be.
fn bench(args: &Args) -> Result<bool> {
    let pace = if args.quick { Pace::QUICK } else { Pace::FULL };
    let rounds = args.rounds.unwrap_or(pace.rounds);
    let chosen = |case: &&Case| match args.case.as_slice() {
        [] => case.quick || !args.quick,
        parts => parts.iter().any(|part| case.name.contains(part.as_str())),
    };
    let cases: Vec<&Case> = CASES.iter().filter(chosen).collect();
    if cases.is_empty() {
        return Err(format!("no case has any of {:?} in its name", args.case).into());
    }
    let systems: Vec<&System> = SYSTEMS
        .iter()
        .filter(|system| {
            args.systems.is_empty() || args.systems.iter().any(|name| name == system.name)
        })
        .collect();
    if systems.len() < args.systems.len() {
        let names: Vec<_> = SYSTEMS.iter().map(|system| system.name).collect();
        return Err(format!("not all systems are there; there are {}", names.join(", ")).into());
    }
    if envoy::program().is_none() {
        println!("envoy: not found (set {} or PATH)", envoy::VARIABLE);
    }

    let mut results = Results::default();
    for round in 1..=rounds {
        let is_due = |case: &&&Case| !case.memory || round <= pace.memory_rounds;
        for case in cases.iter().filter(is_due) {
            for system in systems.iter().filter(|system| system.runs(case)) {
                let sample = measure_one(case, system, round, &pace)?;
                eprintln!("round {round}/{rounds}  {sample}");
                results.push(sample);
            }
        }
    }

    report::print(&results);
    let checked = checks::print(&results);
    if let Some(path) = &args.json {
        std::fs::write(path, report::json(&results))?;
    }
    if args.tables {
        tables::write(&results, rounds)?;
    }
    let lost = results.lost();
    if lost > 0 {
        println!("\nFAILED: {lost} calls were lost or answered wrongly");
    }
    Ok(lost == 0 && (checked || !args.check))
}

fn measure_one(case: &Case, system: &System, round: usize, pace: &Pace) -> Result<results::Sample> {
    measure::measure(case, system, round, pace)
        .map_err(|error| format!("{} with {}: {error}", case.name, system.name).into())
}
