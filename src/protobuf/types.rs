//! Message types, ready to be translated: what their descriptors say, resolved.

use std::collections::HashMap;

use crate::json::wire;

/// All types of a pool.
#[derive(Debug, Default)]
pub(super) struct Types {
    pub(super) messages: Vec<MessageType>,
    pub(super) enums: Vec<EnumType>,
    /// By full name, without a leading dot.
    pub(super) by_name: HashMap<Box<str>, TypeRef>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TypeRef {
    Message(u32),
    Enum(u32),
}

#[derive(Debug)]
pub(super) struct MessageType {
    pub(super) name: Box<str>,
    pub(super) mapping: Mapping,
    /// Sorted by number.
    pub(super) fields: Box<[Field]>,
    /// What a field may be called in JSON, sorted by length and then by bytes; with its
    /// place in `fields`.
    pub(super) names: Box<[(Box<str>, u32)]>,
    /// Without those that `optional` of proto3 makes.
    pub(super) oneofs: Box<[Oneof]>,
    /// The places of those that must be there.
    pub(super) required: Box<[u32]>,
    pub(super) comment: Option<Box<str>>,
    /// Why it can't be translated.
    pub(super) unusable: Option<Unusable>,
}

/// How a message looks in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mapping {
    /// As an object of its fields.
    Fields,
    /// As its only field.
    Wrapper,
    Any,
    Timestamp,
    Duration,
    FieldMask,
    Struct,
    Value,
    ListValue,
}

#[derive(Debug)]
pub(super) struct Field {
    pub(super) number: u32,
    pub(super) kind: Kind,
    pub(super) cardinality: Cardinality,
    /// Its place in the message's `oneofs`.
    pub(super) oneof: Option<u32>,
    /// As the `.proto` has it; of an extension its full name in brackets.
    pub(super) name: Box<str>,
    /// What it is called in JSON that is written. No other field of the message is.
    pub(super) json_name: Box<str>,
    pub(super) comment: Option<Box<str>>,
    /// An encoded `buf.validate.FieldRules`.
    pub(super) rules: Option<Box<[u8]>>,
    /// A bit for each value of `google.api.FieldBehavior`.
    pub(super) behaviors: u32,
    pub(super) deprecated: bool,
    pub(super) extension: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Double,
    Float,
    Int64,
    Uint64,
    Int32,
    Fixed64,
    Fixed32,
    Bool,
    String,
    Bytes,
    Uint32,
    Sfixed32,
    Sfixed64,
    Sint32,
    Sint64,
    Enum(u32),
    Message(u32),
    /// A message between two tags.
    Group(u32),
}

impl Kind {
    /// How a value is encoded when it is not packed.
    #[inline]
    pub(super) fn wire_type(self) -> u32 {
        match self {
            Self::Double | Self::Fixed64 | Self::Sfixed64 => wire::FIXED64,
            Self::Float | Self::Fixed32 | Self::Sfixed32 => wire::FIXED32,
            Self::String | Self::Bytes | Self::Message(_) => wire::BYTES,
            Self::Group(_) => wire::START_GROUP,
            _ => wire::VARINT,
        }
    }

    /// Whether a list of them may be one field.
    pub(super) fn is_packable(self) -> bool {
        !matches!(
            self,
            Self::String | Self::Bytes | Self::Message(_) | Self::Group(_)
        )
    }

    /// The message type, if it is one.
    pub(super) fn message(self) -> Option<u32> {
        match self {
            Self::Message(index) | Self::Group(index) => Some(index),
            _ => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cardinality {
    /// At most one; whether there is one can be seen.
    Explicit,
    /// One; the default if it is not there.
    Implicit,
    Required,
    Repeated,
    /// Repeated, and encoded as one field.
    Packed,
    /// Entries: messages of a key and a value.
    Map,
}

impl Cardinality {
    pub(super) fn is_singular(self) -> bool {
        matches!(self, Self::Explicit | Self::Implicit | Self::Required)
    }
}

#[derive(Debug)]
pub(super) struct Oneof {
    pub(super) name: Box<str>,
    /// The places of its members.
    pub(super) members: Box<[u32]>,
    pub(super) required: bool,
    pub(super) comment: Option<Box<str>>,
}

#[derive(Debug)]
pub(super) struct EnumType {
    pub(super) name: Box<str>,
    pub(super) closed: bool,
    /// `google.protobuf.NullValue`, which JSON writes as null.
    pub(super) null: bool,
    /// As declared, with their comments.
    pub(super) values: Box<[EnumValue]>,
    /// Places in `values`, sorted by number; of several with one number the first.
    pub(super) by_number: Box<[u32]>,
    /// Places in `values`, sorted by name.
    pub(super) by_name: Box<[u32]>,
    pub(super) comment: Option<Box<str>>,
}

#[derive(Debug)]
pub(super) struct EnumValue {
    pub(super) name: Box<str>,
    pub(super) number: i32,
    pub(super) comment: Option<Box<str>>,
}

/// Why a message type can't be translated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// No descriptor has it.
    #[error("the descriptors have no message type {0}")]
    Unknown(String),
    /// It needs a type, directly or through others, that no descriptor has.
    #[error("the descriptors lack the type {0}")]
    Missing(String),
    /// It needs a type, directly or through others, whose descriptor is wrong.
    #[error("{name} {problem}")]
    Invalid {
        /// The type.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl Types {
    pub(super) fn message(&self, index: u32) -> &MessageType {
        &self.messages[index as usize]
    }

    pub(super) fn enumeration(&self, index: u32) -> &EnumType {
        &self.enums[index as usize]
    }

    /// A message type that can be translated, by its full name.
    pub(super) fn usable(&self, full_name: &str) -> Result<u32, Unusable> {
        match self.by_name.get(full_name) {
            Some(TypeRef::Message(index)) => match &self.message(*index).unusable {
                Some(unusable) => Err(unusable.clone()),
                None => Ok(*index),
            },
            _ => Err(Unusable::Unknown(full_name.to_owned())),
        }
    }
}

impl MessageType {
    /// Whether JSON has it as a value that is no object.
    pub(super) fn is_bare(&self) -> bool {
        match self.mapping {
            Mapping::Wrapper
            | Mapping::Timestamp
            | Mapping::Duration
            | Mapping::FieldMask
            | Mapping::ListValue => true,
            Mapping::Fields | Mapping::Any | Mapping::Struct | Mapping::Value => false,
        }
    }

    /// The place of the field with this name.
    #[inline]
    pub(super) fn named(&self, name: &str) -> Option<usize> {
        let found = self.names.binary_search_by(|(known, _)| {
            // Most names differ in their length, which is quickly seen.
            known
                .len()
                .cmp(&name.len())
                .then_with(|| (**known).cmp(name))
        });
        found.ok().map(|at| self.names[at].1 as usize)
    }

    /// The place of the field with this number, which is probably at `expected` or near it.
    #[inline]
    pub(super) fn numbered(&self, number: u32, expected: usize) -> Option<usize> {
        let has = |at: &usize| self.fields.get(*at).is_some_and(|it| it.number == number);
        let near = [expected, expected.wrapping_add(1)];
        near.into_iter().find(has).or_else(|| {
            let fields = &self.fields;
            fields
                .binary_search_by_key(&number, |field| field.number)
                .ok()
        })
    }
}

impl EnumType {
    /// The first name of a number.
    pub(super) fn name_of(&self, number: i32) -> Option<&str> {
        let value = |at: u32| &self.values[at as usize];
        let found = self
            .by_number
            .binary_search_by_key(&number, |&at| value(at).number);
        found.ok().map(|at| &*value(self.by_number[at]).name)
    }

    /// The number of a name.
    pub(super) fn number_of(&self, name: &str) -> Option<i32> {
        let value = |at: u32| &self.values[at as usize];
        let found = self
            .by_name
            .binary_search_by(|&at| (*value(at).name).cmp(name));
        found.ok().map(|at| value(self.by_name[at]).number)
    }
}
