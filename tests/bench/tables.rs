//! Writes the tables of the documents, so that nobody copies figures: each stands
//! between `<!-- bench:NAME -->` and `<!-- end -->`.

use std::{fs, path::Path};

use crate::{
    Result,
    cases::{self, CASES, Case, ROWS},
    machine,
    report::size,
    results::{Results, Sample},
    system::{FANFARE, OFF, ONE},
};

const DOCUMENTS: [&str; 3] = ["README.md", "tests/bench/README.md", "deploy/sizing.md"];
const END: &str = "<!-- end -->";

/// What a cell has of a case.
#[derive(Clone, Copy)]
enum Cell {
    Cpu(&'static str),
    /// CPU of the first to the second.
    Ratio(&'static str, &'static str),
    /// p50 and p99.
    Latency(&'static str),
    P50(&'static str),
    /// How many calls a second a core can do.
    CallsPerCore(&'static str),
    Memory,
    MemoryPerCall,
}

type Columns = &'static [(&'static str, Cell)];

/// The rows beside large arguments and large batches.
const COSTS: [&str; 10] = [
    ROWS[0],
    ROWS[1],
    ROWS[2],
    ROWS[3],
    "8x8-12kB",
    ROWS[4],
    "8x64-12kB",
    "1x1000-100B",
    "8x8-100B-stream",
    "8x64-100B-stream",
];
const CONNECTIONS: [&str; 3] = ["8x8-1connection", "8x8-100B", "8x8-8connections"];
const IN_FLIGHT: [&str; 3] = ["in-flight-10000", "in-flight-50000", "in-flight-100000"];

/// Writes them all.
pub(crate) fn write(results: &Results, rounds: usize) -> Result<()> {
    let table = |cases: &[&str], columns: Columns| table(results, cases, columns);
    let tables = [
        (
            "machine",
            format!("{}; medians of {rounds} rounds.\n", machine_in_a_line()),
        ),
        (
            "summary",
            table(
                &[ROWS[0], ROWS[2], ROWS[4]],
                &[
                    ("Fanfare", Cell::Cpu(FANFARE)),
                    ("Go", Cell::Cpu("go")),
                    ("p50: Fanfare", Cell::P50(FANFARE)),
                    ("Go", Cell::P50("go")),
                    ("none", Cell::P50("bare")),
                ],
            ),
        ),
        (
            "cpu",
            table(
                &COSTS,
                &[
                    ("Fanfare", Cell::Cpu(FANFARE)),
                    ("to Go", Cell::Ratio(FANFARE, "go")),
                    ("to a bare client", Cell::Ratio(FANFARE, "bare-1")),
                    ("to one worker", Cell::Ratio(FANFARE, ONE)),
                    ("one worker", Cell::Cpu(ONE)),
                    ("to Go", Cell::Ratio(ONE, "go-1")),
                    ("to featureless", Cell::Ratio(ONE, "naive-1")),
                    ("to Envoy", Cell::Ratio(ONE, "envoy-1")),
                ],
            ),
        ),
        (
            "latency",
            table(
                &COSTS,
                &[
                    ("Fanfare", Cell::Latency(FANFARE)),
                    ("one worker", Cell::Latency(ONE)),
                    ("Go", Cell::Latency("go")),
                    ("featureless", Cell::Latency("naive-1")),
                    ("Envoy", Cell::Latency("envoy-1")),
                    ("bare client", Cell::Latency("bare")),
                ],
            ),
        ),
        (
            "connections",
            table(
                &CONNECTIONS,
                &[
                    ("Fanfare", Cell::Cpu(FANFARE)),
                    ("to Go", Cell::Ratio(FANFARE, "go")),
                    ("Fanfare, p50 / p99", Cell::Latency(FANFARE)),
                    ("Go, p50 / p99", Cell::Latency("go")),
                ],
            ),
        ),
        ("telemetry", telemetry(results)),
        (
            "sizing",
            table(
                &["8x1-100B", "8x8-100B", "8x64-100B", "8x8-12kB", "8x64-12kB"],
                &[
                    ("CPU per call", Cell::Cpu(FANFARE)),
                    ("calls a second per core", Cell::CallsPerCore(FANFARE)),
                    ("CPU per call, one worker", Cell::Cpu(ONE)),
                ],
            ),
        ),
        (
            "memory",
            table(
                &IN_FLIGHT,
                &[("memory", Cell::Memory), ("per call", Cell::MemoryPerCall)],
            ),
        ),
    ];
    for document in DOCUMENTS {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(document);
        let mut text = fs::read_to_string(&path)?;
        for (name, table) in &tables {
            replace(&mut text, name, table);
        }
        fs::write(path, text)?;
    }
    Ok(())
}

/// Puts the table where the document has it, if it has it.
fn replace(text: &mut String, name: &str, table: &str) {
    let begin = format!("<!-- bench:{name} -->\n");
    let Some(start) = text.find(&begin).map(|start| start + begin.len()) else {
        return;
    };
    if let Some(length) = text[start..].find(END) {
        text.replace_range(start..start + length, table);
    }
}

fn table(results: &Results, cases: &[&str], columns: Columns) -> String {
    let titles: Vec<_> = columns.iter().map(|(title, _)| *title).collect();
    let rows = cases.iter().filter_map(|name| {
        let case = CASES.iter().find(|case| case.name == *name)?;
        let cells = columns.iter().map(|(_, cell)| cell.of(results, case));
        Some((label(case), cells.collect()))
    });
    rows_of("callers x calls, arguments", &titles, rows)
}

/// On what the figures were made.
fn machine_in_a_line() -> String {
    let machine = machine::describe();
    let text = |name: &str| machine[name].as_str().unwrap_or_default();
    let rustc = text("rustc").split(" (").next().unwrap_or_default();
    format!(
        "{}, {} cores, Linux {}, {rustc}",
        text("cpu"),
        machine["cores"],
        text("kernel")
    )
}

/// To none, as ratios.
fn telemetry(results: &Results) -> String {
    let of = |system| {
        let cells = ["8x64-100B", "8x8-100B"].map(|case| {
            let ratio = results.ratio((case, system), (case, OFF), |sample| sample.cpu_us);
            ratio.map_or(String::new(), |ratio| format!("{:.2} x", ratio.median))
        });
        cells.to_vec()
    };
    let rows = [
        ("trace context passed on", "tel-context"),
        ("metrics", "tel-metrics"),
        ("the default: both, and a log line per request", ONE),
        (
            "the default, and 1 % of requests sampled and exported",
            "tel-1%",
        ),
        (
            "the default, and all of them sampled and exported",
            "tel-all",
        ),
    ];
    rows_of(
        "",
        &["64 calls", "8 calls"],
        rows.map(|(label, system)| (label.to_owned(), of(system))),
    )
}

fn rows_of<R>(first: &str, titles: &[&str], rows: R) -> String
where
    R: IntoIterator<Item = (String, Vec<String>)>,
{
    let mut text = format!("| {first} | {} |\n|", titles.join(" | "));
    text.push_str(&"---|".repeat(titles.len() + 1));
    text.push('\n');
    for (label, cells) in rows {
        text.push_str(&format!("| {label} | {} |\n", cells.join(" | ")));
    }
    text
}

/// `8 x 64, 100 B, stream`.
fn label(case: &Case) -> String {
    if case.memory {
        return format!("{} in flight", case.in_flight());
    }
    let mut label = format!(
        "{} x {}, {}",
        case.callers,
        case.fan_out,
        size(case.argument_bytes)
    );
    if case.stream {
        label.push_str(", stream");
    }
    match case.connections {
        1 => label.push_str(", 1 connection"),
        cases::CONNECTIONS => {}
        many => label.push_str(&format!(", {many} connections")),
    }
    label
}

impl Cell {
    /// Empty if that was not measured.
    fn of(self, results: &Results, case: &Case) -> String {
        let median = |system, figure: fn(&Sample) -> Option<f64>| {
            let spread = results.spread((case.name, system), figure)?;
            Some(spread.median)
        };
        let cpu = |system| median(system, |sample| Some(sample.cpu_us));
        let p50 = |system| median(system, |sample| Some(sample.p50_ms));
        let text = match self {
            Self::Cpu(system) => cpu(system).map(|cpu| format!("{cpu:.1} µs")),
            Self::Ratio(above, below) => results
                .ratio((case.name, above), (case.name, below), |sample| {
                    sample.cpu_us
                })
                .map(|ratio| format!("{:.2} x", ratio.median)),
            Self::Latency(system) => p50(system)
                .zip(median(system, |sample| Some(sample.p99_ms)))
                .map(|(p50, p99)| format!("{p50:.2} / {p99:.2} ms")),
            Self::P50(system) => p50(system).map(|p50| format!("{p50:.2} ms")),
            Self::CallsPerCore(system) => cpu(system).map(|cpu| format!("{:.0},000", 1e3 / cpu)),
            Self::Memory => median(FANFARE, |sample| Some(sample.peak as f64))
                .map(|bytes| format!("{:.0} MB", bytes / 1e6)),
            Self::MemoryPerCall => {
                median(FANFARE, |sample| Some(sample.in_flight?.per_call as f64))
                    .map(|bytes| format!("{:.1} kB", bytes / 1e3))
            }
        };
        text.unwrap_or_default()
    }
}
