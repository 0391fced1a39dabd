//! A log line as one JSON object: `timestamp`, `level`, `target`, `message`, the
//! event's fields, and `trace_id`, `span_id`, `trace_flags` by the names and
//! formats of OpenTelemetry ("Trace Context in non-OTLP Log Formats").
//!
//! Each request has a line: it is written as it is read from the event, field by field.

use std::{
    error::Error,
    fmt::{self, Write as _},
    time::SystemTime,
};

use opentelemetry::{
    Context,
    trace::{TraceContextExt as _, TraceFlags},
};
use serde_json::Value;
use tracing::{
    Event, Level,
    field::{Field, Visit},
};

use super::{
    escape::steers,
    fields::{Fields, MESSAGE, Plain, name_of, text_of, three_digits},
};

/// The length of the line of a request.
const USUAL_BYTES: usize = 384;

/// Writes a line.
pub(super) fn line(
    writer: &mut dyn fmt::Write,
    level: Level,
    target: &str,
    fields: &Fields,
) -> fmt::Result {
    let mut line = Line::begin(level, target);
    line.text(MESSAGE, |text| text.write_str(&fields.message));
    for (name, value) in &fields.rest {
        match value {
            Value::String(value) => line.text(unreserved(name), |text| text.write_str(value)),
            other => line.plain(unreserved(name), Plain(other)),
        }
    }
    writer.write_str(&line.end())
}

/// Writes the line of an event.
pub(super) fn line_of(writer: &mut dyn fmt::Write, event: &Event<'_>) -> fmt::Result {
    let metadata = event.metadata();
    let mut line = Line::begin(*metadata.level(), metadata.target());
    event.record(&mut line);
    writer.write_str(&line.end())
}

/// A line that is being made.
struct Line {
    json: String,
    has_message: bool,
}

impl Line {
    fn begin(level: Level, target: &str) -> Self {
        let mut json = String::with_capacity(USUAL_BYTES);
        // Writing to a string does not fail.
        let now = humantime::format_rfc3339_micros(SystemTime::now());
        let _ = write!(json, "{{\"timestamp\":\"{now}\"");
        let mut line = Self {
            json,
            has_message: false,
        };
        line.text("level", |text| text.write_str(level.as_str()));
        line.text("target", |text| text.write_str(target));
        line
    }

    fn end(mut self) -> String {
        if !self.has_message {
            self.text(MESSAGE, |_| Ok(()));
        }
        Context::map_current(|context| {
            let span = context.span();
            let span = span.span_context();
            if span.is_valid() {
                let flags = span.trace_flags() & TraceFlags::SAMPLED;
                self.text("trace_id", |text| write!(text, "{}", span.trace_id()));
                self.text("span_id", |text| write!(text, "{}", span.span_id()));
                self.text("trace_flags", |text| write!(text, "{flags:02x}"));
            }
        });
        self.json.push_str("}\n");
        self.json
    }

    fn name(&mut self, name: &str) {
        self.has_message |= name == MESSAGE;
        self.json.extend([",\"", name, "\":"]);
    }

    fn text(&mut self, name: &str, value: impl FnOnce(&mut Text<'_>) -> fmt::Result) {
        self.name(name);
        self.json.push('"');
        let _ = value(&mut Text(&mut self.json));
        self.json.push('"');
    }

    fn plain(&mut self, name: &str, value: impl fmt::Display) {
        self.name(name);
        let _ = write!(self.json, "{value}");
    }

    fn number(&mut self, field: &Field, value: impl fmt::Display) {
        if let Some(name) = name_of(field) {
            self.plain(unreserved(name), value);
        }
    }
}

impl Visit for Line {
    fn record_f64(&mut self, field: &Field, value: f64) {
        if value.is_finite() {
            self.number(field, three_digits(value));
        } else {
            // JSON has no such numbers.
            self.record_debug(field, &value);
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.number(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.number(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.number(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if let Some(name) = name_of(field) {
            self.text(unreserved(name), |text| text.write_str(value));
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.record_str(field, &text_of(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if let Some(name) = name_of(field) {
            self.text(unreserved(name), |text| write!(text, "{value:?}"));
        }
    }
}

/// The name of a field of an event: of two equal keys, readers of JSON drop one, or reject
/// the line.
fn unreserved(name: &'static str) -> &'static str {
    match name {
        "timestamp" => "field.timestamp",
        "level" => "field.level",
        "target" => "field.target",
        "trace_id" => "field.trace_id",
        "span_id" => "field.span_id",
        "trace_flags" => "field.trace_flags",
        other => other,
    }
}

/// The content of a JSON string. JSON escapes only the control characters of ASCII; a
/// terminal that shows the line obeys others as well.
struct Text<'a>(&'a mut String);

impl fmt::Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // Without an early end, the compiler makes it one of vectors.
        if text.bytes().fold(true, |all, byte| all & is_plain(byte)) {
            self.0.push_str(text);
            return Ok(());
        }
        text.chars().try_for_each(|c| self.write_char(c))
    }

    fn write_char(&mut self, c: char) -> fmt::Result {
        match c {
            '"' => self.0.push_str("\\\""),
            '\\' => self.0.push_str("\\\\"),
            // Four digits are enough for all of them.
            c if steers(c) => write!(self.0, "\\u{:04x}", u32::from(c))?,
            c => self.0.push(c),
        }
        Ok(())
    }
}

fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\')
}
