//! How wide the terminal is. The standard library does not tell; `stty` does, which is
//! wherever a terminal is.

use std::{
    env,
    fs::File,
    process::{Command, Stdio},
};

/// Where nothing says anything else.
const DEFAULT: usize = 80;

/// Its columns: `COLUMNS`, if that is set as for all programs, or what it says itself.
pub(super) fn columns() -> usize {
    let set = env::var("COLUMNS").ok().and_then(|text| text.parse().ok());
    set.or_else(measured)
        .filter(|&columns| columns > 0)
        .unwrap_or(DEFAULT)
}

fn measured() -> Option<usize> {
    let terminal = File::open("/dev/tty").ok()?;
    let mut stty = Command::new("stty");
    stty.arg("size").stdin(terminal).stderr(Stdio::null());
    let output = stty.output().ok()?;
    // Rows and columns.
    let text = String::from_utf8(output.stdout).ok()?;
    text.split_whitespace().nth(1)?.parse().ok()
}
