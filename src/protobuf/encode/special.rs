//! Messages that JSON doesn't have as objects of their fields.

use super::{Encoder, Member, scalar};
use crate::{
    json::{
        path::Path,
        tree::{Node, encode_fields, encode_items, encode_value},
        wire,
    },
    protobuf::{
        names::snake_path,
        time,
        types::{Mapping, MessageType},
    },
};

/// How deep messages may nest in what is sent. Decoders give up at 100.
const MAX_MESSAGES: usize = 95;

impl<'t> Encoder<'t> {
    pub(super) fn special(&mut self, message: &'t MessageType, node: &Node<'_>, path: &Path<'_>) {
        let depth = MAX_MESSAGES.saturating_sub(self.depth);
        match (message.mapping, node) {
            (Mapping::Wrapper, _) => {
                if let Some(field) = message.fields.first() {
                    self.field(field, node, path);
                }
            }
            (Mapping::Any, Node::Object(members)) => self.any(members, path),
            (Mapping::Struct, Node::Object(members)) => {
                encode_fields(members, &mut self.out, path, &mut self.violations, depth);
            }
            (Mapping::ListValue, Node::List(items)) => {
                encode_items(items, &mut self.out, path, &mut self.violations, depth);
            }
            (Mapping::Value, _) => {
                encode_value(node, &mut self.out, path, &mut self.violations, depth);
            }
            (Mapping::Timestamp, Node::Text(text)) => match time::parse_timestamp(text) {
                Some((seconds, nanos)) => self.seconds(seconds, nanos),
                None => self.violations.add(
                    path,
                    "must be a time as in RFC 3339, such as 2025-01-31T09:30:00Z",
                ),
            },
            (Mapping::Duration, Node::Text(text)) => match time::parse_duration(text) {
                Some((seconds, nanos)) => self.seconds(seconds, nanos),
                None => self
                    .violations
                    .add(path, "must be seconds such as 3s or 1.500s"),
            },
            (Mapping::FieldMask, Node::Text(text)) => self.field_mask(text, path),
            (mapping, _) => {
                let expected = match mapping {
                    Mapping::ListValue => "a list",
                    Mapping::Timestamp => "a string with a time, such as 2025-01-31T09:30:00Z",
                    Mapping::Duration => "a string with seconds, such as 3s",
                    Mapping::FieldMask => "a string of paths, such as title,author.name",
                    _ => "an object",
                };
                self.wrong(path, node, expected);
            }
        }
    }

    /// Writes a message that is no object in JSON, out of arguments, which are one: its
    /// value is their only member.
    pub(super) fn bare(
        &mut self,
        message: &'t MessageType,
        members: &[Member<'_>],
        path: &Path<'_>,
    ) {
        let mut value = None;
        for (key, node) in members {
            if key == "value" {
                value = Some(node);
            } else {
                self.violations
                    .add(&path.key(key), "is not known, there is value");
            }
        }
        match value {
            None | Some(Node::Null) => {}
            Some(node) => self.message(message, node, &path.key("value")),
        }
    }

    /// The fields of `Timestamp` and `Duration`.
    fn seconds(&mut self, seconds: i64, nanos: i32) {
        if seconds != 0 {
            wire::put_tag(&mut self.out, 1, wire::VARINT);
            wire::put_varint(&mut self.out, seconds as u64);
        }
        if nanos != 0 {
            wire::put_tag(&mut self.out, 2, wire::VARINT);
            wire::put_varint(&mut self.out, i64::from(nanos) as u64);
        }
    }

    fn field_mask(&mut self, text: &str, path: &Path<'_>) {
        if text.is_empty() {
            return;
        }
        for field in text.split(',') {
            let part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_');
            let valid = !field.is_empty() && field.chars().all(part);
            match snake_path(field).filter(|_| valid) {
                Some(field) => wire::put_bytes(&mut self.out, 1, field.as_bytes()),
                None => {
                    let problem = "must be paths between commas, such as title,author.name";
                    self.violations.add(path, problem);
                    return;
                }
            }
        }
    }

    fn any(&mut self, members: &[Member<'_>], path: &Path<'_>) {
        const TYPE: &str = "@type";
        if members.is_empty() {
            return;
        }
        let find = |name: &str| {
            let found = members.iter().find(|(key, _)| key == name);
            found.map(|(_, node)| node)
        };
        let url = match find(TYPE) {
            Some(Node::Text(url)) => url,
            Some(node) => return self.wrong(&path.key(TYPE), node, "a string"),
            None => return self.violations.add(&path.key(TYPE), "is required"),
        };
        let Some((_, name)) = url.rsplit_once('/') else {
            let problem = "must be a URL that ends with a type, such as type.googleapis.com/a.B";
            return self.violations.add(&path.key(TYPE), problem);
        };
        let message = match self.types.usable(name) {
            Ok(at) => self.types.message(at),
            // As what could not be decoded is given to the caller.
            Err(_) if members.len() == 2 && matches!(find("value"), Some(Node::Text(_))) => {
                wire::put_bytes(&mut self.out, 1, url.as_bytes());
                match find("value") {
                    Some(Node::Text(text)) if let Some(bytes) = scalar::base64(text) => {
                        wire::put_bytes(&mut self.out, 2, &bytes);
                    }
                    _ => self.violations.add(&path.key("value"), "must be base64"),
                }
                return;
            }
            Err(error) => return self.violations.add(&path.key(TYPE), error.to_string()),
        };
        wire::put_bytes(&mut self.out, 1, url.as_bytes());
        let start = wire::begin(&mut self.out, 2);
        self.depth += 1;
        if message.mapping == Mapping::Fields {
            self.fields(message, members, path, TYPE);
        } else {
            for (key, _) in members {
                if key != TYPE && key != "value" {
                    self.violations
                        .add(&path.key(key), "is not known, there is value");
                }
            }
            match find("value") {
                Some(node) => self.message(message, node, &path.key("value")),
                None => self.violations.add(&path.key("value"), "is required"),
            }
        }
        self.depth -= 1;
        wire::end(&mut self.out, start);
    }
}
