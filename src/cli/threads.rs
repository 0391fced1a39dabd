//! The runtime, with as many threads as the environment asks for. Tokio and the
//! standard library would panic if it asks for the impossible.

use std::{env, io, num::NonZero, thread::available_parallelism};

use fanfare::config::MAX_WORKERS;
use tokio::runtime::{self, Runtime};

use super::Outcome;

const WORKERS: &str = "TOKIO_WORKER_THREADS";
const STACK: &str = "RUST_MIN_STACK";
/// More than the deepest recursion of an honest program.
const MAX_STACK: u64 = 1 << 30;

/// A runtime of one thread: for commands that are over soon, and for what runs beside the
/// workers of a service.
pub(super) fn one() -> io::Result<Runtime> {
    runtime::Builder::new_current_thread().enable_all().build()
}

/// A runtime of as many threads as `TOKIO_WORKER_THREADS` says, by default one for each
/// core.
pub(super) fn many() -> Result<Runtime, Box<dyn std::error::Error + Send + Sync>> {
    let mut builder = runtime::Builder::new_multi_thread();
    if let Some(workers) = from_environment()? {
        builder.worker_threads(workers);
    }
    stack()?;
    Ok(builder.enable_all().build()?)
}

/// How many workers a service has.
pub(super) fn workers(configured: Option<usize>) -> Result<usize, String> {
    let environment = from_environment()?;
    Ok(configured.or(environment).unwrap_or_else(|| {
        // It knows the cgroup's quota and the affinity, and fails only where there are
        // neither.
        available_parallelism().map_or(1, NonZero::get)
    }))
}

/// Whether such a runtime is possible.
pub(super) fn check() -> Outcome {
    from_environment()?;
    stack()
}

fn from_environment() -> Result<Option<usize>, String> {
    let Some(text) = env::var_os(WORKERS) else {
        return Ok(None);
    };
    let count = text.to_str().and_then(|text| text.parse().ok());
    match count.filter(|count| (1..=MAX_WORKERS as usize).contains(count)) {
        Some(count) => Ok(Some(count)),
        None => Err(format!(
            "{WORKERS}: expected a number from 1 to {MAX_WORKERS}, got {text:?}"
        )),
    }
}

/// The standard library ignores what is not a number.
fn stack() -> Outcome {
    let text = env::var(STACK).unwrap_or_default();
    match text.parse::<u64>() {
        Ok(bytes) if bytes > MAX_STACK => {
            Err(format!("{STACK}: expected at most {MAX_STACK} bytes, got {text:?}").into())
        }
        _ => Ok(()),
    }
}
