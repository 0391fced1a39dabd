//! JSON Schema (2020-12) of a message, for those who write its JSON: models.
//!
//! What is written here is taken by `encode`, which also takes more: numbers for strings of
//! digits, names of the `.proto`. The root is an object that has neither `oneOf` nor
//! `anyOf`, which providers of models refuse together with the whole request.

mod field;
mod rules;

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::{Map, Value as Json, json};

use super::types::{Cardinality, Field, Mapping, MessageType, Types};

/// How many properties one schema may have; the messages beyond are any object.
const MAX_PROPERTIES: usize = 2000;
/// How deep messages are written where they are used, and not under `$defs`.
const MAX_INLINE: usize = 12;

/// Values of `google.api.FieldBehavior`.
const REQUIRED: u32 = 2;
const OUTPUT_ONLY: u32 = 3;
const INPUT_ONLY: u32 = 4;
const IMMUTABLE: u32 = 5;

/// Who writes the JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// Who calls the method.
    Input,
    /// Who answers.
    Output,
}

/// The schema of a message.
pub(super) fn schema(types: &Types, root: u32, direction: Direction) -> Map<String, Json> {
    let mut builder = Builder {
        types,
        direction,
        shared: shared(types, root, direction),
        waiting: Vec::new(),
        queued: HashSet::new(),
        properties_left: MAX_PROPERTIES,
    };
    let message = types.message(root);
    let mut schema = match message.mapping {
        Mapping::Fields => builder.object(message, 0),
        Mapping::Struct | Mapping::Value if direction == Direction::Input => {
            object_of(json!({"type": "object", "properties": {}}))
        }
        // Arguments are an object, whatever they are for.
        _ if message.is_bare() && direction == Direction::Input => {
            let value = Json::Object(builder.message(root, 0));
            let properties = json!({ "value": value });
            let schema =
                json!({"type": "object", "properties": properties, "additionalProperties": false});
            object_of(schema)
        }
        _ => builder.message(root, 0),
    };
    let mut defined = BTreeMap::new();
    while let Some(index) = builder.waiting.pop() {
        let message = types.message(index);
        let object = Json::Object(builder.object(message, 0));
        defined.insert(String::from(&*message.name), object);
    }
    if !defined.is_empty() {
        schema.insert("$defs".to_owned(), json!(defined));
    }
    schema
}

struct Builder<'t> {
    types: &'t Types,
    direction: Direction,
    /// The messages that are used more than once.
    shared: HashSet<u32>,
    /// Those whose definitions are still to be written.
    waiting: Vec<u32>,
    queued: HashSet<u32>,
    properties_left: usize,
}

impl<'t> Builder<'t> {
    /// A message where it is used.
    fn message(&mut self, index: u32, depth: usize) -> Map<String, Json> {
        let message = self.types.message(index);
        if message.mapping != Mapping::Fields {
            return self.special(message);
        }
        if !self.shared.contains(&index) && depth < MAX_INLINE {
            return self.object(message, depth);
        }
        if self.queued.insert(index) {
            self.waiting.push(index);
        }
        let reference = format!("#/$defs/{}", message.name);
        object_of(json!({ "$ref": reference }))
    }

    /// The object that a message is.
    fn object(&mut self, message: &'t MessageType, depth: usize) -> Map<String, Json> {
        let mut schema = Map::new();
        schema.insert("type".to_owned(), json!("object"));
        describe(&mut schema, message.comment.as_deref().map(str::to_owned));
        let fields = visible(message, self.direction);
        let count = fields.clone().count();
        if count > self.properties_left {
            let name = &message.name;
            describe(
                &mut schema,
                Some(format!(
                    "The message {name}, which is too large to be described."
                )),
            );
            schema.insert("properties".to_owned(), json!({}));
            return schema;
        }
        self.properties_left -= count;
        let mut properties = Map::new();
        let mut required = Vec::new();
        for field in fields {
            if self.direction == Direction::Input && is_required(field) {
                required.push(Json::from(&*field.json_name));
            }
            let property = self.property(message, field, depth + 1);
            properties.insert(String::from(&*field.json_name), Json::Object(property));
        }
        schema.insert("properties".to_owned(), Json::Object(properties));
        if !required.is_empty() {
            schema.insert("required".to_owned(), Json::Array(required));
        }
        // A newer service may answer more.
        if self.direction == Direction::Input {
            schema.insert("additionalProperties".to_owned(), json!(false));
        }
        schema
    }
}

/// The fields that a writer of JSON is told of.
fn visible(message: &MessageType, direction: Direction) -> impl Iterator<Item = &Field> + Clone {
    let other = match direction {
        Direction::Input => OUTPUT_ONLY,
        Direction::Output => INPUT_ONLY,
    };
    let fields = message.fields.iter();
    fields.filter(move |field| !field.extension && !has(field, other))
}

fn has(field: &Field, behavior: u32) -> bool {
    field.behaviors >> behavior & 1 == 1
}

fn is_required(field: &Field) -> bool {
    field.cardinality == Cardinality::Required || has(field, REQUIRED) || rules::is_required(field)
}

/// The messages that a schema of this one uses more than once, also within themselves.
fn shared(types: &Types, root: u32, direction: Direction) -> HashSet<u32> {
    let mut uses: HashMap<u32, u32> = HashMap::from([(root, 1)]);
    let mut waiting = vec![root];
    while let Some(at) = waiting.pop() {
        let message = types.message(at);
        if message.mapping != Mapping::Fields {
            continue;
        }
        for used in visible(message, direction).filter_map(|field| field.kind.message()) {
            let count = uses.entry(used).or_insert(0);
            *count += 1;
            if *count == 1 {
                waiting.push(used);
            }
        }
    }
    let many = uses.into_iter().filter(|(_, count)| *count > 1);
    many.map(|(index, _)| index).collect()
}

/// Adds a paragraph to the description.
fn describe(schema: &mut Map<String, Json>, text: Option<String>) {
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return;
    };
    let before = schema.get("description").and_then(Json::as_str);
    let text = match before {
        Some(before) => format!("{before}\n{text}"),
        None => text,
    };
    schema.insert("description".to_owned(), Json::String(text));
}

fn object_of(json: Json) -> Map<String, Json> {
    match json {
        Json::Object(object) => object,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests;
