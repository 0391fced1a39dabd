//! The command line of Fanfare.

mod cli;

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use clap::Parser as _;

/// A batch of calls is some thousand short-lived allocations, on which the
/// system's allocator spends a fifth of all time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match cli::run(cli::Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let exit = error.downcast_ref::<cli::Exit>();
            // Where nobody reads, `eprintln!` would panic.
            if exit.is_none_or(|exit| !exit.message.is_empty()) {
                let _ = writeln!(io::stderr(), "fanfare: {error}");
            }
            exit.map_or(ExitCode::FAILURE, |exit| exit.code.into())
        }
    }
}
