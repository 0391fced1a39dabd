//! References of a schema, within its document. No others are followed.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

/// How many references in a row are followed.
const CHAIN: usize = 8;
/// Where definitions are in what is made.
pub(super) const DEFS: &str = "$defs";

/// The document that references are of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Document<'a>(pub(super) &'a Map<String, Value>);

/// What a reference leads to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Target<'a> {
    /// The document itself.
    Root,
    /// A schema in it.
    Within(&'a Value),
}

impl<'a> Document<'a> {
    /// What `reference` leads to; `None` if that is not in the document, or no schema.
    pub(super) fn find(self, reference: &str) -> Option<Target<'a>> {
        let fragment = reference.strip_prefix('#')?;
        let fragment: Cow<'_, str> = percent_decode_str(fragment).decode_utf8().ok()?;
        if fragment.is_empty() {
            return Some(Target::Root);
        }
        let found = match fragment.strip_prefix('/') {
            Some(pointer) => {
                let mut tokens = pointer.split('/').map(unescaped);
                let first = self.0.get(&*tokens.next()?)?;
                tokens.try_fold(first, |value, token| match value {
                    Value::Object(members) => members.get(&*token),
                    Value::Array(items) => items.get(token.parse::<usize>().ok()?),
                    _ => None,
                })
            }
            None => self.anchor(&fragment),
        };
        found
            .filter(|it| it.is_object() || it.is_boolean())
            .map(Target::Within)
    }

    /// The schema in it that `reference` leads to, if it is an object.
    pub(super) fn find_object(self, reference: &str) -> Option<&'a Map<String, Value>> {
        match self.find(reference)? {
            Target::Root => None,
            Target::Within(target) => target.as_object(),
        }
    }

    /// What the document itself refers to.
    pub(super) fn resolved_root(self) -> Option<&'a Map<String, Value>> {
        let Some(Value::String(reference)) = self.0.get("$ref") else {
            return None;
        };
        let target = self.find_object(reference)?;
        match target.get("$ref") {
            Some(Value::String(next)) => self.find_object(next),
            _ => Some(target),
        }
    }

    /// Those that are named are definitions, as a rule.
    fn anchor(self, name: &str) -> Option<&'a Value> {
        let members = [DEFS, "definitions"].map(|key| self.0.get(key).and_then(Value::as_object));
        let schemas = members.into_iter().flatten().flat_map(Map::values);
        let named = |schema: &&Value| schema.get("$anchor").is_some_and(|it| it == name);
        schemas.into_iter().find(named)
    }

    /// A schema, or what it refers to if it is a reference and little else; `None` if that
    /// is not in the document.
    pub(super) fn resolved<'b>(self, schema: &'b Value) -> Option<&'b Map<String, Value>>
    where
        'a: 'b,
    {
        let mut schema = schema.as_object()?;
        for _ in 0..CHAIN {
            let Some(Value::String(reference)) = schema.get("$ref") else {
                return Some(schema);
            };
            schema = self.find_object(reference)?;
        }
        None
    }
}

/// The names that what is referred to gets among the definitions.
#[derive(Debug, Default)]
pub(super) struct Names<'a> {
    /// By reference.
    names: BTreeMap<String, String>,
    used: BTreeSet<String>,
    /// Those that were not asked for yet.
    waiting: Vec<(String, &'a Value)>,
}

impl<'a> Names<'a> {
    /// A reference to the definition that `target` becomes, which `reference` leads to.
    pub(super) fn reference(&mut self, reference: &str, target: &'a Value) -> String {
        let name = match self.names.get(reference) {
            Some(name) => name.clone(),
            None => {
                let name = self.new_name(reference);
                self.used.insert(name.clone());
                self.names.insert(reference.to_owned(), name.clone());
                self.waiting.push((name.clone(), target));
                name
            }
        };
        format!("#/{DEFS}/{name}")
    }

    /// The next that is to be defined.
    pub(super) fn next(&mut self) -> Option<(String, &'a Value)> {
        self.waiting.pop()
    }

    /// In characters that need no escape; unique.
    fn new_name(&self, reference: &str) -> String {
        let last = reference.rsplit('/').next().unwrap_or_default();
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        let base: String = last.chars().filter(|&c| allowed(c)).take(64).collect();
        let base = if base.is_empty() { "schema" } else { &base };
        let is_new = |name: &String| !self.used.contains(name);
        let numbered = (2..).map(|number| format!("{base}_{number}"));
        let mut names = [base.to_owned()].into_iter().chain(numbered);
        names.find(is_new).unwrap_or_default()
    }
}

/// A token of a JSON Pointer (RFC 6901, section 4).
fn unescaped(token: &str) -> Cow<'_, str> {
    if token.contains('~') {
        token.replace("~1", "/").replace("~0", "~").into()
    } else {
        token.into()
    }
}
