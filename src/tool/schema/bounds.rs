//! What a schema may be before it is compiled, and what is compiled in its place.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    io,
};

use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

use super::steps;

const MAX_BYTES: usize = 256 << 10;
const MAX_DEPTH: usize = 64;
const MAX_REFERENCES: usize = 1000;
const MAX_PATTERNS: usize = 128;
/// How many subschemas may be entered, one by another, for one value: each is some frames
/// of the stack, at each level of the arguments.
const MAX_ENTERED: usize = 24;

/// What a schema is made of.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// All patterns, each once.
    pub(super) patterns: HashSet<String>,
    /// Whether one value may be checked against any number of subschemas.
    pub(super) branches: bool,
    subschemas: Vec<Subschema>,
    /// By JSON Pointer.
    by_pointer: HashMap<String, usize>,
    by_anchor: HashMap<String, usize>,
    references: usize,
    /// Keywords by which a value is looked at more than once, beside its branches.
    multiples: usize,
    has_inner_id: bool,
}

#[derive(Debug, Default)]
struct Subschema {
    /// What it checks the same value against.
    enters: Vec<usize>,
    reference: Option<String>,
}

/// Where the subschemas of a keyword are in its value.
#[derive(Clone, Copy)]
enum Shape {
    One,
    List,
    Named,
}

/// Whether they are for the same value, for what is in it, or for whoever refers to them.
#[derive(Clone, Copy, PartialEq)]
enum For {
    Same,
    Inner,
    Others,
}

fn subschemas(keyword: &str, value: &Value) -> Option<(Shape, For)> {
    Some(match (keyword, value) {
        ("allOf" | "anyOf" | "oneOf", _) => (Shape::List, For::Same),
        ("not" | "if" | "then" | "else", _) => (Shape::One, For::Same),
        ("dependentSchemas" | "dependencies", _) => (Shape::Named, For::Same),
        ("prefixItems", _) | ("items", Value::Array(_)) => (Shape::List, For::Inner),
        ("patternProperties" | "properties", _) => (Shape::Named, For::Inner),
        (
            "additionalItems"
            | "additionalProperties"
            | "contains"
            | "items"
            | "propertyNames"
            | "unevaluatedItems"
            | "unevaluatedProperties",
            _,
        ) => (Shape::One, For::Inner),
        ("contentSchema", _) => (Shape::One, For::Others),
        ("$defs" | "definitions", _) => (Shape::Named, For::Others),
        _ => return None,
    })
}

/// Looks at all of a schema.
///
/// # Errors
/// If it can't be used: why.
pub(super) fn survey(schema: &Map<String, Value>) -> Result<Survey, String> {
    if serde_json::to_writer(Room(MAX_BYTES), schema).is_err() {
        return Err(format!("is over {} KiB", MAX_BYTES >> 10));
    }
    let is_of_objects = match schema.get("type") {
        None => true,
        Some(Value::String(of)) => of == "object",
        Some(Value::Array(of)) => of.iter().any(|of| of == "object"),
        Some(_) => false,
    };
    if !is_of_objects {
        return Err("is not that of an object".to_owned());
    }
    let mut survey = Survey::default();
    survey.add(schema, &mut String::new(), MAX_DEPTH)?;
    survey.follow()?;
    Ok(survey)
}

/// Takes so many bytes.
struct Room(usize);

impl io::Write for Room {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.checked_sub(bytes.len()) {
            Some(left) => self.0 = left,
            None => return Err(io::ErrorKind::FileTooLarge.into()),
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Survey {
    /// Adds the subschema at `pointer` with all that are in it, and returns its place.
    fn add(
        &mut self,
        schema: &Map<String, Value>,
        pointer: &mut String,
        depth: usize,
    ) -> Result<usize, String> {
        let Some(depth) = depth.checked_sub(1) else {
            return Err(format!("is nested more than {MAX_DEPTH} levels deep"));
        };
        let this = self.subschemas.len();
        self.subschemas.push(Subschema::default());
        self.by_pointer.insert(pointer.clone(), this);
        for (keyword, value) in schema {
            match (keyword.as_str(), value) {
                ("$dynamicRef" | "$recursiveRef", _) => return Err(format!("has a {keyword}")),
                (steps::KEYWORD, _) => return Err(format!("has a keyword {keyword}")),
                ("$ref", Value::String(reference)) => {
                    self.references += 1;
                    self.branches = true;
                    self.subschemas[this].reference = Some(reference.clone());
                }
                ("$id", _) => self.has_inner_id |= this > 0,
                ("$anchor" | "$dynamicAnchor", Value::String(anchor)) => {
                    self.by_anchor.insert(anchor.clone(), this);
                }
                ("pattern", Value::String(pattern)) => {
                    self.patterns.insert(pattern.clone());
                }
                ("patternProperties", Value::Object(named)) => {
                    self.patterns.extend(named.keys().cloned());
                }
                _ => {}
            }
            let Some((shape, of)) = subschemas(keyword, value) else {
                continue;
            };
            self.branches |= of == For::Same;
            if matches!(&**keyword, "contains" | "dependencies" | "dependentSchemas") {
                self.multiples += 1;
            }
            let mut enters = Vec::new();
            match (shape, value) {
                (Shape::One, value) => {
                    enters.extend(self.add_inner(value, pointer, &[keyword], depth)?);
                }
                (Shape::List, Value::Array(list)) => {
                    for (index, value) in list.iter().enumerate() {
                        let steps = [keyword, &*index.to_string()];
                        enters.extend(self.add_inner(value, pointer, &steps, depth)?);
                    }
                }
                (Shape::Named, Value::Object(named)) => {
                    for (name, value) in named {
                        let steps = [keyword, &**name];
                        enters.extend(self.add_inner(value, pointer, &steps, depth)?);
                    }
                }
                // For the metaschema to say.
                _ => {}
            }
            if of == For::Same {
                self.subschemas[this].enters.append(&mut enters);
            }
        }
        Ok(this)
    }

    /// Adds what is these steps further. What is neither an object nor a boolean is for the
    /// metaschema to refuse.
    fn add_inner(
        &mut self,
        schema: &Value,
        pointer: &mut String,
        steps: &[&str],
        depth: usize,
    ) -> Result<Option<usize>, String> {
        let length = pointer.len();
        for step in steps {
            pointer.push('/');
            pointer.push_str(&step.replace('~', "~0").replace('/', "~1"));
        }
        let added = match schema {
            Value::Object(schema) => Some(self.add(schema, pointer, depth)?),
            Value::Bool(_) => {
                let added = self.subschemas.len();
                self.subschemas.push(Subschema::default());
                self.by_pointer.insert(pointer.clone(), added);
                Some(added)
            }
            _ => None,
        };
        pointer.truncate(length);
        Ok(added)
    }

    /// Follows the references.
    fn follow(&mut self) -> Result<(), String> {
        if self.references > MAX_REFERENCES {
            return Err(format!("has more than {MAX_REFERENCES} references"));
        }
        if self.patterns.len() + self.multiples > MAX_PATTERNS {
            return Err(format!(
                "has more than {MAX_PATTERNS} patterns, `contains` and `dependentSchemas`"
            ));
        }
        let into_all_of = |it: &Subschema| {
            it.reference
                .as_ref()
                .is_some_and(|it| it.contains("/allOf/"))
        };
        if self.subschemas.iter().any(into_all_of) {
            return Err("refers to what is in an allOf".to_owned());
        }
        if self.has_inner_id && self.references > 0 {
            return Err("has references, and a subschema with an $id of its own".to_owned());
        }
        for index in 0..self.subschemas.len() {
            if let Some(reference) = self.subschemas[index].reference.take() {
                let target = self.target(&reference).ok_or_else(|| {
                    let end = reference.floor_char_boundary(100);
                    format!("refers to {:?}, where it has no schema", &reference[..end])
                })?;
                self.subschemas[index].enters.push(target);
            }
        }
        let mut heights = vec![None; self.subschemas.len()];
        for index in 0..self.subschemas.len() {
            self.height(index, &mut heights, MAX_ENTERED)?;
        }
        Ok(())
    }

    fn target(&self, reference: &str) -> Option<usize> {
        let fragment = reference.strip_prefix('#')?;
        let fragment: Cow<'_, str> = percent_decode_str(fragment).decode_utf8().ok()?;
        let target = match &*fragment {
            pointer if pointer.is_empty() || pointer.starts_with('/') => {
                self.by_pointer.get(pointer)
            }
            anchor => self.by_anchor.get(anchor),
        };
        target.copied()
    }

    /// How many subschemas are entered from that one on, itself included.
    fn height(
        &self,
        index: usize,
        heights: &mut [Option<usize>],
        left: usize,
    ) -> Result<usize, String> {
        let too_many = || {
            Err(format!(
                "has references in a circle, or checks a value by more than {MAX_ENTERED} \
                 subschemas that lead to each other"
            ))
        };
        if let Some(height) = heights[index] {
            return if height > left {
                too_many()
            } else {
                Ok(height)
            };
        }
        let Some(left) = left.checked_sub(1) else {
            return too_many();
        };
        let mut height = 0;
        for &entered in &self.subschemas[index].enters {
            height = height.max(self.height(entered, heights, left)?);
        }
        heights[index] = Some(height + 1);
        Ok(height + 1)
    }
}

/// Makes of a schema what is compiled: without its identity, which nothing needs, and
/// `not_linear` patterns; if it `branches`, with what counts steps.
pub(super) fn prepare(schema: &mut Value, not_linear: &[String], branches: bool) {
    let Value::Object(members) = schema else {
        return;
    };
    members.remove("$id");
    if !not_linear.is_empty() {
        relax(members, not_linear);
    }
    for (keyword, value) in members.iter_mut() {
        match (subschemas(keyword, value), value) {
            (Some((Shape::One, _)), value) => prepare(value, not_linear, branches),
            (Some((Shape::List, _)), Value::Array(list)) => {
                for value in list {
                    prepare(value, not_linear, branches);
                }
            }
            (Some((Shape::Named, _)), Value::Object(named)) => {
                for value in named.values_mut() {
                    prepare(value, not_linear, branches);
                }
            }
            _ => {}
        }
    }
    if branches {
        count(members);
    }
}

/// Puts what counts the branches before them: an `allOf` is checked before the others.
fn count(schema: &mut Map<String, Value>) {
    let of_keyword = |(keyword, value): (&String, &Value)| match (keyword.as_str(), value) {
        ("allOf" | "anyOf" | "oneOf", Value::Array(branches)) => branches.len(),
        ("not" | "if" | "$ref", _) => 1,
        _ => 0,
    };
    let branches: usize = schema.iter().map(of_keyword).sum();
    if branches == 0 {
        return;
    }
    let step = Value::Object(Map::from_iter([(
        steps::KEYWORD.to_owned(),
        branches.into(),
    )]));
    let all_of = schema
        .entry("allOf")
        .or_insert_with(|| Value::Array(Vec::new()));
    if let Value::Array(all_of) = all_of {
        all_of.insert(0, step);
    }
}

/// Leaves these patterns out, and all by which more might then be refused than before: a
/// schema with patterns that can't be checked may accept too much, never too little.
fn relax(schema: &mut Map<String, Value>, patterns: &[String]) {
    let is_left_out = |pattern: &String| patterns.contains(pattern);
    for keyword in ["not", "if", "then", "else", "maxContains"] {
        schema.remove(keyword);
    }
    schema.remove("unevaluatedProperties");
    schema.remove("unevaluatedItems");
    if let Some(one_of) = schema.remove("oneOf") {
        let any_of = Value::Object(Map::from_iter([("anyOf".to_owned(), one_of)]));
        let all_of = schema
            .entry("allOf")
            .or_insert_with(|| Value::Array(Vec::new()));
        if let Value::Array(all_of) = all_of {
            all_of.push(any_of);
        }
    }
    if let Some(Value::String(pattern)) = schema.get("pattern")
        && is_left_out(pattern)
    {
        schema.remove("pattern");
    }
    if let Some(Value::Object(named)) = schema.get_mut("patternProperties") {
        let before = named.len();
        named.retain(|pattern, _| !is_left_out(pattern));
        if named.len() < before {
            schema.remove("additionalProperties");
        }
    }
}
