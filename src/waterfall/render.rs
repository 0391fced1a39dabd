//! The text of a run: its calls, its results, and the summary.
//!
//! Pure functions from messages to text; `view` says when each is shown.

#[cfg(test)]
pub(super) mod tests;

use std::{ops::RangeInclusive, time::Duration};

use prost_types::Timestamp;

use super::{
    style::Style,
    text::{Paint, bar, columns, cut, escaped, padded, seconds},
};
use crate::{
    core::status::Code,
    json,
    pb::{ExecuteToolsResponse, ToolCall, ToolExecutionResult, tool_execution_result::Outcome},
};

/// A call as it is shown.
#[derive(Debug)]
pub(super) struct Row {
    index: u32,
    id: String,
    tool: String,
    end: Option<End>,
}

/// The end of a call as it is shown.
#[derive(Debug)]
struct End {
    /// Since the beginning.
    arrived: Duration,
    duration: Duration,
    outcome: (Paint, String),
}

impl Row {
    pub(super) fn waiting((index, call): (u32, &ToolCall)) -> Self {
        Self {
            index,
            id: name(&call.id),
            tool: name(&call.name),
            end: None,
        }
    }

    pub(super) fn ended(result: &ToolExecutionResult, arrived: Duration) -> Self {
        Self {
            index: result.index,
            id: name(&result.id),
            tool: name(&result.name),
            end: Some(End {
                arrived,
                duration: length(result.duration),
                outcome: outcome(result),
            }),
        }
    }
}

/// The columns that the widest row needs.
#[derive(Clone, Copy, Debug)]
struct Widths {
    id: usize,
    tool: usize,
}

impl Widths {
    fn of(rows: &[Row]) -> Self {
        let widest = |of: fn(&Row) -> &str| rows.iter().map(|row| columns(of(row))).max();
        Self {
            id: widest(|row| &row.id).unwrap_or(0),
            tool: widest(|row| &row.tool).unwrap_or(0),
        }
    }
}

/// The calls of a run, one a line.
pub(super) fn calls(style: Style, rows: &[Row], calls: &[ToolCall]) -> String {
    let Widths { id, tool } = Widths::of(rows);
    let plural = if calls.len() == 1 { "" } else { "s" };
    let head = format!("{} call{plural} in one request:", calls.len());
    let mut text = heading(style, &head);
    for (row, call) in rows.iter().zip(calls) {
        let arguments = call.arguments.as_deref().map(json::decode_struct);
        let arguments = match arguments {
            None => payload(&String::from_utf8_lossy(&call.arguments_json)),
            Some(Ok(fields)) => payload(&serde_json::Value::Object(fields).to_string()),
            Some(Err(error)) => payload(&error.to_string()),
        };
        let (id, tool) = (padded(&row.id, id), padded(&row.tool, tool));
        let mut line = style.line();
        line.push(Paint::Plain, &format!("  [{}] {id}  {tool}  ", row.index));
        line.push(Paint::Dim, &arguments);
        text += &line.finish();
        text.push('\n');
    }
    text
}

/// A line for `row` in the columns of `rows`: the time since the beginning, the
/// call, how long it took, a bar if it is drawn live, and the outcome.
pub(super) fn row(style: Style, rows: &[Row], row: &Row, elapsed: Duration) -> String {
    /// What a full bar stands for, until a run takes longer.
    const SCALE: Duration = Duration::from_secs(4);
    const CELLS: RangeInclusive<usize> = 4..=100;
    const TIME: usize = 8;
    /// The columns that a bar leaves to the outcome.
    const OUTCOME: usize = 24;
    let running = (Paint::Dim, "running".to_owned());
    let (at, took, (paint, outcome)) = match &row.end {
        Some(end) => (end.arrived, seconds(end.duration), &end.outcome),
        None => (elapsed, String::new(), &running),
    };
    let mut line = style.line();
    line.push(Paint::Dim, &format!("{:>TIME$}", seconds(at)));
    let widths = Widths::of(rows);
    let id = padded(&row.id, widths.id);
    let tool = padded(&row.tool, widths.tool);
    let call = format!("  [{}] {id}  {tool}  {took:>7}  ", row.index);
    line.push(Paint::Plain, &call);
    if style.live {
        let taken = TIME + columns(&call) + 2 + OUTCOME;
        let cells = style.width.saturating_sub(taken);
        let cells = cells.clamp(*CELLS.start(), *CELLS.end());
        let bar = bar(&(Duration::ZERO..at), SCALE.max(elapsed), cells, true);
        line.push(Paint::Cyan, &bar);
        line.push(Paint::Plain, "  ");
    }
    line.push(*paint, outcome);
    line.finish()
}

/// All results, with a bar each for when they ran.
pub(super) fn table(style: Style, wall: Duration, response: &ExecuteToolsResponse) -> String {
    const HEAD: [&str; 6] = ["#", "id", "tool", "start", "end", "duration"];
    /// In a pipe.
    const CELLS: usize = 30;
    const LIVE_CELLS: RangeInclusive<usize> = 10..=100;
    let mut rows = vec![HEAD.map(str::to_owned)];
    let mut bars = vec![];
    let mut outcomes = vec![(Paint::Bold, "outcome".to_owned())];
    for result in &response.results {
        let start = since(response.start_time, result.start_time);
        let end = since(response.start_time, result.end_time);
        rows.push([
            result.index.to_string(),
            name(&result.id),
            name(&result.name),
            seconds(start),
            seconds(end),
            seconds(length(result.duration)),
        ]);
        bars.push(start..end);
        outcomes.push(outcome(result));
    }
    let width = |column: usize| rows.iter().map(|row| columns(&row[column])).max();
    let widths: [usize; 6] = std::array::from_fn(|column| width(column).unwrap_or(0) + 2);
    let widest = outcomes.iter().map(|(_, text)| columns(text)).max();
    let taken = 2 + widths.iter().sum::<usize>() + 2 + widest.unwrap_or(0);
    let cells = if style.live {
        let cells = style.width.saturating_sub(taken);
        cells.clamp(*LIVE_CELLS.start(), *LIVE_CELLS.end())
    } else {
        CELLS
    };

    let mut bars = bars.iter().map(|span| bar(span, wall, cells, style.live));
    let started = response.start_time.map(to_millis).unwrap_or_default();
    let head = format!("Aggregate, in the order of the calls (0.00 s is {started}):");
    let mut text = heading(style, &head);
    for (number, (row, (paint, outcome))) in rows.iter().zip(&outcomes).enumerate() {
        let is_head = number == 0;
        let plain = if is_head { Paint::Bold } else { Paint::Plain };
        let mut line = style.line();
        line.push(plain, "  ");
        for (cell, width) in row.iter().zip(widths) {
            line.push(plain, &padded(cell, width));
        }
        if is_head {
            line.push(plain, &padded("waterfall", cells));
        } else {
            line.push(Paint::Cyan, &bars.next().unwrap_or_default());
        }
        line.push(plain, "  ");
        line.push(*paint, outcome);
        text += &line.finish();
        text.push('\n');
    }
    text
}

/// What running at the same time saved.
pub(super) fn closing(style: Style, wall: Duration, sum: Duration) -> String {
    let times = sum.as_secs_f64() / wall.max(Duration::from_nanos(1)).as_secs_f64();
    let text = format!(
        "wall {}, sum of the calls {}: saved {} ({times:.1}x)",
        seconds(wall),
        seconds(sum),
        seconds(sum.saturating_sub(wall)),
    );
    heading(style, &text)
}

/// A line that is not about a single call.
pub(super) fn heading(style: Style, text: &str) -> String {
    let mut line = style.line();
    line.push(Paint::Bold, text);
    line.finish() + "\n"
}

/// A duration from a message; zero if it is absent or negative.
pub fn length(duration: Option<prost_types::Duration>) -> Duration {
    let duration = duration.unwrap_or_default();
    from_nanos(nanos(duration.seconds, duration.nanos))
}

fn since(start: Option<Timestamp>, at: Option<Timestamp>) -> Duration {
    let nanos = |time: Timestamp| nanos(time.seconds, time.nanos);
    match (start, at) {
        (Some(start), Some(at)) => from_nanos(nanos(at) - nanos(start)),
        _ => Duration::ZERO,
    }
}

fn nanos(seconds: i64, nanos: i32) -> i128 {
    i128::from(seconds) * 1_000_000_000 + i128::from(nanos)
}

fn from_nanos(nanos: i128) -> Duration {
    u64::try_from(nanos).map_or(Duration::ZERO, Duration::from_nanos)
}

fn to_millis(mut time: Timestamp) -> String {
    time.nanos -= time.nanos % 1_000_000;
    time.to_string()
}

/// An id or a tool's name, not too long for its column.
fn name(text: &str) -> String {
    cut(&escaped(text), 24)
}

fn outcome(result: &ToolExecutionResult) -> (Paint, String) {
    let (paint, text) = match &result.outcome {
        // A summary leaves the observation out.
        None => (Paint::Green, "ok".to_owned()),
        Some(Outcome::Observation(encoded)) => {
            let observation = match json::decode_value(encoded) {
                Ok(json) => json.to_string(),
                Err(error) => format!("({error})"),
            };
            (Paint::Green, format!("ok {observation}"))
        }
        Some(Outcome::Error(status)) => {
            let code = Code::from_number(status.code).name();
            let message = if status.message.is_empty() {
                String::new()
            } else {
                format!(": {}", status.message)
            };
            (Paint::Red, format!("error {code}{message}"))
        }
    };
    (paint, payload(&text))
}

/// A payload or a message, cut to what a person may want to read.
fn payload(text: &str) -> String {
    cut(&escaped(text), 200)
}
