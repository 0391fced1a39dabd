//! A log line as text: time, level, target, message, fields. Text from others is escaped, so
//! that it can neither forge a line nor steer the terminal.

use std::{fmt, time::SystemTime};

use opentelemetry::{Context, trace::TraceContextExt as _};
use serde_json::Value;
use tracing::Level;

use super::{
    escaped,
    fields::{Fields, Plain},
};

/// Text for a terminal.
#[derive(Clone, Copy, Debug)]
pub(super) struct Human {
    pub(super) color: bool,
}

impl Human {
    pub(super) fn line(
        self,
        writer: &mut dyn fmt::Write,
        level: Level,
        target: &str,
        fields: &Fields,
    ) -> fmt::Result {
        write!(
            writer,
            "{} {} {}: {}",
            self.dimmed(humantime::format_rfc3339_micros(SystemTime::now())),
            self.colored(level),
            self.dimmed(target),
            escaped(&fields.message),
        )?;
        for (name, value) in &fields.rest {
            let name = self.dimmed(format_args!("{name}=")).to_string();
            match value {
                Value::String(text) => write!(writer, " {name}{}", escaped(text))?,
                other => write!(writer, " {name}{}", Plain(other))?,
            }
        }
        Context::map_current(|context| {
            let span = context.span();
            let span = span.span_context();
            if !span.is_valid() {
                return Ok(());
            }
            write!(writer, " {}{}", self.dimmed("trace_id="), span.trace_id())
        })?;
        writer.write_char('\n')
    }
}

impl Human {
    fn dimmed(self, text: impl fmt::Display) -> Painted<impl fmt::Display> {
        self.painted("2", text)
    }

    fn colored(self, level: Level) -> Painted<impl fmt::Display> {
        let color = match level {
            Level::ERROR => "31",
            Level::WARN => "33",
            Level::INFO => "32",
            Level::DEBUG => "34",
            _ => "35",
        };
        self.painted(color, format!("{level:>5}"))
    }

    fn painted<T: fmt::Display>(self, style: &'static str, text: T) -> Painted<T> {
        Painted {
            style: self.color.then_some(style),
            text,
        }
    }
}

/// A text in an ANSI style.
struct Painted<T> {
    style: Option<&'static str>,
    text: T,
}

impl<T: fmt::Display> fmt::Display for Painted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.style {
            Some(style) => write!(f, "\x1b[{style}m{}\x1b[0m", self.text),
            None => self.text.fmt(f),
        }
    }
}
