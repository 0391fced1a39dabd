//! On what the figures were made: without it they can't be compared.

use std::{fs, process::Command, thread};

use serde_json::{Value, json};

/// The processor, the kernel, the programs, the commit. What is not there is empty.
pub(crate) fn describe() -> Value {
    json!({
        "cpu": cpu(),
        "cores": thread::available_parallelism().map_or(0, usize::from),
        "kernel": fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim(),
        "rustc": output("rustc", &["--version"]),
        "valgrind": output("valgrind", &["--version"]),
        "commit": output("git", &["describe", "--always", "--dirty", "--abbrev=12"]),
    })
}

fn cpu() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    model
        .unwrap_or_default()
        .trim_matches([' ', '\t', ':'])
        .to_owned()
}

/// What a program prints.
fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map_or(String::new(), |output| {
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    })
}
