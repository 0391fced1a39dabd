//! What is wrong with a configuration file, and where.

use std::{fmt, io, path::Path};

/// Why a configuration is refused: every mistake in it, in the order of the
/// file. Displayed with one mistake a line.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfigError {
    mistakes: Vec<Mistake>,
}

/// One mistake in a configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Mistake {
    /// Where in the text; `None` if that is not known, or the file can't be read.
    pub position: Option<Position>,
    /// The full key, such as `tools.get_weather.timeout`; empty if the mistake
    /// is about no key, as a syntax error is.
    pub key: String,
    /// What is wrong: the offending value, and what was expected.
    pub problem: String,
}

/// A position in the text of a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line; the first is 1.
    pub line: usize,
    /// The column, in characters; the first is 1.
    pub column: usize,
}

impl ConfigError {
    /// The mistakes, at least one.
    pub fn mistakes(&self) -> &[Mistake] {
        &self.mistakes
    }

    pub(super) fn new(mistakes: Vec<Mistake>) -> Self {
        Self { mistakes }
    }

    /// The first syntax error of each line: the others mostly follow from it.
    pub(super) fn syntax(text: &str, errors: &[toml::de::Error]) -> Self {
        let mistake = |error: &toml::de::Error| Mistake {
            position: error.span().map(|span| Position::of(text, span.start)),
            key: String::new(),
            problem: error.message().replace('\n', ", "),
        };
        let mut mistakes: Vec<_> = errors.iter().map(mistake).collect();
        mistakes.sort_by_key(|mistake| mistake.position);
        mistakes.dedup_by_key(|mistake| mistake.position.map(|position| position.line));
        Self::new(mistakes)
    }

    pub(super) fn unreadable(path: &Path, error: &io::Error) -> Self {
        Self::new(vec![Mistake {
            position: None,
            key: String::new(),
            problem: format!("can't read {}: {error}", path.display()),
        }])
    }
}

impl Position {
    /// The position of a byte of `text`.
    pub(super) fn of(text: &str, offset: usize) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.mistakes.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            mistake.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(Position { line, column }) = self.position {
            write!(f, "line {line}, column {column}: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.problem)
    }
}
