//! What was measured, and what it comes to: a ratio is formed within each round,
//! where both sides saw the machine in the same mood, and the median of the
//! rounds is what counts.

use std::fmt;

use crate::{
    cases::CASES,
    system::{SYSTEMS, System},
};

/// One case, one system, one round.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) case: &'static str,
    pub(crate) system: &'static str,
    pub(crate) round: usize,
    pub(crate) calls_per_second: f64,
    /// Calls that were not answered, or wrongly.
    pub(crate) lost: u64,
    /// The latency of a request with all its calls.
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    /// The median latency over that of the tools, if those take their time.
    pub(crate) added_ms: Option<f64>,
    /// CPU time of what is measured, which may be several processes, per call.
    pub(crate) cpu_us: f64,
    /// The most memory that was resident, in bytes.
    pub(crate) peak: u64,
    pub(crate) in_flight: Option<MemoryInFlight>,
}

/// Resident memory in bytes, around a load that came several times.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MemoryInFlight {
    /// After a small warm-up.
    pub(crate) idle: u64,
    /// After all loads but the last, at rest.
    pub(crate) before: u64,
    /// After the last load, at rest.
    pub(crate) after: u64,
    /// The peak over `idle`, for each call in flight.
    pub(crate) per_call: u64,
}

/// Of several rounds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

/// All samples.
#[derive(Debug, Default)]
pub(crate) struct Results(Vec<Sample>);

/// A case and a system.
pub(crate) type Of<'a> = (&'a str, &'a str);

impl Results {
    pub(crate) fn push(&mut self, sample: Sample) {
        self.0.push(sample);
    }

    pub(crate) fn samples(&self) -> &[Sample] {
        &self.0
    }

    pub(crate) fn lost(&self) -> u64 {
        self.0.iter().map(|sample| sample.lost).sum()
    }

    /// What has samples, in the order of the tables.
    pub(crate) fn measured(&self) -> impl Iterator<Item = (&'static str, &'static System)> {
        CASES
            .iter()
            .flat_map(|case| SYSTEMS.iter().map(|system| (case.name, system)))
            .filter(|&(case, system)| self.has((case, system.name)))
    }

    pub(crate) fn has(&self, of: Of<'_>) -> bool {
        self.of(of).next().is_some()
    }

    /// `None` if there is no sample, or the samples have no such figure.
    pub(crate) fn spread<F>(&self, of: Of<'_>, figure: F) -> Option<Spread>
    where
        F: Fn(&Sample) -> Option<f64>,
    {
        Spread::new(self.of(of).filter_map(figure).collect())
    }

    /// `above` to `below`, round by round.
    pub(crate) fn ratio<F>(&self, above: Of<'_>, below: Of<'_>, figure: F) -> Option<Spread>
    where
        F: Fn(&Sample) -> f64,
    {
        let in_round = |round| self.of(below).find(|sample| sample.round == round);
        Spread::new(
            self.of(above)
                .filter_map(|sample| Some(figure(sample) / figure(in_round(sample.round)?)))
                .collect(),
        )
    }

    fn of(&self, (case, system): Of<'_>) -> impl Iterator<Item = &Sample> {
        self.0
            .iter()
            .filter(move |sample| sample.case == case && sample.system == system)
    }
}

impl Spread {
    fn new(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = match values.len() {
            0 => return None,
            count if count % 2 == 1 => values[middle],
            _ => f64::midpoint(values[middle - 1], values[middle]),
        };
        Some(Self {
            median,
            min: values[0],
            max: values[values.len() - 1],
        })
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            case,
            system,
            calls_per_second,
            cpu_us,
            p50_ms,
            lost,
            ..
        } = self;
        write!(
            f,
            "{case:<17}{system:<16}{calls_per_second:>9.0} calls/s  {cpu_us:>7.2} us CPU/call  \
             p50 {p50_ms:.3} ms"
        )?;
        if *lost > 0 {
            write!(f, "  {lost} LOST")?;
        }
        Ok(())
    }
}
