//! Processes of the bench: started, waited for line by line, asked for their CPU
//! time and memory, and killed when dropped.

use std::{
    env, fs,
    io::{BufRead as _, BufReader, Write as _},
    iter::Sum,
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::Duration,
};

use nix::{time::ClockId, unistd::Pid};

use crate::Result;

/// The first argument of this program when it plays a role.
pub(crate) const ROLE: &str = "role";
/// How many worker threads tokio's multi-threaded runtime starts.
pub(crate) const THREADS: &str = "TOKIO_WORKER_THREADS";
/// What a server says when it serves; its address follows.
const LISTENING: &str = "listening on ";
/// No process is waited for any longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running process.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    lines: Receiver<String>,
}

/// The memory of a process, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// Resident now.
    pub(crate) resident: u64,
    /// The most that ever was, or was since [`Process::forget_peak`].
    pub(crate) peak: u64,
}

/// Of several processes.
impl Sum for Memory {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        let none = Self {
            resident: 0,
            peak: 0,
        };
        all.fold(none, |sum, memory| Self {
            resident: sum.resident + memory.resident,
            peak: sum.peak + memory.peak,
        })
    }
}

/// This program in a role, on so many threads.
pub(crate) fn role(name: &str, threads: usize) -> Result<Command> {
    let mut command = Command::new(env::current_exe()?);
    command.args([ROLE, name]).env(THREADS, threads.to_string());
    Ok(command)
}

impl Process {
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        let program = command.get_program().to_string_lossy().into_owned();
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("can't start {program}: {error}"))?;
        let output = child.stdout.take().ok_or("no standard output")?;
        let (sender, lines) = channel();
        // Reads to the end even if nobody listens: a full pipe would stop the
        // process.
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(|line| line.ok()) {
                let _ = sender.send(line);
            }
        });
        Ok(Self { child, lines })
    }

    /// Starts a server; returns its address as well.
    pub(crate) fn serve(command: &mut Command) -> Result<(Self, SocketAddr)> {
        let process = Self::start(command)?;
        let line = process.line_with(LISTENING)?;
        let (_, rest) = line.split_once(LISTENING).unwrap_or_default();
        let end = rest.find(['"', ' ', ',']).unwrap_or(rest.len());
        Ok((process, rest[..end].parse()?))
    }

    /// Waits for a line that contains `part`.
    pub(crate) fn line_with(&self, part: &str) -> Result<String> {
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) if line.contains(part) => return Ok(line),
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => {
                    return Err(format!("no {part:?} within {PATIENCE:?}").into());
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(format!("the process ended before it said {part:?}").into());
                }
            }
        }
    }

    pub(crate) fn say(&mut self, line: &str) -> Result<()> {
        let input = self.child.stdin.as_mut().ok_or("no standard input")?;
        Ok(writeln!(input, "{line}")?)
    }

    /// The CPU time of all its threads since it started, to the nanosecond.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let pid = Pid::from_raw(i32::try_from(self.child.id())?);
        Ok(ClockId::pid_cpu_clock_id(pid)?.now()?.into())
    }

    pub(crate) fn memory(&self) -> Result<Memory> {
        let status = fs::read_to_string(self.proc("status"))?;
        let field = |name: &str| -> Result<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let line = line.ok_or_else(|| format!("no {name} in its status"))?;
            let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
            Ok(kib << 10)
        };
        Ok(Memory {
            resident: field("VmRSS:")?,
            peak: field("VmHWM:")?,
        })
    }

    /// From here on the peak is what is reached after now.
    pub(crate) fn forget_peak(&self) -> Result<()> {
        // proc(5): 5 resets the peak.
        Ok(fs::write(self.proc("clear_refs"), "5")?)
    }

    fn proc(&self, file: &str) -> String {
        format!("/proc/{}/{file}", self.child.id())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
