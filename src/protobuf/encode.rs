//! Arguments into the wire format, by protobuf's JSON mapping
//! (<https://protobuf.dev/programming-guides/json/>), with some leniency for models. All
//! that is wrong is told, and nothing is rounded.

mod scalar;
mod special;

use std::{borrow::Cow, collections::BTreeSet, ops::ControlFlow};

use bytes::Bytes;

use super::{
    oneofs::PerOneof,
    types::{Cardinality, EnumType, Field, Kind, Mapping, MessageType, Types},
};
use crate::{
    core::{
        error::{MAX_DESCRIPTION_BYTES, Violation},
        suggest::nearest,
    },
    json::{
        path::{Path, Violations},
        tree::Node,
        wire,
    },
};

/// How many names are compared with one that is not known.
const MAX_GUESSES: usize = 1000;

type Member<'n> = (Cow<'n, str>, Node<'n>);

/// Encodes arguments as a message of this type.
pub(super) fn encode(
    types: &Types,
    message: &MessageType,
    arguments: &Node<'_>,
) -> Result<Bytes, Vec<Violation>> {
    let members = match arguments {
        Node::Object(members) => members.len(),
        _ => 0,
    };
    let mut encoder = Encoder {
        types,
        out: Vec::with_capacity(64 + 16 * members),
        violations: Violations::default(),
        depth: 0,
    };
    let root = Path::root("arguments");
    match arguments {
        // Arguments are an object, which some messages are not in JSON.
        Node::Object(members) if message.is_bare() => encoder.bare(message, members, &root),
        _ => encoder.message(message, arguments, &root),
    }
    encoder.violations.or(encoder.out.into())
}

struct Encoder<'t> {
    types: &'t Types,
    out: Vec<u8>,
    violations: Violations,
    /// How many messages are around what is being written.
    depth: usize,
}

/// Which fields of a message were there.
enum Seen {
    /// Of as many as have a bit.
    Few(u128),
    Some(Vec<bool>),
    /// Of more than are worth a place each in every message of the type.
    Many(BTreeSet<usize>),
}

impl Seen {
    const SOME: usize = 4096;

    fn new(fields: usize) -> Self {
        match fields {
            0..=128 => Self::Few(0),
            129..=Self::SOME => Self::Some(vec![false; fields]),
            _ => Self::Many(BTreeSet::new()),
        }
    }

    fn has(&self, at: usize) -> bool {
        match self {
            Self::Few(bits) => bits >> at & 1 == 1,
            Self::Some(all) => all[at],
            Self::Many(some) => some.contains(&at),
        }
    }

    fn add(&mut self, at: usize) {
        match self {
            Self::Few(bits) => *bits |= 1 << at,
            Self::Some(all) => all[at] = true,
            Self::Many(some) => drop(some.insert(at)),
        }
    }
}

impl<'t> Encoder<'t> {
    fn wrong(&mut self, path: &Path<'_>, node: &Node<'_>, expected: &str) {
        let description = format!("must be {expected}, is {}", node.kind());
        self.violations.add(path, description);
    }

    /// Writes the fields of a message.
    fn message(&mut self, message: &'t MessageType, node: &Node<'_>, path: &Path<'_>) {
        self.depth += 1;
        match (message.mapping, node) {
            (Mapping::Fields, Node::Object(members)) => self.fields(message, members, path, ""),
            (Mapping::Fields, _) => self.wrong(path, node, "an object"),
            _ => self.special(message, node, path),
        }
        self.depth -= 1;
    }

    /// Writes the fields of a message that JSON has in an object; all but the one with the
    /// key `besides`.
    fn fields(
        &mut self,
        message: &'t MessageType,
        members: &[Member<'_>],
        path: &Path<'_>,
        besides: &str,
    ) {
        let mut seen = Seen::new(message.fields.len());
        let mut oneofs = PerOneof::new();
        for (key, node) in members {
            let Some(at) = message.named(key) else {
                if besides.is_empty() || key != besides {
                    self.unknown_field(message, key, path);
                }
                continue;
            };
            let field = &message.fields[at];
            if matches!(node, Node::Null) && !self.is_null_a_value(field) {
                continue;
            }
            if seen.has(at) {
                let problem = format!(
                    "is there twice, as `{}` and `{}`",
                    field.json_name, field.name
                );
                self.violations.add(&path.key(key), problem);
                continue;
            }
            seen.add(at);
            if let Some(oneof) = field.oneof {
                if let Some(other) = oneofs.get(oneof) {
                    self.both_of_oneof(message, oneof, other, &path.key(key));
                }
                oneofs.set(oneof, field);
            }
            self.field(field, node, &path.key(key));
        }
        for &at in &message.required {
            if !seen.has(at as usize) {
                let field = &message.fields[at as usize];
                self.violations
                    .add(&path.key(&field.json_name), "is required");
                if self.violations.is_full() {
                    break;
                }
            }
        }
    }

    #[cold]
    fn both_of_oneof(&mut self, of: &MessageType, oneof: u32, other: &Field, path: &Path<'_>) {
        let (oneof, other) = (&of.oneofs[oneof as usize].name, &other.json_name);
        let problem =
            format!("can't be set together with `{other}`: at most one of `{oneof}` may be");
        self.violations.add(path, problem);
    }

    /// Whether null is a value of this field, and not the absence of one.
    fn is_null_a_value(&self, field: &Field) -> bool {
        field.cardinality.is_singular()
            && match field.kind {
                Kind::Message(at) => self.types.message(at).mapping == Mapping::Value,
                Kind::Enum(at) => self.types.enumeration(at).null,
                _ => false,
            }
    }

    #[inline]
    fn field(&mut self, field: &'t Field, node: &Node<'_>, path: &Path<'_>) {
        match field.cardinality {
            Cardinality::Implicit => {
                let start = self.out.len();
                let written = self.value(field, node, path);
                // The default is written as nothing.
                if written == Written::Default {
                    self.out.truncate(start);
                }
            }
            Cardinality::Explicit | Cardinality::Required => {
                self.value(field, node, path);
            }
            Cardinality::Repeated | Cardinality::Packed => self.list(field, node, path),
            Cardinality::Map => self.map(field, node, path),
        }
    }

    fn list(&mut self, field: &'t Field, node: &Node<'_>, path: &Path<'_>) {
        let Node::List(items) = node else {
            return self.wrong(path, node, "a list");
        };
        if items.is_empty() {
            return;
        }
        let packed = (field.cardinality == Cardinality::Packed)
            .then(|| wire::begin(&mut self.out, field.number));
        for (index, item) in items.iter().enumerate() {
            let path = path.index(index);
            if packed.is_some() {
                self.scalar(field.kind, item, &path);
            } else {
                self.value(field, item, &path);
            }
        }
        if let Some(start) = packed {
            wire::end(&mut self.out, start);
        }
    }

    fn map(&mut self, field: &'t Field, node: &Node<'_>, path: &Path<'_>) {
        let Node::Object(members) = node else {
            return self.wrong(path, node, "an object");
        };
        let Some([key_field, value_field]) = field
            .kind
            .message()
            .map(|entry| &*self.types.message(entry).fields)
        else {
            return;
        };
        for (key, node) in members {
            let path = path.key(key);
            let entry = wire::begin(&mut self.out, field.number);
            self.map_key(key_field, key, &path);
            self.value(value_field, node, &path);
            wire::end(&mut self.out, entry);
        }
    }

    /// Writes a field with one value.
    #[inline]
    fn value(&mut self, field: &'t Field, node: &Node<'_>, path: &Path<'_>) -> Written {
        match field.kind {
            Kind::Message(at) => {
                let start = wire::begin(&mut self.out, field.number);
                self.message(self.types.message(at), node, path);
                wire::end(&mut self.out, start);
                Written::Value
            }
            Kind::Group(at) => {
                wire::put_tag(&mut self.out, field.number, wire::START_GROUP);
                self.message(self.types.message(at), node, path);
                wire::put_tag(&mut self.out, field.number, wire::END_GROUP);
                Written::Value
            }
            kind => {
                wire::put_tag(&mut self.out, field.number, kind.wire_type());
                self.scalar(kind, node, path)
            }
        }
    }

    #[cold]
    fn unknown_field(&mut self, message: &MessageType, key: &str, path: &Path<'_>) {
        if self.violations.is_full() {
            return;
        }
        let names = message.fields.iter().map(|field| &*field.json_name);
        let problem = match nearest(key, names.take(MAX_GUESSES)) {
            Some(meant) => format!("is not known, did you mean `{meant}`?"),
            None if message.fields.is_empty() => {
                format!("is not known: {} has no fields", message.name)
            }
            None => {
                let names = message.fields.iter().map(|field| &*field.json_name);
                format!("is not known, there are {}", listed(names))
            }
        };
        self.violations.add(&path.key(key), problem);
    }

    #[cold]
    fn unknown_enum_name(&mut self, of: &EnumType, name: &str, path: &Path<'_>) {
        if self.violations.is_full() {
            return;
        }
        let names = || of.values.iter().map(|value| &*value.name);
        let all = listed(names());
        let nearest = nearest(name, names().take(MAX_GUESSES));
        let problem = match nearest {
            Some(meant) => format!("must be one of {all}, did you mean `{meant}`?"),
            None => format!("must be one of {all}"),
        };
        let problem = match nearest {
            // The guess is worth more than the list.
            Some(meant) if problem.len() > MAX_DESCRIPTION_BYTES => {
                format!("is no value of {}, did you mean `{meant}`?", of.name)
            }
            _ => problem,
        };
        self.violations.add(path, problem);
    }
}

/// Whether what was written is what a field without presence need not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Written {
    Default,
    Value,
}

impl Written {
    fn default_if(is_default: bool) -> Self {
        if is_default {
            Self::Default
        } else {
            Self::Value
        }
    }
}

/// The first names, at most twenty, as far as a message has room for them.
fn listed<'n>(mut names: impl Iterator<Item = &'n str>) -> String {
    const MANY: usize = 20;
    const ROOM: usize = MAX_DESCRIPTION_BYTES - 50;
    let mut list = String::new();
    let added = names.by_ref().take(MANY).try_for_each(|name| {
        if list.len() + name.len() > ROOM {
            return ControlFlow::Break(());
        }
        if !list.is_empty() {
            list.push_str(", ");
        }
        list.push_str(name);
        ControlFlow::Continue(())
    });
    if added.is_break() || names.next().is_some() {
        list.push_str(", ...");
    }
    list
}
