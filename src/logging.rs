//! Log lines: for people on a terminal, as JSON anywhere else. `RUST_LOG` says
//! which ones.
//!
//! They name the trace that they belong to (see [`correlation`]), and writing
//! them holds nobody up. Fanfare uses events of `tracing` only, no spans: the
//! spans that go to a collector are made elsewhere, and no `RUST_LOG` hides them.

pub mod correlation;
mod escape;
mod fields;
mod human;
mod json;
mod queue;
#[cfg(test)]
pub(crate) mod tests;

use std::{
    env::{self, VarError},
    io,
    sync::{Arc, OnceLock},
    time::Duration,
};

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

pub(crate) use self::escape::escaped;
use self::queue::Queue;

/// How long the end of the process waits for standard output to take the last
/// lines: more than a busy machine needs, less than anybody notices.
const LAST_LINES: Duration = Duration::from_secs(1);

static QUEUE: OnceLock<Arc<Queue>> = OnceLock::new();

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// For reading on a terminal.
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
    let filter = match env::var(EnvFilter::DEFAULT_ENV) {
        Ok(directives) if !directives.trim().is_empty() => filter(&directives)?,
        Ok(_) | Err(VarError::NotPresent) => filter(default_level)?,
        Err(VarError::NotUnicode(_)) => return Err("RUST_LOG: expected UTF-8".into()),
    };
    let queue = queue::start(output)?;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(Arc::clone(&queue));
    match format {
        LogFormat::Json => subscriber.event_format(json::Json).try_init()?,
        LogFormat::Human => subscriber.event_format(human::Human { color }).try_init()?,
    }
    // Not set before: `try_init` would have failed.
    let _ = QUEUE.set(queue);
    std::panic::set_hook(Box::new(log_panic));
    Ok(())
}

/// Waits until the lines so far are written, a second at most. To be called
/// before the process ends.
pub fn flush() {
    if let Some(queue) = QUEUE.get() {
        queue.flush(LAST_LINES);
    }
}

/// Human on a terminal, JSON elsewhere.
pub fn default_format(output: &impl io::IsTerminal) -> LogFormat {
    if output.is_terminal() {
        LogFormat::Human
    } else {
        LogFormat::Json
    }
}

fn filter(directives: &str) -> Result<EnvFilter, String> {
    let parse = |directives| EnvFilter::builder().parse(directives);
    parse(directives).map_err(|error| {
        // Which one it is, it does not say.
        let mistaken = directives.split(',').find(|one| parse(*one).is_err());
        let mistaken = mistaken.unwrap_or(directives);
        format!("RUST_LOG: {error}: {mistaken:?}")
    })
}

/// A panic costs one call or request, whose caller reads only that something
/// broke: what it was has to be in the log.
fn log_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let message = panic.payload_as_str().unwrap_or_default();
    let location = panic.location().map(ToString::to_string);
    let location = location.as_deref().unwrap_or("somewhere");
    tracing::error!(location, "panicked: {message}");
}
