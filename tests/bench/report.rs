//! The table at the end, and the file for machines.

use serde_json::{Value, json};

use crate::{
    cases::CASES,
    machine,
    results::{MemoryInFlight, Results, Sample, Spread},
};

const MB: f64 = 1e6;
const KB: f64 = 1e3;

/// Prints a line for each case and system, at most 120 columns wide.
pub(crate) fn print(results: &Results) {
    println!(
        "\n{:<17}{:<16}{:>22}{:>19}{:>8}{:>8}{:>8}{:>7}{:>6}{:>8}",
        "case",
        "system",
        "CPU us/call",
        "fanfare's to it",
        "calls/s",
        "p50 ms",
        "p99 ms",
        "+ms",
        "MB",
        "kB/call"
    );
    let mut last_case = "";
    for (case, system) in results.measured() {
        let of = (case, system.name);
        let median = |figure: fn(&Sample) -> Option<f64>, digits: usize| {
            let spread = results.spread(of, figure);
            spread.map_or(String::new(), |spread| {
                format!("{:.digits$}", spread.median)
            })
        };
        let cpu = results.spread(of, |sample| Some(sample.cpu_us));
        let ratio = system
            .to
            .and_then(|fanfare| results.ratio((case, fanfare), of, |sample| sample.cpu_us));
        println!(
            "{:<17}{:<16}{:>22}{:>19}{:>8}{:>8}{:>8}{:>7}{:>6}{:>8}",
            if case == last_case { "" } else { case },
            system.name,
            show(cpu),
            show(ratio),
            median(|sample| Some(sample.calls_per_second), 0),
            median(|sample| Some(sample.p50_ms), 3),
            median(|sample| Some(sample.p99_ms), 2),
            median(|sample| sample.added_ms, 2),
            median(|sample| Some(sample.peak as f64 / MB), 0),
            median(|sample| Some(sample.in_flight?.per_call as f64 / KB), 1),
        );
        last_case = case;
    }
    println!(
        "\nMedian of the rounds (min..max). A request has all the calls of its fan-out; p50 and p99 \
         are its latency,\n+ms what p50 adds to the tools' own time; MB is the peak of what is \
         measured, kB/call what each call in\nflight adds to it. A name has the number of \
         threads; without a number it is what the system takes\nby itself; -twice: in each of two \
         processes. Fanfare's CPU is that with as many threads."
    );
}

/// `1.23 (1.20..1.31)`, or nothing.
pub(crate) fn show(spread: Option<Spread>) -> String {
    spread.map_or(String::new(), |Spread { median, min, max }| {
        format!("{median:.2} ({min:.2}..{max:.2})")
    })
}

/// `100 B`, `12 kB`.
pub(crate) fn size(bytes: usize) -> String {
    match bytes {
        0..1000 => format!("{bytes} B"),
        _ => format!("{} kB", bytes / 1000),
    }
}

/// Every sample, with the case and the machine.
pub(crate) fn json(results: &Results) -> String {
    let cases = CASES.iter().map(|case| {
        json!({
            "name": case.name,
            "fan_out": case.fan_out,
            "argument_bytes": case.argument_bytes,
            "stream": case.stream,
            "callers": case.callers,
            "connections": case.connections,
            "tool_ms": case.tool_ms,
        })
    });
    let document = json!({
        "machine": machine::describe(),
        "cases": cases.collect::<Vec<Value>>(),
        "samples": results.samples().iter().map(sample).collect::<Vec<Value>>(),
    });
    format!("{document:#}\n")
}

fn sample(sample: &Sample) -> Value {
    let in_flight = sample.in_flight.map(|memory| {
        let MemoryInFlight {
            idle,
            before,
            after,
            per_call,
        } = memory;
        json!({
            "idle_bytes": idle,
            "before_bytes": before,
            "after_bytes": after,
            "bytes_per_call": per_call,
        })
    });
    json!({
        "case": sample.case,
        "system": sample.system,
        "round": sample.round,
        "calls_per_second": sample.calls_per_second,
        "lost": sample.lost,
        "p50_ms": sample.p50_ms,
        "p99_ms": sample.p99_ms,
        "added_ms": sample.added_ms,
        "cpu_us_per_call": sample.cpu_us,
        "peak_bytes": sample.peak,
        "in_flight": in_flight,
    })
}
