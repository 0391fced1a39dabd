//! The configuration file of a command, or standard input; and `fanfare check`, which
//! finds what would keep `fanfare serve` from starting.

use std::{
    io::{self, Write as _},
    path::Path,
};

use fanfare::{
    catalog, config::Config, logging, mistakes::Mistakes, telemetry::settings::Settings,
};

use super::{Outcome, threads};

/// In place of a file: standard input.
const STDIN: &str = "-";
/// What a start reads beside the file.
const ENVIRONMENT: &str =
    "the environment (OTEL_*, RUST_LOG, RUST_MIN_STACK, TOKIO_WORKER_THREADS)";

/// Reads the configuration; its mistakes are reported with the name of the file.
pub(super) fn load(path: &Path) -> Result<Config, String> {
    read(path, Config::parse)
}

/// Prints the settings that result, or fails with every mistake. `offline`: without
/// what is only on the machine that the configuration is for.
pub(super) fn check(path: &Path, offline: bool) -> Outcome {
    if offline {
        let (config, unread) = read(path, Config::parse_offline)?;
        for skipped in unread.iter().map(String::as_str).chain([ENVIRONMENT]) {
            // `eprintln!` would panic where nobody reads.
            let _ = writeln!(io::stderr(), "fanfare: not checked offline: {skipped}");
        }
        return print(&config);
    }
    let config = load(path);
    let environment = environment();
    let problems: Vec<_> = [config.as_ref().err(), environment.as_ref().err()]
        .into_iter()
        .flatten()
        .cloned()
        .collect();
    match config {
        Ok(config) if problems.is_empty() => {
            tools(&config)?;
            print(&config)
        }
        _ => Err(problems.join("\n").into()),
    }
}

/// Whether the tools that the file names are there, as far as files tell; says what is not.
fn tools(config: &Config) -> Outcome {
    let findings = catalog::check::check(config);
    for left_out in &findings.left_out {
        let _ = writeln!(io::stderr(), "fanfare: left out: {left_out}");
    }
    for unasked in &findings.unasked {
        let _ = writeln!(
            io::stderr(),
            "fanfare: not checked without a connection: {unasked}"
        );
    }
    match findings.mistakes.as_slice() {
        [] => Ok(()),
        mistakes => Err(mistakes.join("\n").into()),
    }
}

fn print(config: &Config) -> Outcome {
    // `print!` would panic in `fanfare check … | head`.
    Ok(io::stdout().write_all(config.to_toml().as_bytes())?)
}

/// Everything in the environment that would keep the service from starting.
fn environment() -> Result<(), String> {
    let settings = Settings::from_env();
    if let Ok(settings) = &settings {
        for ignored in &settings.ignored {
            let _ = writeln!(io::stderr(), "fanfare: ignored: {ignored}");
        }
    }
    let problems: Vec<_> = [
        threads::check().err().map(|error| error.to_string()),
        logging::check().err(),
        settings.err().map(|error| error.to_string()),
    ]
    .into_iter()
    .flatten()
    .collect();
    if problems.is_empty() {
        return Ok(());
    }
    Err(problems.join("\n"))
}

fn read<T>(path: &Path, parse: impl Fn(&str) -> Result<T, Mistakes>) -> Result<T, String> {
    let (name, text) = if path == Path::new(STDIN) {
        ("standard input".to_owned(), io::read_to_string(io::stdin()))
    } else {
        (path.display().to_string(), std::fs::read_to_string(path))
    };
    let text = text.map_err(|error| format!("can't read {name}: {error}"))?;
    parse(&text).map_err(|error| {
        let count = match error.mistakes().len() {
            1 => "a mistake".to_owned(),
            count => format!("{count} mistakes"),
        };
        format!("{count} in {name}:\n{error}")
    })
}
