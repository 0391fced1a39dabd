//! Text for a terminal or a pipe: escaping, widths, bars and colours.
//!
//! Pure functions, which know nothing of calls.

use std::{ops::Range, time::Duration};

pub(super) use crate::logging::escaped;

/// How many columns `text` takes at most. Beyond the alphabets of Europe and
/// the Near East it counts two for a character: a line may come out too short,
/// but it never wraps.
pub fn columns(text: &str) -> usize {
    text.chars().map(width).sum()
}

/// `text` if it fits into `room` columns, else its beginning and three dots.
pub fn cut(text: &str, room: usize) -> String {
    const DOTS: &str = "...";
    if columns(text) <= room {
        return text.to_owned();
    }
    let dots = &DOTS[..room.min(DOTS.len())];
    let mut left = room - dots.len();
    let fits = |c: &char| {
        let fits = width(*c) <= left;
        left = left.saturating_sub(width(*c));
        fits
    };
    let mut cut: String = text.chars().take_while(fits).collect();
    cut.push_str(dots);
    cut
}

/// `text` with spaces to its right, to fill `room` columns.
pub fn padded(text: &str, room: usize) -> String {
    let missing = room.saturating_sub(columns(text));
    format!("{text}{}", " ".repeat(missing))
}

/// A length of time, such as `3.01 s`.
pub fn seconds(length: Duration) -> String {
    format!("{:.2} s", length.as_secs_f64())
}

/// A bar of `cells` columns that stand for `total`, filled where `span` is, in
/// one cell at least. `blocks` draws in eighths of a cell, with Unicode's
/// blocks; otherwise it is plain ASCII.
pub(super) fn bar(span: &Range<Duration>, total: Duration, cells: usize, blocks: bool) -> String {
    const BLOCKS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let (full, idle, parts) = if blocks {
        ("█", " ", BLOCKS.len())
    } else {
        ("#", ".", 1)
    };
    let total = total.max(Duration::from_nanos(1)).as_secs_f64();
    let scaled = |at: Duration| at.as_secs_f64() / total * (cells * parts) as f64;

    let before = (scaled(span.start) as usize / parts).min(cells.saturating_sub(1));
    let end = (scaled(span.end).round() as usize).min(cells * parts);
    let filled = end.saturating_sub(before * parts).max(1);
    let rest = if blocks { BLOCKS[filled % parts] } else { "" };
    let after = cells.saturating_sub(before + filled.div_ceil(parts));
    [
        idle.repeat(before),
        full.repeat(filled / parts),
        rest.to_owned(),
        idle.repeat(after),
    ]
    .concat()
}

/// How a terminal shows a piece of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Paint {
    Plain,
    Bold,
    Dim,
    Red,
    Green,
    Cyan,
}

/// A line under construction, which never grows over its room.
#[derive(Debug)]
pub(super) struct Line {
    text: String,
    room: usize,
    color: bool,
}

impl Line {
    pub(super) fn new(room: usize, color: bool) -> Self {
        Self {
            text: String::new(),
            room,
            color,
        }
    }

    /// Appends `text`, or what fits of it.
    pub(super) fn push(&mut self, paint: Paint, text: &str) {
        let text = cut(text, self.room);
        self.room -= columns(&text);
        let code = match paint {
            Paint::Plain => None,
            Paint::Bold => Some(1),
            Paint::Dim => Some(2),
            Paint::Red => Some(31),
            Paint::Green => Some(32),
            Paint::Cyan => Some(36),
        };
        match code.filter(|_| self.color && !text.is_empty()) {
            Some(code) => self.text += &format!("\x1b[{code}m{text}\x1b[0m"),
            None => self.text += &text,
        }
    }

    pub(super) fn finish(self) -> String {
        self.text
    }
}

fn width(c: char) -> usize {
    match c {
        // The blocks of `bar`.
        '\u{2580}'..='\u{259f}' => 1,
        ..'\u{1100}' => 1,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_and_padded_by_columns() {
        assert_eq!(cut("four", 4), "four");
        assert_eq!(cut("fifth", 4), "f...");
        assert_eq!(cut("東京都庁", 6), "東...");
        assert_eq!(cut("東a京", 4), "...");
        assert_eq!(cut("long", 2), "..");
        assert_eq!(padded("é", 3), "é  ");
        assert_eq!(padded("long", 3), "long");
    }

    #[test]
    fn bars_are_scaled_to_the_total() {
        let bar = |start: u64, end: u64, blocks| {
            let at = Duration::from_millis;
            super::bar(&(at(start)..at(end)), at(3000), 12, blocks)
        };
        assert_eq!(bar(0, 1000, false), "####........");
        assert_eq!(bar(1000, 3000, false), "....########");
        assert_eq!(bar(0, 0, false), "#...........");
        assert_eq!(bar(3000, 9000, false), "...........#");
        assert_eq!(bar(0, 1100, true), "████▍       ");
        assert_eq!(bar(0, 3000, true), "████████████");
        assert_eq!(bar(0, 0, true), "▏           ");
    }

    #[test]
    fn lines_stay_within_their_room_whatever_their_colours() {
        let mut line = Line::new(10, true);
        line.push(Paint::Green, "ok ");
        line.push(Paint::Plain, "far too long");
        line.push(Paint::Red, "gone");
        assert_eq!(line.finish(), "\x1b[32mok \x1b[0mfar ...");
    }
}
