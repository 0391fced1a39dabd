//! What must hold, as ratios and bounds that stay the same on another machine.

use crate::{
    report::show,
    results::{Results, Sample, Spread},
    system::{FANFARE, OFF},
};

/// A figure and its bound.
struct Check {
    what: String,
    at_most: f64,
    figure: Option<Spread>,
}

/// Prints a line for each; whether all that was measured holds.
pub(crate) fn print(results: &Results) -> bool {
    println!("\n{:<58}{:>10}  {:>22}", "must hold", "at most", "is");
    let mut all = true;
    for check in checks(results) {
        let verdict = match check.figure {
            None => "not measured",
            Some(figure) if figure.median <= check.at_most => "pass",
            Some(_) => {
                all = false;
                "FAIL"
            }
        };
        println!(
            "{:<58}{:>10.2}  {:>22}  {verdict}",
            check.what,
            check.at_most,
            show(check.figure)
        );
    }
    all
}

fn checks(results: &Results) -> Vec<Check> {
    let cpu = |sample: &Sample| sample.cpu_us;
    let mut checks = Vec::new();
    let mut add = |what: String, at_most: f64, figure: Option<Spread>| {
        checks.push(Check {
            what,
            at_most,
            figure,
        });
    };

    for (yardstick, bounds) in [
        ("naive", [1.10, 1.10, 1.10, 1.10]),
        ("envoy", [0.55, 0.55, 0.40, 0.55]),
    ] {
        let cases = ["8x100B", "8x12kB", "64x100B", "64x12kB"];
        for (case, at_most) in cases.into_iter().zip(bounds) {
            let figure = results.ratio((case, FANFARE), (case, yardstick), cpu);
            add(
                format!("CPU per call, {case}: fanfare/{yardstick}"),
                at_most,
                figure,
            );
        }
    }
    for (above, below, at_most) in [
        ("8x100B-stream", "8x100B", 1.15),
        ("64x100B-stream", "64x100B", 1.15),
        ("8x12kB", "8x100B", 2.2),
        ("64x12kB", "64x100B", 2.2),
        ("1000x100B", "64x100B", 1.1),
    ] {
        let figure = results.ratio((above, FANFARE), (below, FANFARE), cpu);
        add(
            format!("CPU per call, fanfare: {above}/{below}"),
            at_most,
            figure,
        );
    }

    for (system, at_most) in [(FANFARE, 1.15), ("tel-all", 2.5)] {
        let case = "64x100B";
        let figure = results.ratio((case, system), (case, OFF), cpu);
        add(
            format!("CPU per call, {case}: {system}/{OFF}"),
            at_most,
            figure,
        );
    }

    let one = "1x100B-1caller";
    let latency = |sample: &Sample| sample.p50_ms;
    let figure = results.ratio((one, FANFARE), (one, "bare"), latency);
    add(format!("p50, {one}: fanfare/bare"), 2.3, figure);

    for case in ["8x100B", "8x12kB", "64x100B", "64x12kB"] {
        let figure = results.ratio((case, FANFARE), (case, "before"), cpu);
        add(
            format!("CPU per call, {case}: fanfare/before"),
            1.15,
            figure,
        );
    }
    for (case, at_most) in [
        ("in-flight-10000", 10.0),
        ("in-flight-50000", 8.0),
        ("in-flight-100000", 8.0),
    ] {
        let many = (case, FANFARE);
        add(
            format!("calls lost, {case}"),
            0.0,
            results.spread(many, |sample| Some(sample.lost as f64)),
        );
        add(
            format!("kB per call in flight, {case}"),
            at_most,
            results.spread(many, |sample| Some(sample.in_flight?.per_call as f64 / 1e3)),
        );
    }
    let many = ("in-flight-10000", FANFARE);
    add(
        format!("memory at rest, {}: after/before", many.0),
        1.10,
        results.spread(many, |sample| {
            let memory = sample.in_flight?;
            Some(memory.after as f64 / memory.before as f64)
        }),
    );
    checks
}
