//! Providers refuse schemas of arguments that are composed (`oneOf` and the like at the
//! root): their properties are put together, and what is said of their combinations becomes
//! words.

use std::{borrow::Cow, cell::Cell, collections::BTreeSet};

use serde_json::{Map, Value, json};

use super::{refs::Document, words};

/// What no root may have.
const KEYS: [&str; 12] = [
    "$ref",
    "allOf",
    "anyOf",
    "const",
    "dependentRequired",
    "dependentSchemas",
    "else",
    "enum",
    "if",
    "not",
    "oneOf",
    "then",
];
/// How deep compositions of compositions are taken apart.
const NESTED: usize = 4;
/// How many schemas are taken apart at all: through references, they may double with each.
const PARTS: usize = 200;
/// How many alternatives are described.
const ALTERNATIVES: usize = 20;

/// The schema of arguments without compositions, and what these say.
pub(super) fn flat(root: &Map<String, Value>) -> (Cow<'_, Map<String, Value>>, Vec<String>) {
    if !KEYS.iter().any(|key| root.contains_key(*key)) {
        return (Cow::Borrowed(root), Vec::new());
    }
    let source = Source {
        document: Document(root),
        left: Cell::new(PARTS),
    };
    let mut parts = Parts::default();
    parts.add(&source, root, NESTED);
    let mut schema = parts.others;
    for (key, value) in root {
        if !KEYS.contains(&key.as_str()) {
            schema.insert(key.clone(), value.clone());
        }
    }
    schema.insert("properties".to_owned(), parts.properties.into());
    schema.remove("required");
    if !parts.required.is_empty() {
        let required: Vec<_> = parts.required.into_iter().collect();
        schema.insert("required".to_owned(), required.into());
    }
    (Cow::Owned(schema), parts.notes)
}

/// A schema whose `allOf` is put into it.
pub(super) fn merged(document: Document<'_>, schema: &Map<String, Value>) -> Map<String, Value> {
    let mut merged = schema.clone();
    merge_all_of(document, &mut merged, NESTED);
    merged
}

fn merge_all_of(document: Document<'_>, merged: &mut Map<String, Value>, room: usize) {
    let Some(Value::Array(schemas)) = merged.remove("allOf") else {
        return;
    };
    // A reference by itself may stay one: what it leads to may be recursive.
    let may_refer = schemas.len() == 1 && !merged.contains_key("$ref");
    for schema in &schemas {
        let referred = match schema.get("$ref") {
            Some(Value::String(reference)) if !may_refer => document.find_object(reference),
            _ => schema.as_object(),
        };
        let Some(part) = referred else { continue };
        let mut part = part.clone();
        match room {
            0 => drop(part.remove("allOf")),
            _ => merge_all_of(document, &mut part, room - 1),
        }
        for (key, value) in part {
            match (merged.get_mut(&key), value) {
                (Some(Value::Object(have)), Value::Object(more)) if key == "properties" => {
                    for (name, schema) in more {
                        have.entry(name).or_insert(schema);
                    }
                }
                (Some(Value::Array(have)), Value::Array(more)) if key == "required" => {
                    for name in more {
                        if !have.contains(&name) {
                            have.push(name);
                        }
                    }
                }
                (Some(_), _) => {}
                (None, value) => {
                    merged.insert(key, value);
                }
            }
        }
    }
}

/// Where the parts are from.
struct Source<'a> {
    document: Document<'a>,
    /// How many more are taken apart.
    left: Cell<usize>,
}

/// What a composed schema of objects comes to.
#[derive(Default)]
struct Parts {
    properties: Map<String, Value>,
    required: BTreeSet<String>,
    /// What a schema says that is referred to.
    others: Map<String, Value>,
    notes: Vec<String>,
}

impl Parts {
    /// Adds what `schema` says.
    fn add(&mut self, source: &Source<'_>, schema: &Map<String, Value>, room: usize) {
        let left = source.left.get();
        source.left.set(left.saturating_sub(1));
        if room == 0 || left == 0 {
            self.notes.push(also(schema));
            return;
        }
        if let Some(Value::Object(properties)) = schema.get("properties") {
            for (name, property) in properties {
                self.add_property(name, property);
            }
        }
        if let Some(Value::Array(names)) = schema.get("required") {
            let names = names.iter().filter_map(Value::as_str);
            self.required.extend(names.map(str::to_owned));
        }
        if let Some(Value::String(reference)) = schema.get("$ref") {
            match source.document.find_object(reference) {
                Some(target) => {
                    self.add(source, target, room - 1);
                    for (key, value) in target {
                        let is_other = !KEYS.contains(&key.as_str()) && !key.starts_with('$');
                        if is_other {
                            self.others.entry(key).or_insert_with(|| value.clone());
                        }
                    }
                }
                None => {
                    let reference = words::cut(reference, 200);
                    self.notes.push(format!("As defined by {reference}."));
                }
            }
        }
        if let Some(Value::Array(schemas)) = schema.get("allOf") {
            for schema in schemas.iter().filter_map(Value::as_object) {
                self.add(source, schema, room - 1);
            }
        }
        for (key, head) in [
            ("anyOf", "At least one of these must hold:"),
            ("oneOf", "Exactly one of these must hold:"),
        ] {
            if let Some(Value::Array(schemas)) = schema.get(key) {
                self.add_alternatives(source, schemas, head, room - 1);
            }
        }
        let rest: Map<_, _> = schema
            .iter()
            .filter(|(key, _)| KEYS.contains(&key.as_str()))
            .filter(|(key, _)| !["$ref", "allOf", "anyOf", "oneOf"].contains(&key.as_str()))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        if !rest.is_empty() {
            self.notes.push(also(&rest));
        }
    }

    fn add_property(&mut self, name: &str, property: &Value) {
        match self.properties.get_mut(name) {
            None => {
                self.properties.insert(name.to_owned(), property.clone());
            }
            Some(have) if have == property => {}
            Some(have) => *have = json!({"allOf": [have.clone(), property]}),
        }
    }

    fn add_alternatives(
        &mut self,
        source: &Source<'_>,
        schemas: &[Value],
        head: &str,
        room: usize,
    ) {
        let mut alternatives = Vec::with_capacity(schemas.len());
        let mut note = head.to_owned();
        for (index, schema) in schemas.iter().enumerate() {
            let mut parts = Self::default();
            let resolved = source.document.resolved(schema);
            if let Some(schema) = resolved {
                parts.add(source, schema, room);
            }
            if index < ALTERNATIVES {
                note += "\n- ";
                note += &parts.in_words(resolved, schema);
            }
            alternatives.push(parts);
        }
        if schemas.len() > ALTERNATIVES {
            note += &format!("\n- or one of {} others", schemas.len() - ALTERNATIVES);
        }
        self.notes.push(note);
        let mut of_all: Option<BTreeSet<String>> = None;
        let mut properties = Map::<String, Value>::new();
        for parts in alternatives {
            for (name, property) in parts.properties {
                let forms = properties.entry(name).or_insert_with(|| json!([]));
                match forms {
                    Value::Array(forms) if !forms.contains(&property) => forms.push(property),
                    _ => {}
                }
            }
            of_all = Some(match of_all {
                None => parts.required,
                Some(names) => names.intersection(&parts.required).cloned().collect(),
            });
        }
        self.required.extend(of_all.unwrap_or_default());
        for (name, forms) in properties {
            if self.properties.contains_key(&name) {
                continue;
            }
            let form = match forms {
                Value::Array(mut forms) if forms.len() == 1 => forms.remove(0),
                forms => json!({"anyOf": forms}),
            };
            self.properties.insert(name, form);
        }
    }

    /// Of one of several alternatives: what it requires and allows.
    fn in_words(&self, resolved: Option<&Map<String, Value>>, schema: &Value) -> String {
        if self.properties.is_empty() && self.required.is_empty() && self.notes.is_empty() {
            return words::quoted(schema);
        }
        let mut text = Vec::new();
        if let Some(Value::String(title)) = resolved.and_then(|it| it.get("title")) {
            text.push(words::cut(title, 100));
        }
        for (name, property) in &self.properties {
            if let Some(value) = property.get("const") {
                text.push(format!("`{name}` is {}", words::quoted(value)));
            }
        }
        if !self.required.is_empty() {
            let names = words::names(self.required.iter().map(String::as_str));
            text.push(format!("requires {names}"));
        }
        let optional = self.properties.keys().map(String::as_str);
        let optional = words::names(optional.filter(|&name| !self.required.contains(name)));
        if !optional.is_empty() {
            text.push(format!("may have {optional}"));
        }
        text.extend(self.notes.iter().map(|note| note.replace('\n', " ")));
        text.join("; ")
    }
}

fn also(schema: &Map<String, Value>) -> String {
    let schema = words::quoted_members(schema);
    format!("The arguments must fit this JSON Schema, too: {schema}")
}
