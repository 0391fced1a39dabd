//! Log lines: for people on a terminal, as JSON anywhere else.

pub mod correlation;

use std::io;

use clap::ValueEnum;
use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// For reading on a terminal.
    Human,
}

/// Starts logging to `writer`. The environment variable `RUST_LOG` overrides
/// `default_level`; a directive in it that can't be read is left out.
///
/// # Errors
/// If the process logs already.
pub fn init<W>(
    format: LogFormat,
    default_level: &str,
    color: bool,
    writer: W,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = match std::env::var(EnvFilter::DEFAULT_ENV) {
        Ok(directives) if !directives.is_empty() => EnvFilter::new(directives),
        _ => EnvFilter::new(default_level),
    };
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer);
    match format {
        LogFormat::Json => subscriber.json().flatten_event(true).try_init()?,
        LogFormat::Human => subscriber.with_ansi(color).try_init()?,
    }
    std::panic::set_hook(Box::new(log_panic));
    Ok(())
}

/// A panic costs one call or request, whose caller reads only that something
/// broke: what it was has to be in the log.
fn log_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let message = panic.payload_as_str().unwrap_or_default();
    let location = panic.location().map(ToString::to_string);
    let location = location.as_deref().unwrap_or("somewhere");
    tracing::error!(location, "panicked: {message}");
}

/// Human on a terminal, JSON elsewhere.
pub fn default_format(output: &impl io::IsTerminal) -> LogFormat {
    if output.is_terminal() {
        LogFormat::Human
    } else {
        LogFormat::Json
    }
}
