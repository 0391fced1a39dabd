//! A log line as one JSON object: `timestamp`, `level`, `target`, `message`, the
//! event's fields, and `trace_id`, `span_id`, `trace_flags` by the names and
//! formats of OpenTelemetry ("Trace Context in non-OTLP Log Formats").

use std::{fmt, time::SystemTime};

use opentelemetry::{
    Context,
    trace::{TraceContextExt as _, TraceFlags},
};
use serde_json::Value;
use tracing::Level;

use super::{
    escape::steers,
    fields::{Fields, plain},
};

/// Writes a line.
pub(super) fn line(
    writer: &mut dyn fmt::Write,
    level: Level,
    target: &str,
    fields: &Fields,
) -> fmt::Result {
    write!(
        writer,
        r#"{{"timestamp":"{}","level":"{level}","target":{},"message":{}"#,
        humantime::format_rfc3339_micros(SystemTime::now()),
        Text(target),
        Text(&fields.message),
    )?;
    for (name, value) in &fields.rest {
        // Of two equal keys, readers of JSON drop one, or reject the line.
        let prefix = match *name {
            "timestamp" | "level" | "target" | "trace_id" | "span_id" | "trace_flags" => "field.",
            _ => "",
        };
        match value {
            Value::String(text) => write!(writer, r#","{prefix}{name}":{}"#, Text(text))?,
            other => write!(writer, r#","{prefix}{name}":{}"#, plain(other))?,
        }
    }
    Context::map_current(|context| {
        let span = context.span();
        let span = span.span_context();
        if !span.is_valid() {
            return Ok(());
        }
        write!(
            writer,
            r#","trace_id":"{}","span_id":"{}","trace_flags":"{:02x}""#,
            span.trace_id(),
            span.span_id(),
            span.trace_flags() & TraceFlags::SAMPLED,
        )
    })?;
    writer.write_str("}\n")
}

/// A JSON string. JSON escapes only the control characters of ASCII; a terminal that shows
/// the line obeys others as well.
struct Text<'a>(&'a str);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let json = serde_json::to_string(self.0).map_err(|_| fmt::Error)?;
        for part in json.split_inclusive(steers) {
            let end = part.chars().next_back().filter(|&c| steers(c));
            f.write_str(part.trim_end_matches(steers))?;
            if let Some(c) = end {
                // Four digits are enough for all of them.
                write!(f, "\\u{:04x}", u32::from(c))?;
            }
        }
        Ok(())
    }
}
