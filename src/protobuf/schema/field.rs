//! The schema of a field.

use serde_json::{Map, Value as Json, json};

use super::{Builder, Direction, IMMUTABLE, describe, has, is_required, object_of, rules};
use crate::protobuf::types::{Cardinality, EnumType, Field, Kind, Mapping, MessageType};

/// How many names of an enum are listed.
const MAX_VALUES: usize = 500;
/// What base64 is to JSON Schema.
const BASE64: &str = "base64";

impl<'t> Builder<'t> {
    /// A property of the object that a message is.
    pub(super) fn property(
        &mut self,
        message: &'t MessageType,
        field: &'t Field,
        depth: usize,
    ) -> Map<String, Json> {
        let rules = rules::Rules::of(field);
        let mut schema = match field.cardinality {
            Cardinality::Repeated | Cardinality::Packed => {
                let mut items = self.value(field, depth);
                rules.of_items().apply(self.types, field.kind, &mut items);
                let mut list = object_of(json!({"type": "array", "items": items}));
                rules.apply_to_list(&mut list);
                list
            }
            Cardinality::Map => self.map(field, &rules, depth),
            _ => {
                let mut value = self.value(field, depth);
                rules.apply(self.types, field.kind, &mut value);
                if is_required(field) {
                    without_unspecified(&mut value);
                } else if self.is_wrapper(field) && self.direction == Direction::Input {
                    let inner = value.get("type").cloned();
                    value.insert("type".to_owned(), json!([inner, "null"]));
                }
                value
            }
        };
        // What the field says comes before what its type says.
        let of_type = schema.remove("description");
        describe(&mut schema, field.comment.as_deref().map(str::to_owned));
        describe(
            &mut schema,
            of_type.and_then(|it| it.as_str().map(str::to_owned)),
        );
        describe(&mut schema, oneof(message, field));
        if has(field, IMMUTABLE) && self.direction == Direction::Input {
            describe(
                &mut schema,
                Some("Can't be changed once it is set.".to_owned()),
            );
        }
        if field.deprecated {
            schema.insert("deprecated".to_owned(), json!(true));
        }
        schema
    }

    fn is_wrapper(&self, field: &Field) -> bool {
        let message = field.kind.message();
        message.is_some_and(|at| self.types.message(at).mapping == Mapping::Wrapper)
    }

    fn map(
        &mut self,
        field: &'t Field,
        rules: &rules::Rules<'_>,
        depth: usize,
    ) -> Map<String, Json> {
        let entry = field
            .kind
            .message()
            .map(|at| &*self.types.message(at).fields);
        let Some([key, value]) = entry else {
            return Map::new();
        };
        let mut values = self.value(value, depth);
        rules.of_values().apply(self.types, value.kind, &mut values);
        let mut schema = object_of(json!({"type": "object", "additionalProperties": values}));
        let mut keys = match key.kind {
            Kind::String => Map::new(),
            Kind::Bool => object_of(json!({"enum": ["true", "false"]})),
            Kind::Uint32 | Kind::Uint64 | Kind::Fixed32 | Kind::Fixed64 => {
                object_of(json!({"pattern": "^(0|[1-9][0-9]*)$"}))
            }
            _ => object_of(json!({"pattern": "^(0|-?[1-9][0-9]*)$"})),
        };
        if key.kind == Kind::String {
            rules.of_keys().apply(self.types, key.kind, &mut keys);
        }
        if !keys.is_empty() {
            schema.insert("propertyNames".to_owned(), Json::Object(keys));
        }
        rules.apply_to_map(&mut schema);
        schema
    }

    /// One value of a field.
    fn value(&mut self, field: &'t Field, depth: usize) -> Map<String, Json> {
        match field.kind {
            Kind::Message(at) | Kind::Group(at) => self.message(at, depth),
            kind => self.scalar(kind),
        }
    }

    fn scalar(&self, kind: Kind) -> Map<String, Json> {
        object_of(match kind {
            Kind::Bool => json!({"type": "boolean"}),
            Kind::String => json!({"type": "string"}),
            Kind::Bytes => json!({"type": "string", "contentEncoding": BASE64}),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => {
                json!({"type": "integer", "minimum": i32::MIN, "maximum": i32::MAX})
            }
            Kind::Uint32 | Kind::Fixed32 => {
                json!({"type": "integer", "minimum": 0, "maximum": u32::MAX})
            }
            // Not as numbers: writers of JSON have doubles.
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => {
                json!({"type": "string", "pattern": "^-?[0-9]{1,19}$"})
            }
            Kind::Uint64 | Kind::Fixed64 => {
                json!({"type": "string", "pattern": "^[0-9]{1,20}$"})
            }
            Kind::Double | Kind::Float => match self.direction {
                Direction::Input => json!({"type": "number"}),
                // Those that are not finite are strings.
                Direction::Output => json!({"type": ["number", "string"]}),
            },
            Kind::Enum(at) => return self.enumeration(self.types.enumeration(at)),
            Kind::Message(_) | Kind::Group(_) => json!({}),
        })
    }

    fn enumeration(&self, of: &EnumType) -> Map<String, Json> {
        if of.null {
            return object_of(json!({"type": "null"}));
        }
        let names: Vec<_> = of.values.iter().map(|value| &*value.name).collect();
        let names = if (1..=MAX_VALUES).contains(&names.len()) {
            json!({"type": "string", "enum": names})
        } else {
            json!({"type": "string"})
        };
        let mut schema = match self.direction {
            Direction::Input => object_of(names),
            // Numbers that have no name, of a newer service.
            Direction::Output => object_of(json!({"anyOf": [names, {"type": "integer"}]})),
        };
        describe(&mut schema, of.comment.as_deref().map(str::to_owned));
        let told = of.values.iter().take(MAX_VALUES);
        let told = told.filter_map(|value| {
            let comment = value.comment.as_deref()?.replace('\n', " ");
            Some(format!("{}: {comment}", value.name))
        });
        describe(&mut schema, Some(told.collect::<Vec<_>>().join("\n")));
        schema
    }

    /// A message that has a mapping of its own.
    pub(super) fn special(&mut self, message: &'t MessageType) -> Map<String, Json> {
        object_of(match message.mapping {
            Mapping::Fields => return self.object(message, 0),
            Mapping::Wrapper => match message.fields.first() {
                Some(field) => return self.scalar(field.kind),
                None => json!({}),
            },
            Mapping::Timestamp => json!({"type": "string", "format": "date-time"}),
            Mapping::Duration => json!({
                "type": "string", "pattern": r"^-?[0-9]+(\.[0-9]{1,9})?s$",
                "description": "Seconds, such as 3s or 1.500s.",
            }),
            Mapping::FieldMask => json!({
                "type": "string",
                "description": "Names of fields between commas, such as title,author.name.",
            }),
            Mapping::Struct => json!({"type": "object"}),
            Mapping::ListValue => json!({"type": "array"}),
            Mapping::Value => json!({"description": "Any JSON value."}),
            Mapping::Any => json!({
                "type": "object",
                "properties": {"@type": {"type": "string", "description": "A URL that ends with the full name of the message type."}},
                "required": if self.direction == Direction::Input { json!(["@type"]) } else { json!([]) },
                "description": "A message of any type: its fields beside its @type, or its value as `value`.",
            }),
        })
    }
}

/// What a oneof asks of its members, in words: as `oneOf` of the object it would cost the
/// whole request.
fn oneof(message: &MessageType, field: &Field) -> Option<String> {
    let oneof = &message.oneofs[field.oneof? as usize];
    let members = oneof.members.iter();
    let members: Vec<_> = members
        .map(|&at| format!("`{}`", message.fields[at as usize].json_name))
        .take(50)
        .collect();
    if members.len() < 2 && !oneof.required {
        return None;
    }
    let how_many = if oneof.required { "Exactly" } else { "At most" };
    let comment = oneof.comment.as_deref().map(|it| format!(" {it}"));
    Some(format!(
        "{how_many} one of {} may be set.{}",
        members.join(", "),
        comment.unwrap_or_default()
    ))
}

/// Of a value that must be there, the one that says that it is not.
fn without_unspecified(schema: &mut Map<String, Json>) {
    if let Some(Json::Array(names)) = schema.get_mut("enum")
        && names.len() > 1
        && names[0]
            .as_str()
            .is_some_and(|name| name.ends_with("_UNSPECIFIED"))
    {
        names.remove(0);
    }
}
