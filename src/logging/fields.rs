//! The message of an event, and its fields with their types.

use std::{
    error::Error,
    fmt::{self, Write as _},
};

use serde_json::Value;
use tracing::field::{Field, Visit};

/// A field that is not written: it says which lines are alike, see [`gate`](super::gate).
pub(super) const THROTTLE: &str = "throttle";
/// What an event says in words.
pub(super) const MESSAGE: &str = "message";

/// The content of one event.
#[derive(Debug, Default)]
pub(super) struct Fields {
    pub(super) message: String,
    pub(super) rest: Vec<(&'static str, Value)>,
}

impl Fields {
    pub(super) fn of(event: &tracing::Event<'_>) -> Self {
        let mut fields = Self {
            message: String::new(),
            rest: Vec::with_capacity(event.metadata().fields().len()),
        };
        event.record(&mut fields);
        fields
    }

    /// As text, in one line.
    pub(super) fn to_text(&self) -> String {
        let mut text = self.message.clone();
        for (name, value) in &self.rest {
            match value {
                Value::String(value) => text.extend([" ", name, "=", value]),
                // Writing to a string does not fail.
                other => drop(write!(text, " {name}={}", Plain(other))),
            }
        }
        text
    }

    fn add(&mut self, field: &Field, value: impl Into<Value>) {
        match (name_of(field), value.into()) {
            (None, _) => {}
            (Some(MESSAGE), Value::String(message)) => self.message = message,
            (Some(MESSAGE), other) => self.message = other.to_string(),
            (Some(name), value) => self.rest.push((name, value)),
        }
    }
}

/// The name of a field that is written.
pub(super) fn name_of(field: &Field) -> Option<&'static str> {
    let name = field.name();
    // How a field is written whose name is a keyword.
    (name != THROTTLE).then(|| name.strip_prefix("r#").unwrap_or(name))
}

/// An error with its causes.
pub(super) fn text_of(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.extend([": ", &error.to_string()]);
        cause = error.source();
    }
    text
}

/// A value other than text; numbers without exponents.
pub(super) struct Plain<'a>(pub(super) &'a Value);

impl fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_f64().filter(|_| self.0.is_f64()) {
            Some(number) => number.fmt(f),
            None => self.0.fmt(f),
        }
    }
}

/// Most numbers are durations in seconds, which three digits describe well.
pub(super) fn three_digits(value: f64) -> f64 {
    if value == 0.0 {
        return value;
    }
    if !(1e-9..1000.0).contains(&value) {
        return format!("{value:.2e}").parse().unwrap_or(value);
    }
    let mut scale = 1.0;
    while value * scale < 100.0 {
        scale *= 10.0;
    }
    (value * scale).round() / scale
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        if value.is_finite() {
            self.add(field, three_digits(value));
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
        self.add(field, text_of(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_rounded_as_the_standard_library_rounds_them() {
        let mut random = fastrand::Rng::with_seed(3);
        for _ in 0..100_000 {
            let value = random.f64() * 10_f64.powi(random.i32(-10..5));
            let expected: f64 = format!("{value:.2e}").parse().unwrap();
            assert_eq!(three_digits(value), expected, "{value:e}");
        }
    }
}
