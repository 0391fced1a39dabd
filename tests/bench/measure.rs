//! One measurement: starts fresh processes for one case and one system, warms
//! them up, and reads the clocks around the measured part.

use std::{slice, thread, time::Duration};

use serde_json::Value;

use crate::{
    Result,
    cases::Case,
    load::{CALLS, Mode, READY},
    process::{self, Memory, Process},
    results::{MemoryInFlight, Sample},
    system::{Running, System},
};

const TOOL_THREADS: usize = 2;
/// Loads before the one whose memory is compared with theirs: an allocator finds
/// its size within three.
const LOADS_BEFORE: usize = 3;
/// How long a process has to give memory back.
const REST: Duration = Duration::from_secs(2);

/// How long things take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub(crate) rounds: usize,
    /// The most rounds of the cases about memory, which are long and steady.
    pub(crate) memory_rounds: usize,
    warm_up: Duration,
    measure: Duration,
}

impl Pace {
    pub(crate) const FULL: Self = Self {
        rounds: 5,
        memory_rounds: 1,
        warm_up: Duration::from_millis(300),
        measure: Duration::from_millis(900),
    };
    pub(crate) const QUICK: Self = Self {
        rounds: 2,
        memory_rounds: 1,
        warm_up: Duration::from_millis(200),
        measure: Duration::from_millis(500),
    };
}

/// A load, and what it is on; all ends when this is dropped.
struct Rig {
    load: Process,
    /// None if the load calls the tools by itself.
    servers: Vec<Process>,
    _tools: Process,
    _collector: Option<Process>,
    lost: u64,
}

pub(crate) fn measure(case: &Case, system: &System, round: usize, pace: &Pace) -> Result<Sample> {
    let mut rig = Rig::start(case, system, pace)?;
    let idle = rig.memory()?.resident;
    if case.memory {
        for process in rig.measured() {
            process.forget_peak()?;
        }
        for _ in 0..LOADS_BEFORE {
            rig.run()?;
        }
        thread::sleep(REST);
    }
    let before = rig.memory()?.resident;

    let cpu = rig.cpu()?;
    let result = rig.run()?;
    let cpu = rig.cpu()? - cpu;

    let peak = rig.memory()?.peak;
    let mut in_flight = None;
    if case.memory {
        thread::sleep(REST);
        in_flight = Some(MemoryInFlight {
            idle,
            before,
            after: rig.memory()?.resident,
            per_call: peak.saturating_sub(idle) / case.in_flight() as u64,
        });
    }
    let number = |name: &str| result[name].as_f64().unwrap_or(f64::NAN);
    let calls = number(CALLS);
    Ok(Sample {
        case: case.name,
        system: system.name,
        round,
        calls_per_second: calls / number("seconds"),
        lost: rig.lost,
        p50_ms: number("p50_ms"),
        p99_ms: number("p99_ms"),
        added_ms: (case.tool_ms > 0).then(|| number("p50_ms") - case.tool_ms as f64),
        cpu_us: cpu.as_secs_f64() * 1e6 / calls,
        peak,
        in_flight,
    })
}

impl Rig {
    /// Starts everything and warms it up.
    fn start(case: &Case, system: &System, pace: &Pace) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let (tools, address) = Process::serve(&mut process::role("tool", TOOL_THREADS)?)?;
        let running = system.start(case, address, folder.path())?;
        let load = start_load(case, &running, system, pace)?;
        load.line_with(READY)?;
        Ok(Self {
            load,
            servers: running.processes,
            _tools: tools,
            _collector: running.collector,
            lost: 0,
        })
    }

    fn measured(&self) -> &[Process] {
        match self.servers.as_slice() {
            [] => slice::from_ref(&self.load),
            servers => servers,
        }
    }

    fn cpu(&self) -> Result<Duration> {
        self.measured().iter().map(Process::cpu).sum()
    }

    fn memory(&self) -> Result<Memory> {
        self.measured().iter().map(Process::memory).sum()
    }

    /// Runs the load once.
    fn run(&mut self) -> Result<Value> {
        self.load.say("go")?;
        let result: Value = serde_json::from_str(&self.load.line_with(CALLS)?)?;
        self.lost += result["lost"].as_u64().ok_or("a result without losses")?;
        Ok(result)
    }
}

fn start_load(case: &Case, running: &Running, system: &System, pace: &Pace) -> Result<Process> {
    let mode = match running.mode {
        Mode::Unary => "unary",
        Mode::Stream => "stream",
        Mode::Direct => "direct",
    };
    let mut command = process::role("load", system.load_threads())?;
    command.args(["--mode", mode]);
    for address in &running.addresses {
        command.args(["--target", &format!("http://{address}")]);
    }
    for (name, value) in [
        ("--fan-out", case.fan_out as u64),
        ("--argument-bytes", case.argument_bytes as u64),
        ("--callers", case.callers as u64),
        ("--connections", case.connections as u64),
        ("--tool-ms", case.tool_ms),
        ("--warm-up-ms", u64::try_from(pace.warm_up.as_millis())?),
        ("--measure-ms", u64::try_from(pace.measure.as_millis())?),
    ] {
        command.args([name, &value.to_string()]);
    }
    if system.traced {
        command.arg("--traced");
    }
    Process::start(&mut command)
}
