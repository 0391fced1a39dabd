//! The command line of Fanfare.

mod cli;

use std::process::ExitCode;

use clap::Parser as _;

/// A batch of calls is some thousand short-lived allocations, on which the
/// system's allocator spends a fifth of all time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match cli::run(cli::Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fanfare: {error}");
            ExitCode::FAILURE
        }
    }
}
