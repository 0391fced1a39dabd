//! Looks up and parses environment variables, as OpenTelemetry specifies them
//! (<https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>):
//! a value that can't be used is reported, and ignored as if it were not set. Where ignoring
//! it would do something else than was asked for, it is a mistake. Reading goes on after a
//! mistake, so that one start finds them all; [`Variables::finish`] then returns no settings.

use std::time::Duration;

use crate::mistakes::{Mistake, Mistakes};

/// How much of a value a message shows, in characters.
const MAX_SHOWN: usize = 60;
/// A day: longer than anything here takes.
const MAX_MILLISECONDS: u64 = 24 * 60 * 60 * 1000;
/// More than any message can hold.
const MAX_COUNT: usize = i32::MAX as usize;
/// Stands alone in a list of names, which is then empty.
const NONE: &str = "none";

/// The variables, and what was wrong with them so far.
pub(super) struct Variables<'a> {
    lookup: &'a dyn Fn(&str) -> Option<String>,
    mistakes: Vec<Mistake>,
    ignored: Vec<Mistake>,
}

impl<'a> Variables<'a> {
    pub(super) fn new(lookup: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self {
            lookup,
            mistakes: Vec::new(),
            ignored: Vec::new(),
        }
    }

    /// Reads the first of `names` that has a usable value. `parse` fails with what it
    /// expected instead.
    pub(super) fn read<T>(
        &mut self,
        names: &[&str],
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        for (name, text) in self.all(names) {
            match utf8(&text).and_then(|text| expecting(text, &parse)) {
                Ok(value) => return Some(value),
                Err(problem) => self.ignore(name, problem),
            }
        }
        None
    }

    /// Reads the first of `names` whose value, a list separated by commas, has any of
    /// `known` in it, or is `none`. Elements that are not known are ignored one by one.
    pub(super) fn read_list(
        &mut self,
        names: &[&str],
        known: &'static [&'static str],
    ) -> Option<Vec<&'static str>> {
        for (name, text) in self.all(names) {
            let elements = text.split(',').map(str::trim);
            let elements: Vec<_> = elements.filter(|element| !element.is_empty()).collect();
            if !elements.is_empty() && elements.iter().all(|one| one.eq_ignore_ascii_case(NONE)) {
                return Some(Vec::new());
            }
            let mut found = Vec::new();
            for element in elements {
                match one_of(known)(element) {
                    Ok(element) if found.contains(&element) => {}
                    Ok(element) => found.push(element),
                    Err(_) if element.eq_ignore_ascii_case(NONE) => {
                        self.ignore(name, format!("{NONE} does not go with others"));
                    }
                    Err(_) => {
                        let expected = [known, &[NONE]].concat().join(", ");
                        let problem = format!("expected any of {expected}, got {}", shown(element));
                        self.ignore(name, problem);
                    }
                }
            }
            if !found.is_empty() {
                return Some(found);
            }
        }
        None
    }

    /// Reads the first of `names` that is set. A value that can't be used is a mistake.
    /// `parse` fails with what it expected instead.
    pub(super) fn demand<T>(
        &mut self,
        names: &[&str],
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        self.demand_secret(names, |text| expecting(text, &parse))
    }

    /// The same, for values that messages must not show: `parse` fails with what is wrong.
    pub(super) fn demand_secret<T>(
        &mut self,
        names: &[&str],
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let (name, text) = self.first(names)?;
        match utf8(&text).and_then(parse) {
            Ok(value) => Some(value),
            Err(problem) => {
                self.refuse(name, problem);
                None
            }
        }
    }

    /// The first of `names` that is set, with its value.
    pub(super) fn first<'n>(&self, names: &[&'n str]) -> Option<(&'n str, String)> {
        self.all(names).into_iter().next()
    }

    /// All of `names` that are set, with their values.
    fn all<'n>(&self, names: &[&'n str]) -> Vec<(&'n str, String)> {
        let set = |name: &&'n str| {
            let text = (self.lookup)(name)?.trim().to_owned();
            (!text.is_empty()).then_some((*name, text))
        };
        names.iter().filter_map(set).collect()
    }

    /// Notes that `variable`, or a part of it, is ignored.
    pub(super) fn ignore(&mut self, variable: &str, problem: String) {
        note(&mut self.ignored, variable, problem);
    }

    /// Notes a mistake in `variable`.
    pub(super) fn refuse(&mut self, variable: &str, problem: String) {
        note(&mut self.mistakes, variable, problem);
    }

    /// The `settings`, given all that was ignored; or every mistake.
    pub(super) fn finish<T>(self, settings: impl FnOnce(Vec<Mistake>) -> T) -> Result<T, Mistakes> {
        if self.mistakes.is_empty() {
            Ok(settings(self.ignored))
        } else {
            Err(Mistakes::new(self.mistakes))
        }
    }
}

fn note(noted: &mut Vec<Mistake>, variable: &str, problem: String) {
    let mistake = Mistake {
        position: None,
        key: variable.to_owned(),
        problem,
    };
    // Variables of all signals are read once for each signal.
    if !noted.contains(&mistake) {
        noted.push(mistake);
    }
}

fn utf8(text: &str) -> Result<&str, String> {
    if text.contains(char::REPLACEMENT_CHARACTER) {
        return Err("expected UTF-8".to_owned());
    }
    Ok(text)
}

fn expecting<T>(text: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<T, String> {
    parse(text).map_err(|expected| format!("expected {expected}, got {}", shown(text)))
}

pub(super) fn boolean(text: &str) -> Result<bool, String> {
    Ok(one_of(&["true", "false"])(text)? == "true")
}

/// Parses a number, at least `least`.
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

/// Parses milliseconds; 0 means no limit.
pub(super) fn timeout(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::from_millis(MAX_MILLISECONDS));
    }
    milliseconds(text)
}

/// Unlike `parse`, takes no sign.
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

/// The value as messages show it.
pub(super) fn shown(text: &str) -> String {
    if text.chars().nth(MAX_SHOWN).is_none() {
        return format!("{text:?}");
    }
    let start: String = text.chars().take(MAX_SHOWN).collect();
    format!("{start:?}...")
}
