//! A log line as one JSON object: `timestamp`, `level`, `target`, `message`, the
//! event's fields, and `trace_id`, `span_id`, `trace_flags` by the names and
//! formats of OpenTelemetry ("Trace Context in non-OTLP Log Formats").

use std::{fmt, time::SystemTime};

use serde_json::Value;
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::{
    FmtContext, FormatEvent,
    format::{FormatFields, Writer},
};

use super::{correlation, fields::Fields};

/// One JSON object per line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Json;

impl<S: Subscriber, N> FormatEvent<S, N> for Json
where
    S: for<'a> tracing_subscriber::registry::LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        line(&mut writer, event, SystemTime::now())
    }
}

fn line(writer: &mut dyn fmt::Write, event: &Event<'_>, now: SystemTime) -> fmt::Result {
    let fields = Fields::of(event);
    write!(
        writer,
        r#"{{"timestamp":"{}","level":"{}","target":{},"message":{}"#,
        humantime::format_rfc3339_micros(now),
        event.metadata().level(),
        Value::from(event.metadata().target()),
        Value::from(fields.message.as_str()),
    )?;
    for (name, value) in &fields.rest {
        // Readers keep one of equal keys, or refuse the line.
        let prefix = match *name {
            "timestamp" | "level" | "target" => "field.",
            _ => "",
        };
        write!(writer, r#","{prefix}{name}":{value}"#)?;
    }
    // A line about another span than the one that runs says so itself.
    if let Some(ids) = correlation::current().filter(|_| !fields.has("trace_id")) {
        write!(
            writer,
            r#","trace_id":"{}","span_id":"{}","trace_flags":"{}""#,
            ids.trace_id(),
            ids.span_id(),
            ids.trace_flags(),
        )?;
    }
    writer.write_str("}\n")
}
