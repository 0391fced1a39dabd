//! Counts the instructions of the hot path under valgrind: unlike times, they
//! hardly depend on what else the machine does, so that a change of some per
//! cent shows. Fails when a case is dearer than the committed figure by more
//! than [`TOLERANCE`]; `cargo bench --bench instructions -- --update` commits to
//! what it counts now.
//!
//! This program runs itself under `callgrind`, twice for each case of
//! `hot_path`, with K and 2K requests: the difference has no start-up in it.

#![allow(unreachable_pub, reason = "the pipes are those of the tests")]

mod hot_path;
mod machine;
#[path = "naive/orchestrator.rs"]
mod naive;
#[path = "../it/support/pipes.rs"]
mod pipes;

use std::{
    env,
    error::Error,
    fs,
    path::Path,
    process::{Command, ExitCode, Stdio},
};

use clap::Parser;
use serde_json::{Map, Value, json};

use hot_path::{CASES, Case};

/// The committed figures, and on what they were counted.
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bench/instructions.json");
const FIGURES: &str = "instructions_per_call";
/// How much dearer a case may get.
const TOLERANCE: f64 = 0.05;
/// Above some size, glibc copies by `rep movsb`, which counts as an instruction for
/// each byte, or, if the addresses happen to lie so, by vectors: 12 kB were 13,000
/// instructions or 1,000, by chance. Never by the former, then (glibc's manual,
/// "Hardware Capability Tunables").
const TUNABLES: &str = "glibc.cpu.x86_rep_movsb_threshold=1000000000";
/// About so many calls make K requests.
const CALLS: usize = 1024;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Counts instructions per tool call, and compares them with the committed figures
#[derive(Debug, Parser)]
#[command(name = "instructions")]
struct Args {
    /// Write the figures rather than compare them
    #[arg(long)]
    update: bool,
    /// What cargo passes to every bench
    #[arg(long, hide = true)]
    bench: bool,
    /// What is run under valgrind: a case, and how many requests
    #[arg(long, hide = true, num_args = 2)]
    run: Option<Vec<String>>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let result = match args.run.as_deref() {
        Some([case, requests]) => run(case, requests).map(|()| true),
        _ => count_all(args.update),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("instructions: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(case: &str, requests: &str) -> Result<()> {
    let case = CASES.iter().find(|known| known.name == case);
    case.ok_or("no such case")?.run(requests.parse()?)
}

/// Counts every case; whether none is too dear.
fn count_all(update: bool) -> Result<bool> {
    let machine = machine::describe();
    if machine["valgrind"] == "" {
        println!("instructions: NOT RUN, there is no valgrind in PATH");
        return Ok(true);
    }
    let committed = read_committed()?;
    if !update {
        // These change the count without any change of ours.
        for part in ["cpu", "rustc", "valgrind"] {
            let (then, now) = (&committed["machine"][part], &machine[part]);
            if then != now {
                println!("note: the committed figures are of {part} {then}, this is {now}");
            }
        }
    }

    println!(
        "{:<20}{:>18}{:>12}{:>10}",
        "case", "instructions/call", "committed", "change"
    );
    let mut figures = Map::new();
    let mut too_dear = Vec::new();
    for case in CASES {
        let count = count(case)?;
        let before = committed[FIGURES][case.name].as_f64();
        let change = before.map(|before| count / before - 1.0);
        println!(
            "{:<20}{count:>18.0}{:>12}{:>10}",
            case.name,
            before.map_or_else(|| "none".to_owned(), |before| format!("{before:.0}")),
            change.map_or(String::new(), |change| format!("{:+.2} %", change * 100.0)),
        );
        if change.is_none_or(|change| change > TOLERANCE) {
            too_dear.push(case.name);
        }
        figures.insert(case.name.to_owned(), json!(count.round() as u64));
    }
    println!(
        "Caller and tools included. -bare: the caller calls the tools itself, through tonic's \
         channel;\nwhat a case has above that is the orchestrator's, less what its client saves. \
         -naive: the\norchestrator without features, on tonic's server and channel."
    );

    if update {
        let document = json!({"machine": machine, FIGURES: figures});
        fs::write(FILE, format!("{document:#}\n"))?;
        println!("updated the committed figures");
        return Ok(true);
    }
    for name in &too_dear {
        println!(
            "FAIL: {name} is over its figure by more than {:.0} %, or has none",
            TOLERANCE * 100.0
        );
    }
    Ok(too_dear.is_empty())
}

fn read_committed() -> Result<Value> {
    if !Path::new(FILE).exists() {
        return Ok(Value::Null);
    }
    Ok(serde_json::from_str(&fs::read_to_string(FILE)?)?)
}

/// Instructions per call of one more request.
fn count(case: &Case) -> Result<f64> {
    let requests = (CALLS / case.calls_of(1)).max(1);
    let once = instructions(case, requests)?;
    let twice = instructions(case, 2 * requests)?;
    Ok((twice - once) / case.calls_of(requests) as f64)
}

/// Instructions of the whole process.
fn instructions(case: &Case, requests: usize) -> Result<f64> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("callgrind.out");
    let mut option = std::ffi::OsString::from("--callgrind-out-file=");
    option.push(&file);
    let output = Command::new("valgrind")
        .arg("--tool=callgrind")
        .arg(option)
        .arg(env::current_exe()?)
        .args(["--run", case.name, &requests.to_string()])
        .env("GLIBC_TUNABLES", TUNABLES)
        .stdout(Stdio::null())
        .output()?;
    if !output.status.success() {
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(format!("{} under valgrind: {}: {log}", case.name, output.status).into());
    }
    let profile = fs::read_to_string(file)?;
    let total = profile
        .lines()
        .find_map(|line| line.strip_prefix("totals: "));
    Ok(total.ok_or("the profile has no total")?.trim().parse()?)
}
