//! A tool's schema in the dialect of a format: from its root down.

use serde_json::{Map, Value, json};

use super::{
    MAX_DEPTH, WRAPPERS, composition,
    dialect::{Dialect, Kind},
    refs::{DEFS, Document, Names, Target},
    words,
};

/// How deep a schema nests at most.
const ROOM: usize = MAX_DEPTH - WRAPPERS;
/// What a schema needs to say more than its type: `{"properties": {"a": {"enum": []}}}`.
const LEAST_ROOM: usize = 4;
/// How often a schema is put within itself, where references are.
const REPEATED: usize = 3;
/// How much is put in the places of references, in bytes: it may double with each.
const INLINED: usize = 128 << 10;
/// How much a reference counts at least, in bytes.
const LEAST_INLINED: usize = 64;

/// The schema of arguments, which has always `properties`, and what it can't say.
pub(super) fn input(
    dialect: Dialect,
    schema: Option<&Map<String, Value>>,
) -> (Map<String, Value>, Vec<String>) {
    let Some(schema) = schema else {
        return (of_object(Map::new()), Vec::new());
    };
    let (root, mut notes) = composition::flat(schema);
    let mut walk = Walk::new(dialect, schema);
    let (members, unsaid) = walk.members(&root, ROOM, true);
    notes.extend((!unsaid.is_empty()).then(|| sentence(&unsaid)));
    (of_object(walk.with_definitions(members, ROOM)), notes)
}

/// The schema of observations, if they are objects.
pub(super) fn output(schema: &Map<String, Value>) -> Option<Map<String, Value>> {
    let root = match Document(schema).resolved_root() {
        Some(target) => target,
        None => schema,
    };
    if root.get("type") != Some(&"object".into()) {
        return None;
    }
    let mut walk = Walk::new(Dialect::Mcp, schema);
    let (members, _) = walk.members(root, ROOM, false);
    Some(walk.with_definitions(members, ROOM))
}

/// The same schema as far as it is not too deep.
pub(super) fn shallower(schema: &Map<String, Value>) -> Map<String, Value> {
    let mut walk = Walk::new(Dialect::Mcp, schema);
    let (members, _) = walk.members(schema, MAX_DEPTH, false);
    walk.with_definitions(members, MAX_DEPTH)
}

fn of_object(mut schema: Map<String, Value>) -> Map<String, Value> {
    schema.insert("type".to_owned(), "object".into());
    schema.entry("properties").or_insert_with(|| json!({}));
    schema
}

struct Walk<'a> {
    dialect: Dialect,
    document: Document<'a>,
    names: Names<'a>,
    /// The references that are being put in place.
    within: Vec<String>,
    /// How much was.
    inlined: usize,
}

impl<'a> Walk<'a> {
    fn new(dialect: Dialect, document: &'a Map<String, Value>) -> Self {
        Self {
            dialect,
            document: Document(document),
            names: Names::default(),
            within: Vec::new(),
            inlined: 0,
        }
    }

    /// With what is referred to.
    fn with_definitions(
        &mut self,
        mut root: Map<String, Value>,
        room: usize,
    ) -> Map<String, Value> {
        let mut definitions = Map::new();
        while let Some((name, target)) = self.names.next() {
            let definition = self.schema(target, room.saturating_sub(2));
            definitions.insert(name, definition);
        }
        if !definitions.is_empty() {
            root.insert(DEFS.to_owned(), definitions.into());
        }
        root
    }

    /// A schema that nests at most as deep as there is `room`.
    fn schema(&mut self, schema: &Value, room: usize) -> Value {
        let Some(members) = schema.as_object() else {
            return match (schema, self.dialect) {
                (Value::Bool(false), Dialect::Gemini) => json!({"description": "not allowed"}),
                (Value::Bool(false), _) => json!({"not": {}}),
                _ => json!({}),
            };
        };
        let (mut schema, unsaid) = self.members(members, room, false);
        if !unsaid.is_empty() {
            words::add(&mut schema, &unsaid.join("; "));
        }
        schema.into()
    }

    /// The members of a schema, and what they can't say. `is_root`: the arguments.
    fn members(
        &mut self,
        members: &Map<String, Value>,
        room: usize,
        is_root: bool,
    ) -> (Map<String, Value>, Vec<String>) {
        if room < LEAST_ROOM {
            return (shallow(members), Vec::new());
        }
        if self.dialect.inlines() && members.contains_key("allOf") {
            let merged = composition::merged(self.document, members);
            return self.members(&merged, room, is_root);
        }
        let mut unsaid = Vec::new();
        let mut made = match members.get("$ref") {
            Some(Value::String(reference)) => self.referred(reference, room, &mut unsaid),
            _ => Map::new(),
        };
        for (key, value) in members {
            let kind = Kind::of(key);
            if kind == Kind::Aside {
                continue;
            }
            let made_of_const = json!([value]);
            let (key, value) = match key.as_str() {
                // A tuple, as older drafts have it.
                "items" if value.is_array() => ("prefixItems", value),
                "const" if self.dialect.inlines() => ("enum", &made_of_const),
                key => (key, value),
            };
            if !self.dialect.takes(key, value) {
                unsaid.push(format!("{key}: {}", words::quoted(value)));
                continue;
            }
            if !self.within.is_empty() {
                self.inlined += key.len() + words::plain_size(value);
            }
            if let Some(value) = self.value(key, value, room - 1) {
                made.insert(key.to_owned(), value);
            }
        }
        let has_type = |name: &str| match made.get("type") {
            Some(Value::String(of)) => of == name,
            Some(Value::Array(types)) => types.iter().any(|of| of == name),
            _ => false,
        };
        // OpenAI refuses lists of nobody knows what:
        // <https://github.com/modelcontextprotocol/modelcontextprotocol/issues/410>.
        if has_type("array") && !made.contains_key("items") {
            made.insert("items".to_owned(), json!({}));
        }
        self.leave_out_properties(&mut made, is_root, &mut unsaid);
        (made, unsaid)
    }

    /// The value of a keyword that is taken; `None` if it is not what it should be, or too
    /// deep.
    fn value(&mut self, key: &str, value: &Value, room: usize) -> Option<Value> {
        match (Kind::of(key), value) {
            (Kind::Schema, Value::Bool(flag)) if key != "items" => Some((*flag).into()),
            (Kind::Schema, Value::Object(_) | Value::Bool(_)) => Some(self.schema(value, room)),
            (Kind::ListOfSchemas, Value::Array(schemas)) if !schemas.is_empty() => {
                let schemas = schemas.iter().map(|schema| self.schema(schema, room - 1));
                Some(schemas.collect())
            }
            (Kind::SchemasByName, Value::Object(schemas)) => {
                let schemas = schemas.iter();
                let schemas =
                    schemas.map(|(name, schema)| (name.clone(), self.schema(schema, room - 1)));
                Some(Value::Object(schemas.collect()))
            }
            (Kind::Plain, value) => (words::depth(value) <= room).then(|| value.clone()),
            (Kind::Other, value) if words::depth(value) == 0 => Some(value.clone()),
            _ => None,
        }
    }

    /// What a reference becomes.
    fn referred(
        &mut self,
        reference: &str,
        room: usize,
        unsaid: &mut Vec<String>,
    ) -> Map<String, Value> {
        let Some(target) = self.document.find(reference) else {
            unsaid.push(format!("as defined by {}", words::cut(reference, 200)));
            return Map::new();
        };
        if !self.dialect.inlines() {
            let reference = match target {
                Target::Root => "#".to_owned(),
                Target::Within(target) => self.names.reference(reference, target),
            };
            return Map::from_iter([("$ref".to_owned(), reference.into())]);
        }
        let members = match target {
            Target::Root => self.document.0,
            Target::Within(Value::Object(members)) => members,
            Target::Within(_) => return Map::new(),
        };
        // Also what is only said to be of the same form: there may be many of it in each.
        if !self.within.is_empty() {
            self.inlined += LEAST_INLINED;
        }
        let repeated = self.within.iter().filter(|it| *it == reference).count();
        if repeated >= REPEATED || self.inlined >= INLINED {
            unsaid.push("of the same form as those around it".to_owned());
            return shallow(members);
        }
        self.within.push(reference.to_owned());
        let (made, more) = self.members(members, room, false);
        self.within.pop();
        unsaid.extend(more);
        made
    }

    /// Leaves out the properties that the provider refuses, with what depends on them.
    fn leave_out_properties(
        &self,
        made: &mut Map<String, Value>,
        is_root: bool,
        unsaid: &mut Vec<String>,
    ) {
        let mut left_out = Map::new();
        let mut known = Vec::new();
        if let Some(Value::Object(properties)) = made.get_mut("properties") {
            let is_taken = |name: &str| self.dialect.takes_property(name, is_root);
            let names = properties.keys().cloned();
            let (taken, refused): (Vec<_>, Vec<_>) = names.partition(|name| is_taken(name));
            left_out.extend(
                refused
                    .into_iter()
                    .filter_map(|it| properties.remove_entry(&it)),
            );
            known = taken;
        }
        let mut required = match made.remove("required") {
            Some(Value::Array(names)) => names,
            _ => Vec::new(),
        };
        for (name, schema) in &left_out {
            let is_required = required.iter().any(|it| it == name);
            unsaid.push(format!(
                "{} the property {}: {}",
                if is_required {
                    "requires"
                } else {
                    "also takes"
                },
                Value::from(name.as_str()),
                words::quoted(schema),
            ));
        }
        if !left_out.is_empty() {
            made.remove("additionalProperties");
        }
        required.retain(|name| name.as_str().is_some_and(|it| !left_out.contains_key(it)));
        if self.dialect == Dialect::Gemini {
            // It wants to know what it requires.
            let (these, others) = required
                .into_iter()
                .partition(|name| known.iter().any(|it| name == it));
            required = these;
            let others: Vec<Value> = others;
            let others = words::names(others.iter().filter_map(Value::as_str));
            unsaid.extend((!others.is_empty()).then(|| format!("requires {others}")));
        }
        if !required.is_empty() {
            made.insert("required".to_owned(), required.into());
        }
    }
}

/// Of a schema only what it is of.
fn shallow(members: &Map<String, Value>) -> Map<String, Value> {
    let mut made = Map::new();
    for key in ["type", "description"] {
        if let Some(value @ Value::String(_)) = members.get(key) {
            made.insert(key.to_owned(), value.clone());
        }
    }
    if made.get("type") == Some(&"array".into()) {
        made.insert("items".to_owned(), json!({}));
    }
    made
}

fn sentence(unsaid: &[String]) -> String {
    format!("Of the arguments: {}.", unsaid.join("; "))
}
