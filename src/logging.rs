//! Log lines: for people on a terminal, as JSON anywhere else.

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
        LogFormat::Json => subscriber.json().flatten_event(true).try_init(),
        LogFormat::Human => subscriber.with_ansi(color).try_init(),
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
