//! Arguments against the JSON Schema of their tool, before anything is sent.
//!
//! A schema comes from whoever runs the tool, so it is bounded before it is compiled
//! (`bounds.rs`): in size, in depth, in how far its references lead. It names nothing
//! outside of itself, its patterns are matched in linear time, and a check ends after a
//! number of steps that depends on the arguments alone (`steps.rs`). What doesn't fit is
//! told in words that a model can act on (`words.rs`).
//!
//! Formats are not asserted, as JSON Schema 2020-12 has it by default (Validation, 7.2.1):
//! what is a date or an address is for the tool to say.

mod bounds;
mod steps;
mod words;

use std::{fmt, sync::Arc};

use jsonschema::{PatternOptions, Retrieve, Uri, Validator};
use serde_json::{Map, Value};

use crate::{core::error::Violation, json::tree::Node};

/// The most values of arguments for which it is told what is wrong with each: of more, a
/// list of it might be larger than they are.
const MAX_VALUES_TOLD: usize = 10_000;
/// How many steps a check may take, whatever the size of the arguments.
const STEPS: usize = 1_000_000;
/// How many more for each value of them.
const STEPS_PER_VALUE: usize = 64;
/// How many steps it may take to tell what is wrong: each may be an error that is kept.
const STEPS_TOLD: usize = 50_000;
/// How large a compiled pattern may become, in bytes.
const MAX_PATTERN_BYTES: usize = 256 << 10;

/// The schema of a tool's arguments, compiled.
pub struct ArgumentsSchema {
    /// As it was told, to look up what it knows.
    told: Arc<Map<String, Value>>,
    validator: Validator,
    /// Whether it may look at a value more than once.
    branches: bool,
}

/// Why a schema can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("its input schema {0}")]
pub struct Unusable(String);

impl ArgumentsSchema {
    /// Compiles the schema of the arguments of `tool`. It may take some milliseconds.
    ///
    /// Patterns that can't be matched in linear time, such as those with look-around, are not
    /// checked, nor what depends on them; a log line says so.
    ///
    /// # Errors
    /// If it can't be used: it is no valid JSON Schema, or none of an object, is over 256 KiB
    /// or nested more than 64 levels deep, has more than 1,000 references or 128 patterns,
    /// names something outside of itself, or has references that lead in a circle.
    pub fn compile(tool: &str, told: Arc<Map<String, Value>>) -> Result<Self, Unusable> {
        let survey = bounds::survey(&told).map_err(Unusable)?;
        let not_linear: Vec<_> = survey
            .patterns
            .into_iter()
            .filter(|pattern| !is_linear(pattern))
            .collect();
        for pattern in &not_linear {
            tracing::warn!(
                tool,
                pattern,
                "a pattern of the tool's schema is not checked"
            );
        }
        let mut schema = Value::Object((*told).clone());
        bounds::prepare(&mut schema, &not_linear, survey.branches);
        let validator = options().build(&schema).map_err(|error| {
            Unusable(format!(
                "is no valid JSON Schema, at {:?}: {}",
                error.instance_path().as_str(),
                error.masked()
            ))
        })?;
        Ok(Self {
            told,
            validator,
            branches: survey.branches,
        })
    }

    /// Whether the arguments fit.
    ///
    /// # Errors
    /// With what does not, at most 16 things.
    pub fn check(&self, arguments: &Node<'_>) -> Result<(), Vec<Violation>> {
        let instance = arguments.to_json();
        let size = || steps::values(&instance);
        let steps = if self.branches {
            STEPS.saturating_add(size().saturating_mul(STEPS_PER_VALUE))
        } else {
            0
        };
        match steps::at_most(steps, || self.validator.is_valid(&instance)) {
            Some(true) => return Ok(()),
            Some(false) if size() > MAX_VALUES_TOLD => return Err(words::too_large()),
            Some(false) => {}
            None => return Err(words::too_complex()),
        }
        let errors = || -> Vec<_> { self.validator.iter_errors(&instance).collect() };
        let errors = steps::at_most(STEPS_TOLD, errors).ok_or_else(words::too_large)?;
        Err(words::violations(&errors, &self.told))
    }
}

impl fmt::Debug for ArgumentsSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ArgumentsSchema")
            .field("told", &self.told)
            .finish_non_exhaustive()
    }
}

/// Retrieves nothing: a schema stands for itself.
struct Nothing;

impl Retrieve for Nothing {
    fn retrieve(
        &self,
        uri: &Uri<String>,
    ) -> Result<Value, Box<dyn std::error::Error + Send + Sync>> {
        Err(format!("{uri} is not part of the schema").into())
    }
}

fn options<'a>() -> jsonschema::ValidationOptions<'a> {
    let patterns = PatternOptions::regex()
        .size_limit(MAX_PATTERN_BYTES)
        .dfa_size_limit(MAX_PATTERN_BYTES);
    jsonschema::options()
        .with_retriever(Nothing)
        .with_pattern_options(patterns)
        .should_validate_formats(false)
        .with_keyword(steps::KEYWORD, |_, branches, _| {
            let branches = branches.as_u64().and_then(|it| usize::try_from(it).ok());
            Ok(Box::new(steps::Step(branches.unwrap_or(usize::MAX))))
        })
}

/// Whether the pattern can be matched in linear time.
fn is_linear(pattern: &str) -> bool {
    let schema = serde_json::json!({ "pattern": pattern });
    options().build(&schema).is_ok()
}

#[cfg(test)]
mod tests;
