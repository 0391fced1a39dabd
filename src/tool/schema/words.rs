//! What is wrong with arguments, for a model to mend.

use std::fmt::Write as _;

use jsonschema::{
    JsonType, JsonTypeSet, ValidationError,
    error::{TypeKind, ValidationErrorKind as Kind},
    paths::LocationSegment,
};
use serde_json::{Map, Value};

use crate::{
    core::{error::Violation, suggest::nearest},
    json::path::{Path, Violations},
};

/// What all arguments are called.
const ROOT: &str = "arguments";
/// How many names, values or kinds a message lists.
const MAX_LISTED: usize = 12;
/// How long a list of them may get, in bytes: a description has 160.
const MAX_LIST_BYTES: usize = 90;
/// How much of a text is quoted, in bytes.
const MAX_QUOTED_BYTES: usize = 40;

pub(super) fn too_complex() -> Vec<Violation> {
    let problem = "take too long to check against the tool's schema: send less, or less nested";
    vec![Violation::new(ROOT, problem)]
}

pub(super) fn too_large() -> Vec<Violation> {
    let problem = "do not fit the tool's schema, and are too large to say where";
    vec![Violation::new(ROOT, problem)]
}

/// What these come to, of arguments that do not fit `schema`.
pub(super) fn violations(
    errors: &[ValidationError<'_>],
    schema: &Map<String, Value>,
) -> Vec<Violation> {
    let mut violations = Violations::default();
    for error in errors {
        add(error, schema, &mut violations);
    }
    match violations.or(()) {
        Err(violations) => violations,
        // That none was found where there must be some is for nobody to mend.
        Ok(()) => too_large(),
    }
}

fn add(error: &ValidationError<'_>, schema: &Map<String, Value>, violations: &mut Violations) {
    let mut segments = error.instance_path().segments();
    within(&mut segments, &Path::root(ROOT), &mut |path| {
        add_at(path, error, schema, violations);
    });
}

/// Goes down the path. It is as long as arguments are deep.
fn within<'s>(
    segments: &mut dyn Iterator<Item = LocationSegment<'s>>,
    path: &Path<'_>,
    then: &mut dyn FnMut(&Path<'_>),
) {
    match segments.next() {
        None => then(path),
        Some(LocationSegment::Property(key)) => within(segments, &path.key(&key), then),
        Some(LocationSegment::Index(index)) => within(segments, &path.index(index), then),
    }
}

fn add_at(
    path: &Path<'_>,
    error: &ValidationError<'_>,
    schema: &Map<String, Value>,
    violations: &mut Violations,
) {
    let found = || shown(error.instance());
    let length = || match error.instance().as_ref() {
        Value::String(text) => text.chars().count(),
        Value::Array(items) => items.len(),
        Value::Object(members) => members.len(),
        _ => 0,
    };
    let description = match error.kind() {
        Kind::Required { property } => {
            let key = property.as_str().unwrap_or_default();
            violations.add(&path.key(key), "is required");
            return;
        }
        Kind::AdditionalProperties { unexpected } | Kind::UnevaluatedProperties { unexpected } => {
            let known = known_beside(error, schema);
            for key in unexpected {
                violations.add(&path.key(key), unknown(key, &known));
            }
            return;
        }
        Kind::AnyOf { context } | Kind::OneOfNotValid { context } => {
            return add_branches(path, error, context, schema, violations);
        }
        Kind::PropertyNames { error } => {
            let key = error.instance().as_str().unwrap_or_default();
            let problem = format!("has a name that may not be: {}", brief(error));
            violations.add(&path.key(key), problem);
            return;
        }
        Kind::Type { kind } => format!("must be {}, is {}", types(kind), found()),
        Kind::Enum { options } => one_of(options.as_array().into_iter().flatten(), error),
        Kind::Constant { expected_value } => {
            format!("must be {}, is {}", shown(expected_value), found())
        }
        Kind::Minimum { limit } => format!("must be at least {limit}, is {}", found()),
        Kind::Maximum { limit } => format!("must be at most {limit}, is {}", found()),
        Kind::ExclusiveMinimum { limit } => format!("must be over {limit}, is {}", found()),
        Kind::ExclusiveMaximum { limit } => format!("must be under {limit}, is {}", found()),
        Kind::MultipleOf { multiple_of } => {
            format!("must be a multiple of {multiple_of}, is {}", found())
        }
        Kind::MinLength { limit } => {
            format!("must be at least {limit} characters long, is {}", length())
        }
        Kind::MaxLength { limit } => {
            format!("must be at most {limit} characters long, is {}", length())
        }
        Kind::MinItems { limit } => {
            format!("must have at least {limit} elements, has {}", length())
        }
        Kind::MaxItems { limit } => format!("must have at most {limit} elements, has {}", length()),
        Kind::AdditionalItems { limit } => {
            format!("must have at most {limit} elements, has {}", length())
        }
        Kind::UnevaluatedItems { .. } => "has more elements than are known".to_owned(),
        Kind::MinProperties { limit } => {
            format!("must have at least {limit} members, has {}", length())
        }
        Kind::MaxProperties { limit } => {
            format!("must have at most {limit} members, has {}", length())
        }
        Kind::Pattern { pattern } => {
            format!("must match {}, is {}", quoted(pattern, 80), found())
        }
        Kind::UniqueItems => "must not have an element twice".to_owned(),
        Kind::Contains => {
            "has no element, or too few or many, of a kind that it must have".to_owned()
        }
        Kind::FalseSchema => "must not be there".to_owned(),
        Kind::Not { .. } => "is what it must not be (`not` in the tool's schema)".to_owned(),
        Kind::OneOfMultipleValid { .. } => {
            "must fit exactly one of its forms (`oneOf` in the tool's schema)".to_owned()
        }
        _ => brief(error),
    };
    violations.add(path, description);
}

/// Of an alternative: the kinds or values that it has, if that is all there is to say; else
/// what is wrong in the form that was meant most likely.
fn add_branches(
    path: &Path<'_>,
    error: &ValidationError<'_>,
    branches: &[Vec<ValidationError<'static>>],
    schema: &Map<String, Value>,
    violations: &mut Violations,
) {
    let here = |branch: &[ValidationError<'_>]| {
        let is_here = |it: &ValidationError<'_>| it.instance_path() == error.instance_path();
        let tells = |it: &ValidationError<'_>| {
            let kinds = (Kind::keyword(it.kind()), is_here(it));
            matches!(kinds, ("type" | "const" | "enum", true))
        };
        branch.iter().any(tells)
    };
    let mut kinds = JsonTypeSet::empty();
    let mut values = Vec::new();
    for branch in branches {
        match branch.as_slice() {
            [one] if here(branch) => match one.kind() {
                Kind::Type { kind } => kinds = kinds.union(type_set(kind)),
                Kind::Constant { expected_value } => values.push(&**expected_value),
                Kind::Enum { options } => values.extend(options.as_array().into_iter().flatten()),
                _ => {}
            },
            _ => {}
        }
    }
    let entered = branches.iter().filter(|branch| !here(branch));
    let rank = |branch: &&Vec<ValidationError<'_>>| {
        let tells = branch
            .iter()
            .filter(|it| matches!(it.kind(), Kind::Constant { .. } | Kind::Enum { .. }));
        (tells.count(), branch.len())
    };
    if let Some(nearest) = entered.min_by_key(rank) {
        let count = branches.len();
        violations.add(
            path,
            format!("fits none of its {count} forms; in the nearest one:"),
        );
        for error in nearest {
            add(error, schema, violations);
        }
    } else if values.is_empty() {
        let found = shown(error.instance());
        violations.add(path, format!("must be {}, is {found}", types_of(kinds)));
    } else {
        let mut problem = one_of(values.into_iter(), error);
        if kinds != JsonTypeSet::empty() {
            let _ = write!(problem, ", or {}", types_of(kinds));
        }
        violations.add(path, problem);
    }
}

fn one_of<'v>(values: impl Iterator<Item = &'v Value>, error: &ValidationError<'_>) -> String {
    let values: Vec<_> = values.collect();
    let found = shown(error.instance());
    let list = listed(values.iter().map(|value| shown(value)));
    let texts = values.iter().filter_map(|value| value.as_str());
    let meant = error
        .instance()
        .as_str()
        .and_then(|word| nearest(word, texts));
    match meant {
        Some(meant) => format!(
            "must be one of {list}, is {found}: did you mean {}?",
            quoted(meant, MAX_QUOTED_BYTES)
        ),
        None => format!("must be one of {list}, is {found}"),
    }
}

fn unknown(key: &str, known: &[&str]) -> String {
    match nearest(key, known.iter().copied()) {
        Some(meant) => format!(
            "is not known, did you mean {}?",
            quoted(meant, MAX_QUOTED_BYTES)
        ),
        None if known.is_empty() => "is not known".to_owned(),
        None => format!(
            "is not known, there are {}",
            listed(known.iter().map(|key| (*key).to_owned()))
        ),
    }
}

/// The members that the schema of the error's object has by name.
fn known_beside<'s>(error: &ValidationError<'_>, schema: &'s Map<String, Value>) -> Vec<&'s str> {
    let mut steps: Vec<_> = error.schema_path().segments().collect();
    // The keyword that found it.
    steps.pop();
    let mut properties = schema.get("properties");
    let mut at: Option<&Value> = None;
    let mut in_all_of = false;
    for step in &steps {
        at = match step {
            LocationSegment::Property(key) => match at {
                None => schema.get(&**key),
                Some(at) => at.get(&**key),
            },
            // What counts was put before the others of an `allOf`.
            LocationSegment::Index(index) if in_all_of => {
                at.and_then(|at| at.get(index.checked_sub(1)?))
            }
            LocationSegment::Index(index) => at.and_then(|at| at.get(*index)),
        };
        if at.is_none() {
            return Vec::new();
        }
        in_all_of = matches!(step, LocationSegment::Property(key) if key == "allOf");
        properties = at.and_then(|at| at.get("properties"));
    }
    let properties = properties.and_then(Value::as_object);
    properties.map_or_else(Vec::new, |named| named.keys().map(String::as_str).collect())
}

fn listed(parts: impl Iterator<Item = String>) -> String {
    let mut list = String::new();
    for (index, part) in parts.enumerate() {
        if index == MAX_LISTED || list.len() + part.len() > MAX_LIST_BYTES {
            list.push_str(if index == 0 { "many" } else { ", ..." });
            break;
        }
        if index > 0 {
            list.push_str(", ");
        }
        list.push_str(&part);
    }
    list
}

fn type_set(kind: &TypeKind) -> JsonTypeSet {
    match kind {
        TypeKind::Single(of) => JsonTypeSet::from(*of),
        TypeKind::Multiple(of) => *of,
    }
}

fn types(kind: &TypeKind) -> String {
    types_of(type_set(kind))
}

fn types_of(types: JsonTypeSet) -> String {
    let names: Vec<_> = types
        .iter()
        .map(|of| match of {
            JsonType::Null => "null",
            JsonType::Boolean => "a boolean",
            JsonType::Integer => "an integer",
            JsonType::Number => "a number",
            JsonType::String => "a string",
            JsonType::Array => "a list",
            JsonType::Object => "an object",
        })
        .collect();
    names.join(" or ")
}

/// A value to recognise.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => quoted(text, MAX_QUOTED_BYTES),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        other => other.to_string(),
    }
}

fn quoted(text: &str, max_bytes: usize) -> String {
    let shown = &text[..text.floor_char_boundary(max_bytes)];
    let more = if shown.len() < text.len() { "..." } else { "" };
    format!("{:?}", format!("{shown}{more}"))
}

/// In the words of the crate, without the values.
fn brief(error: &ValidationError<'_>) -> String {
    error.masked().to_string()
}
