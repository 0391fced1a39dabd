//! The message of an event, and its fields with their types.

use std::{error::Error, fmt};

use serde_json::Value;
use tracing::field::{Field, Visit};

/// A field that is not written: it says which lines are alike, see [`gate`](super::gate).
pub(super) const THROTTLE: &str = "throttle";

/// The content of one event.
#[derive(Debug, Default)]
pub(super) struct Fields {
    pub(super) message: String,
    pub(super) rest: Vec<(&'static str, Value)>,
}

impl Fields {
    pub(super) fn of(event: &tracing::Event<'_>) -> Self {
        let mut fields = Self::default();
        event.record(&mut fields);
        fields
    }

    /// As text, in one line.
    pub(super) fn to_text(&self) -> String {
        let mut text = self.message.clone();
        for (name, value) in &self.rest {
            match value {
                Value::String(value) => text.extend([" ", name, "=", value]),
                other => text.extend([" ", name, "=", &plain(other)]),
            }
        }
        text
    }

    fn add(&mut self, field: &Field, value: impl Into<Value>) {
        match (field.name(), value.into()) {
            ("message", Value::String(message)) => self.message = message,
            ("message", other) => self.message = other.to_string(),
            (THROTTLE, _) => {}
            (name, value) => {
                // How a field is written whose name is a keyword.
                let name = name.strip_prefix("r#").unwrap_or(name);
                self.rest.push((name, value));
            }
        }
    }
}

/// A value other than text; numbers without exponents.
pub(super) fn plain(value: &Value) -> String {
    match value.as_f64().filter(|_| value.is_f64()) {
        Some(number) => number.to_string(),
        None => value.to_string(),
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        if value.is_finite() {
            // Most are durations in seconds, which three digits describe well.
            let rounded = format!("{value:.2e}").parse().unwrap_or(value);
            self.add(field, rounded);
        } else {
            // JSON has no such numbers.
            self.add(field, value.to_string());
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        let mut text = value.to_string();
        let mut cause = value.source();
        while let Some(error) = cause {
            text.extend([": ", &error.to_string()]);
            cause = error.source();
        }
        self.add(field, text);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, format!("{value:?}"));
    }
}
