//! What a person sees of a run: its calls, each completion, the ordered
//! aggregate with a waterfall, and what running at the same time saved.
//!
//! It is told what happened and when, and has no clock of its own. Whatever
//! comes out of the network is escaped before it is shown.

use std::{io, time::Duration};

use super::{
    render::{self, Row},
    style::Style,
};
use crate::pb::{ExecuteToolsResponse, ToolCall, ToolExecutionResult};

/// Whether a terminal wraps a line that is too long (DECAWM).
const NO_WRAP: &str = "\x1b[?7l";
const WRAP: &str = "\x1b[?7h";

/// Shows one run on `out`.
#[derive(Debug)]
pub struct View<W> {
    out: W,
    style: Style,
    rows: Vec<Row>,
    elapsed: Duration,
}

impl<W: io::Write> View<W> {
    /// A view of a run that has yet to begin.
    pub fn new(out: W, style: Style) -> Self {
        Self {
            out,
            style,
            rows: Vec::new(),
            elapsed: Duration::ZERO,
        }
    }

    /// Whether [`Self::tick`] has an effect.
    pub fn is_live(&self) -> bool {
        self.style.live
    }

    /// The calls are about to be sent.
    ///
    /// # Errors
    /// If `out` can't be written, as with the other methods.
    pub fn begin(&mut self, calls: &[ToolCall]) -> io::Result<()> {
        self.rows = (0..).zip(calls).map(Row::waiting).collect();
        self.elapsed = Duration::ZERO;
        let listed = render::calls(self.style, &self.rows, calls);
        let head = if self.style.live {
            "Progress:"
        } else {
            "Completions, as they arrive:"
        };
        let head = render::heading(self.style, head);
        write!(self.out, "{listed}\n{head}")?;
        if self.style.live {
            write!(self.out, "{}", self.render_rows())?;
        }
        self.out.flush()
    }

    /// This much time has passed since the beginning.
    pub fn tick(&mut self, elapsed: Duration) -> io::Result<()> {
        self.elapsed = elapsed;
        if self.style.live {
            let up = self.rows.len();
            write!(self.out, "\x1b[{up}A{}", self.render_rows())?;
            self.out.flush()?;
        }
        Ok(())
    }

    /// A completion has arrived.
    pub fn completion(
        &mut self,
        elapsed: Duration,
        result: &ToolExecutionResult,
    ) -> io::Result<()> {
        let row = Row::ended(result, elapsed);
        if !self.style.live {
            let line = render::row(self.style, &self.rows, &row, elapsed);
            writeln!(self.out, "{line}")?;
            return self.out.flush();
        }
        if let Some(shown) = self.rows.get_mut(result.index as usize) {
            *shown = row;
        }
        self.tick(elapsed)
    }

    /// All is done: `wall` after the beginning, the aggregate is here, and its
    /// durations add up to `sum`. Of a single call it shows nothing more.
    pub fn aggregate(
        &mut self,
        wall: Duration,
        sum: Duration,
        response: &ExecuteToolsResponse,
    ) -> io::Result<()> {
        if self.rows.len() == 1 {
            // There is nothing to compare it with.
            return self.out.flush();
        }
        let table = render::table(self.style, wall, response);
        let closing = render::closing(self.style, wall, sum);
        write!(self.out, "\n{table}\n{closing}")?;
        self.out.flush()
    }

    fn render_rows(&self) -> String {
        let rows = self.rows.iter();
        let rows: String = rows
            .map(|row| {
                let line = render::row(self.style, &self.rows, row, self.elapsed);
                format!("\r\x1b[2K{line}\n")
            })
            .collect();
        // In a terminal that is narrower than expected, a row would wrap into two lines,
        // and going up by the number of rows would leave one of them behind.
        format!("{NO_WRAP}{rows}{WRAP}")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::waterfall::render::tests::*;

    /// The demo's run as it is written, without the part before the rows.
    fn written(style: Style) -> String {
        let mut out = Vec::new();
        let mut view = View::new(&mut out, style);
        let calls = [call("call_a", 3.0), call("call_b", 1.0)];
        let results = [slept(0, "call_a", 3.0), slept(1, "call_b", 1.0)];
        view.begin(&calls).unwrap();
        view.tick(at(0.5)).unwrap();
        view.completion(at(1.0), &results[1]).unwrap();
        view.completion(at(3.0), &results[0]).unwrap();
        view.aggregate(at(3.01), at(4.0), &response(results.to_vec()))
            .unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_pipe_gets_plain_lines() {
        let expected = r#"2 calls in one request:
  [0] call_a  sleep  {"seconds":3}
  [1] call_b  sleep  {"seconds":1}

Completions, as they arrive:
  1.00 s  [1] call_b  sleep   1.00 s  ok {"slept_seconds":1}
  3.00 s  [0] call_a  sleep   3.00 s  ok {"slept_seconds":3}

Aggregate, in the order of the calls (0.00 s is 2026-01-02T03:04:05.678Z):
  #  id      tool   start   end     duration  waterfall                       outcome
  0  call_a  sleep  0.00 s  3.00 s  3.00 s    ##############################  ok {"slept_seconds":3}
  1  call_b  sleep  0.00 s  1.00 s  1.00 s    ##########....................  ok {"slept_seconds":1}

wall 3.01 s, sum of the calls 4.00 s: saved 0.99 s (1.3x)
"#;
        assert_eq!(written(Style::PIPE), expected);
    }

    #[test]
    fn one_call_is_compared_with_nothing() {
        let mut out = Vec::new();
        let mut view = View::new(&mut out, Style::PIPE);
        let results = [slept(0, "call_a", 3.0)];
        view.begin(&[call("call_a", 3.0)]).unwrap();
        view.completion(at(3.0), &results[0]).unwrap();
        let all = response(results.to_vec());
        view.aggregate(at(3.0), at(3.0), &all).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.ends_with("ok {\"slept_seconds\":3}\n"), "{text}");
        assert!(!text.contains("saved"), "{text}");
    }

    #[test]
    fn a_terminal_gets_progress_in_place() {
        let style = Style {
            live: true,
            color: false,
            width: 80,
        };
        let written = written(style).replace(NO_WRAP, "").replace(WRAP, "");
        let (_, rows) = written.split_once("Progress:\n").unwrap();
        let (rows, _) = rows.split_once("\n\n").unwrap();
        let expected = r#"
  0.00 s  [0] call_a  sleep           ▏                 running
  0.00 s  [1] call_b  sleep           ▏                 running
^ 0.50 s  [0] call_a  sleep           ██                running
  0.50 s  [1] call_b  sleep           ██                running
^ 1.00 s  [0] call_a  sleep           ████              running
  1.00 s  [1] call_b  sleep   1.00 s  ████              ok {"slept_seconds":1}
^ 3.00 s  [0] call_a  sleep   3.00 s  ████████████      ok {"slept_seconds":3}
  1.00 s  [1] call_b  sleep   1.00 s  ████              ok {"slept_seconds":1}"#;
        // Up by two lines; clear the line.
        let expected = expected
            .replace("\n^", "\n\x1b[2A ")
            .replace("\n\x1b[2A ", "\n\x1b[2A\r\x1b[2K ")
            .replace("\n ", "\n\r\x1b[2K ");
        assert_eq!(format!("\n{rows}"), expected);
    }

    /// The lines of a terminal of so many columns that is sent `text`.
    fn screen(text: &str, width: usize) -> Vec<String> {
        let (mut lines, mut row, mut column, mut wraps) = (vec![String::new()], 0, 0, true);
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            if let Some(code) = rest.strip_prefix("\x1b[") {
                let end = code.find(|c: char| c.is_ascii_alphabetic()).unwrap();
                match code.split_at(end + 1) {
                    ("?7l", _) => wraps = false,
                    ("?7h", _) => wraps = true,
                    ("2K", _) => lines[row].clear(),
                    (up, _) if up.ends_with('A') => {
                        row -= up.trim_end_matches('A').parse::<usize>().unwrap();
                    }
                    (other, _) => panic!("{other}"),
                }
                rest = &code[end + 1..];
                continue;
            }
            rest = &rest[c.len_utf8()..];
            if c == '\n' || column == width && wraps && c != '\r' {
                row += 1;
                lines.resize(lines.len().max(row + 1), String::new());
            }
            match c {
                '\r' | '\n' => column = 0,
                _ if column < width => {
                    lines[row].push(c);
                    column += 1;
                }
                _ if wraps => {
                    lines[row].push(c);
                    column = 1;
                }
                _ => {}
            }
        }
        lines
    }

    #[test]
    fn a_terminal_that_is_narrower_than_thought_has_no_trails() {
        let style = Style {
            live: true,
            color: false,
            width: 80,
        };
        for width in [30, 50, 79, 80, 200] {
            let lines = screen(&written(style), width);
            let from = lines.iter().position(|line| line == "Progress:").unwrap();
            let shown = lines[from + 1..].iter().take_while(|line| !line.is_empty());
            let shown: Vec<_> = shown.map(|line| line[..20].trim().to_owned()).collect();
            assert_eq!(
                shown,
                ["3.00 s  [0] call_a", "1.00 s  [1] call_b"],
                "{width}"
            );
        }
    }

    #[test]
    fn what_comes_from_outside_is_escaped_and_cut() {
        let mut out = Vec::new();
        let mut view = View::new(&mut out, Style::PIPE);
        let mut result = slept(7, "\x1b]0;evil\x07", 0.0);
        result.outcome = Some(observation(&json!("\u{9b}2J".repeat(100))));
        view.completion(at(1.0), &result).unwrap();
        let written = String::from_utf8(out).unwrap();
        assert!(written.starts_with(r"  1.00 s  [7] \u{1b}]0;evil\u{7}  sleep"));
        assert!(written.contains(r#"ok "\u{9b}2J\u{9b}2J"#));
        assert!(written.ends_with("...\n") && written.len() < 300);
    }
}
