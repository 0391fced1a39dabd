//! Log lines: as text on a terminal, as JSON anywhere else. `RUST_LOG` chooses which.
//!
//! A line names the trace and the span of the current OpenTelemetry context, sampled or not;
//! a request that is not sampled has no `tracing` span to take them from. Writing a line
//! never blocks (`queue`), and peers can't flood the log (`gate`).
//!
//! The subscriber, the filter and the layer are those of `tracing-subscriber`. Its formats
//! are not used: they let through characters that steer a terminal or, as text, begin a new
//! line, can't leave a field out, have no ids of a trace, and write a number with all its
//! digits and an exponent. So the `FormatEvent` is ours.

mod escape;
mod fields;
mod filter;
mod format;
mod gate;
mod human;
mod json;
mod queue;
mod refused;
#[cfg(test)]
pub(crate) mod tests;
mod throttle;

use std::{
    io::{self, Write as _},
    sync::{Arc, OnceLock},
    time::Duration,
};

use clap::ValueEnum;
use tracing::Level;
use tracing_subscriber::{layer::SubscriberExt as _, util::SubscriberInitExt as _};

pub use self::escape::escaped;
use self::{
    fields::Fields, format::Format, gate::Gate, human::Human, queue::Queue, refused::Select,
    throttle::Throttle,
};

/// How long the process waits at its end for standard output to take the last lines: enough
/// for a busy machine, too short to be noticed.
const LAST_LINES: Duration = Duration::from_secs(1);

static GATE: OnceLock<Gate> = OnceLock::new();

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// Text for a terminal.
    Human,
}

/// Starts logging to `output`, in a thread of its own. The environment variable
/// `RUST_LOG` overrides `default_level`.
///
/// # Errors
/// If `RUST_LOG` can't be read, with the directive; if the process logs already.
pub fn init(
    format: LogFormat,
    default_level: &str,
    color: bool,
    output: impl io::Write + Send + 'static,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let wanted = filter::from_env(default_level)?;
    let queue = Arc::new(Queue::default());
    let format = match format {
        LogFormat::Json => Format::Json,
        LogFormat::Human => Format::Human(Human { color }),
    };
    let gate = Gate {
        throttle: Arc::new(Throttle::default()),
        all_of_ours: wanted.all_of_ours,
        sink: Sink { queue, format },
    };
    let reporting = gate.clone();
    let queue = &gate.sink.queue;
    queue.start(output, move || reporting.report())?;
    let lines = tracing_subscriber::fmt::layer()
        .event_format(format)
        .with_writer(Arc::clone(&gate.sink.queue));
    tracing_subscriber::registry()
        .with(lines)
        .with(gate.clone())
        .with(Select::new(wanted.filter, gate.clone()))
        .try_init()?;
    // Not set before: subscribing would have failed.
    let _ = GATE.set(gate);
    std::panic::set_hook(Box::new(log_panic));
    Ok(())
}

/// Where lines go, and in which format.
#[derive(Clone, Debug)]
struct Sink {
    queue: Arc<Queue>,
    format: Format,
}

impl Sink {
    /// Writes a line that does not come from an event of `tracing`.
    fn line(&self, level: Level, target: &str, fields: &Fields) {
        let mut line = String::new();
        if self.format.line(&mut line, level, target, fields).is_ok() {
            // It does not fail: what the queue can't take it counts.
            let _ = (&*self.queue).write_all(line.as_bytes());
        }
    }
}

/// Waits until all lines so far are written, for a second at most. Call it before the
/// process ends.
pub fn flush() {
    if let Some(gate) = GATE.get() {
        gate.report();
        gate.sink.queue.flush(LAST_LINES);
    }
}

/// How many lines this process has dropped, by reason.
pub(crate) fn dropped_lines() -> [(&'static str, u64); 2] {
    [
        ("throttled", gate::left_out()),
        ("queue_full", queue::lost()),
    ]
}

/// Whether logging can be started in this environment.
///
/// # Errors
/// If `RUST_LOG` can't be read, with the directive.
pub fn check() -> Result<(), String> {
    filter::from_env("info").map(drop)
}

/// Human on a terminal, JSON elsewhere.
pub fn default_format(output: &impl io::IsTerminal) -> LogFormat {
    if output.is_terminal() {
        LogFormat::Human
    } else {
        LogFormat::Json
    }
}

/// A panic fails one call or request, and its caller learns only that there was an internal
/// error: the log says what it was.
fn log_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let message = panic.payload_as_str().unwrap_or_default();
    let location = panic.location().map(ToString::to_string);
    let location = location.as_deref().unwrap_or("somewhere");
    tracing::error!(location, "panicked: {message}");
}
