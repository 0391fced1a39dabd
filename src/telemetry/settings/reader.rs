//! Looks variables up and parses them. Each mistake is noted and reading goes
//! on, so that one start finds them all.
//!
//! A mistaken variable counts as not set meanwhile. No such settings get out:
//! [`Reader::finish`] gives them only if there was no mistake.

use std::time::Duration;

use super::error::{Mistake, SettingsError};

/// How much of a value a message shows.
const MAX_SHOWN: usize = 60;
/// Longer than anything here takes: a day.
const MAX_MILLISECONDS: u64 = 24 * 60 * 60 * 1000;
/// More than fits into any message.
const MAX_COUNT: usize = i32::MAX as usize;

/// Reads variables.
pub(super) struct Reader<'a> {
    lookup: &'a dyn Fn(&str) -> Option<String>,
    mistakes: Vec<Mistake>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(lookup: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self {
            lookup,
            mistakes: Vec::new(),
        }
    }

    /// Reads the first of `names` that is set. `parse` fails with what it
    /// expected instead.
    pub(super) fn read<T>(
        &mut self,
        names: &[&str],
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        self.read_secret(names, |text| {
            parse(text).map_err(|expected| format!("expected {expected}, got {}", shown(text)))
        })
    }

    /// The same, for values that are not to be shown: `parse` fails with what is
    /// wrong.
    pub(super) fn read_secret<T>(
        &mut self,
        names: &[&str],
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let (name, text) = self.first(names)?;
        let value = if text.contains(char::REPLACEMENT_CHARACTER) {
            Err("expected UTF-8".to_owned())
        } else {
            parse(&text)
        };
        match value {
            Ok(value) => Some(value),
            Err(problem) => {
                self.note(name, problem);
                None
            }
        }
    }

    /// The first of `names` that is set, with its value.
    pub(super) fn first<'n>(&self, names: &[&'n str]) -> Option<(&'n str, String)> {
        names.iter().find_map(|name| {
            let text = (self.lookup)(name)?.trim().to_owned();
            (!text.is_empty()).then_some((*name, text))
        })
    }

    pub(super) fn note(&mut self, variable: &str, problem: String) {
        let mistake = Mistake {
            variable: variable.to_owned(),
            problem,
        };
        // Both signals read the variables that they share.
        if !self.mistakes.contains(&mistake) {
            self.mistakes.push(mistake);
        }
    }

    pub(super) fn finish<T>(self, settings: T) -> Result<T, SettingsError> {
        if self.mistakes.is_empty() {
            Ok(settings)
        } else {
            Err(SettingsError::new(self.mistakes))
        }
    }
}

pub(super) fn boolean(text: &str) -> Result<bool, String> {
    Ok(one_of(&["true", "false"])(text)? == "true")
}

/// A number from `least`.
pub(super) fn count(least: usize) -> impl Fn(&str) -> Result<usize, String> {
    move |text| {
        let count = digits(text).and_then(|digits| digits.parse().ok());
        count
            .filter(|count| (least..=MAX_COUNT).contains(count))
            .ok_or_else(|| format!("a number from {least} to {MAX_COUNT}"))
    }
}

pub(super) fn milliseconds(text: &str) -> Result<Duration, String> {
    let count = digits(text).and_then(|digits| digits.parse().ok());
    count
        .filter(|count| (1..=MAX_MILLISECONDS).contains(count))
        .map(Duration::from_millis)
        .ok_or_else(|| format!("milliseconds from 1 to {MAX_MILLISECONDS}"))
}

/// `parse` takes a sign as well.
fn digits(text: &str) -> Option<&str> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then_some(text)
}

pub(super) fn one_of<'a>(
    names: &'a [&'static str],
) -> impl Fn(&str) -> Result<&'static str, String> + 'a {
    |text| {
        let known = names.iter().find(|name| name.eq_ignore_ascii_case(text));
        known.copied().ok_or_else(|| match names {
            [rest @ .., last] => format!("{} or {last}", rest.join(", ")),
            [] => "nothing".to_owned(),
        })
    }
}

/// Any of `names`, separated by commas; or `none`.
pub(super) fn list<'a>(
    names: &'a [&'static str],
) -> impl Fn(&str) -> Result<Vec<&'static str>, String> + 'a {
    move |text| {
        if text.eq_ignore_ascii_case("none") {
            return Ok(Vec::new());
        }
        let known = text.split(',').map(|name| one_of(names)(name.trim()));
        known.collect::<Result<_, _>>().map_err(|_| match names {
            [name] => format!("{name} or none"),
            names => format!("some of {}, separated by commas; or none", names.join(", ")),
        })
    }
}

/// A value for a person to recognise.
pub(super) fn shown(text: &str) -> String {
    if text.chars().nth(MAX_SHOWN).is_none() {
        return format!("{text:?}");
    }
    let start: String = text.chars().take(MAX_SHOWN).collect();
    format!("{start:?}...")
}
