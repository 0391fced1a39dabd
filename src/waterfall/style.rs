//! How a run is shown: on a terminal or in a pipe.

use super::text::Line;

/// How to show a run.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    /// Draw progress in place, with Unicode: for a terminal. Otherwise each
    /// completion is one plain line.
    pub live: bool,
    /// Use ANSI colours.
    pub color: bool,
    /// The columns of the terminal, which no line exceeds if `live`; else
    /// without effect.
    pub width: usize,
}

impl Style {
    /// For a pipe or a file: plain lines.
    pub const PIPE: Self = Self {
        live: false,
        color: false,
        width: usize::MAX,
    };

    pub(super) fn line(self) -> Line {
        let room = if self.live { self.width } else { usize::MAX };
        Line::new(room, self.color)
    }
}
