//! How a line looks, whether it comes from an event of `tracing` or not.

use std::fmt;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::{
    fmt::{
        FmtContext, FormatEvent,
        format::{FormatFields, Writer},
    },
    registry::LookupSpan,
};

use super::{fields::Fields, human::Human, json};

/// One line per event.
#[derive(Clone, Copy, Debug)]
pub(super) enum Format {
    /// One JSON object.
    Json,
    /// Text for a terminal.
    Human(Human),
}

impl Format {
    /// Writes a line.
    pub(super) fn line(
        self,
        writer: &mut dyn fmt::Write,
        level: Level,
        target: &str,
        fields: &Fields,
    ) -> fmt::Result {
        match self {
            Self::Json => json::line(writer, level, target, fields),
            Self::Human(human) => human.line(writer, level, target, fields),
        }
    }
}

impl<S, N> FormatEvent<S, N> for Format
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        match self {
            Self::Json => json::line_of(&mut writer, event),
            Self::Human(human) => {
                let metadata = event.metadata();
                let fields = Fields::of(event);
                human.line(&mut writer, *metadata.level(), metadata.target(), &fields)
            }
        }
    }
}
