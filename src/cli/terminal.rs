//! How wide the terminal is.

use std::env;

use terminal_size::{Width, terminal_size};

/// Where nothing says anything else.
const DEFAULT: usize = 80;

/// Its columns: `COLUMNS`, if that is set as for all programs, or what it says itself.
pub(super) fn columns() -> usize {
    let set = env::var("COLUMNS").ok().and_then(|text| text.parse().ok());
    let measured = || terminal_size().map(|(Width(columns), _)| columns.into());
    set.or_else(measured)
        .filter(|&columns| columns > 0)
        .unwrap_or(DEFAULT)
}
