//! Descriptors as they arrive: encoded `google.protobuf.FileDescriptorProto`s, read without
//! copying. What prost would drop as unknown is here: `edition`, `features` and the
//! extensions of options that schemas are made of.
//!
//! Descriptors are data of strangers. Each element that is read counts, so that a small
//! file can't become large in memory.

use std::{collections::HashMap, str::from_utf8};

use super::features::{Edition, Overrides};
use crate::json::wire::{self, Raw};

/// How many messages, fields, enums, values and so on one pool may have.
pub(super) const MAX_ELEMENTS: usize = 250_000;
/// How deep message types may be declared inside each other.
const MAX_NESTING: usize = 32;

/// `google.api.field_behavior`.
const FIELD_BEHAVIOR: u32 = 1052;
/// `buf.validate.field`, and `buf.validate.oneof` in the options of a oneof.
const VALIDATE: u32 = 1159;

#[derive(Debug, Default)]
pub(super) struct File<'a> {
    pub(super) name: &'a str,
    pub(super) package: &'a str,
    pub(super) dependencies: Vec<&'a str>,
    pub(super) messages: Vec<Message<'a>>,
    pub(super) enums: Vec<Enum<'a>>,
    pub(super) services: Vec<Service<'a>>,
    pub(super) extensions: Vec<Field<'a>>,
    pub(super) features: Overrides,
    pub(super) edition: Edition,
    /// By the path of what they are about.
    pub(super) comments: HashMap<Vec<u32>, &'a str>,
}

#[derive(Debug, Default)]
pub(super) struct Message<'a> {
    pub(super) name: &'a str,
    pub(super) fields: Vec<Field<'a>>,
    pub(super) messages: Vec<Message<'a>>,
    pub(super) enums: Vec<Enum<'a>>,
    pub(super) extensions: Vec<Field<'a>>,
    pub(super) oneofs: Vec<Oneof<'a>>,
    pub(super) features: Overrides,
    pub(super) map_entry: bool,
    pub(super) message_set: bool,
}

#[derive(Debug, Default)]
pub(super) struct Field<'a> {
    pub(super) name: &'a str,
    pub(super) extendee: &'a str,
    pub(super) number: u32,
    pub(super) label: u32,
    pub(super) kind: u32,
    pub(super) type_name: &'a str,
    pub(super) json_name: &'a str,
    pub(super) oneof: Option<usize>,
    pub(super) proto3_optional: bool,
    pub(super) features: Overrides,
    pub(super) packed: Option<bool>,
    pub(super) deprecated: bool,
    /// A bit for each value of `google.api.FieldBehavior`.
    pub(super) behaviors: u32,
    /// An encoded `buf.validate.FieldRules`.
    pub(super) rules: &'a [u8],
}

#[derive(Debug, Default)]
pub(super) struct Oneof<'a> {
    pub(super) name: &'a str,
    pub(super) features: Overrides,
    pub(super) required: bool,
}

#[derive(Debug, Default)]
pub(super) struct Enum<'a> {
    pub(super) name: &'a str,
    pub(super) values: Vec<(&'a str, i32)>,
    pub(super) features: Overrides,
}

#[derive(Debug, Default)]
pub(super) struct Service<'a> {
    pub(super) name: &'a str,
    pub(super) methods: Vec<Method<'a>>,
}

#[derive(Debug, Default)]
pub(super) struct Method<'a> {
    pub(super) name: &'a str,
    pub(super) input: &'a str,
    pub(super) output: &'a str,
    pub(super) client_streaming: bool,
    pub(super) server_streaming: bool,
    pub(super) deprecated: bool,
    pub(super) idempotency_level: u32,
}

/// Reads files, as long as their elements are not too many.
#[derive(Debug)]
pub(super) struct Reader {
    elements_left: usize,
}

/// Why a file can't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unreadable {
    #[error("is no encoded google.protobuf.FileDescriptorProto")]
    Malformed,
    #[error("has too many elements: all files together may have {MAX_ELEMENTS}")]
    TooMany,
    #[error("has message types nested deeper than {MAX_NESTING} levels")]
    TooDeep,
}

use Unreadable::Malformed;

type Read = Result<(), Unreadable>;

/// Goes over the fields of a message.
fn each<'a>(mut left: &'a [u8], mut field: impl FnMut(u32, Raw<'a>) -> Read) -> Read {
    while !left.is_empty() {
        let (number, raw) = wire::field(&mut left).ok_or(Malformed)?;
        field(number, raw)?;
    }
    Ok(())
}

fn text(bytes: &[u8]) -> Result<&str, Unreadable> {
    from_utf8(bytes).map_err(|_| Malformed)
}

impl Reader {
    pub(super) fn new() -> Self {
        Self {
            elements_left: MAX_ELEMENTS,
        }
    }

    fn count(&mut self) -> Read {
        self.elements_left = self
            .elements_left
            .checked_sub(1)
            .ok_or(Unreadable::TooMany)?;
        Ok(())
    }

    pub(super) fn file<'a>(&mut self, encoded: &'a [u8]) -> Result<File<'a>, Unreadable> {
        let mut file = File::default();
        let mut syntax = "";
        let mut edition = 0;
        each(encoded, |number, raw| {
            match (number, raw) {
                (1, Raw::Bytes(it)) => file.name = text(it)?,
                (2, Raw::Bytes(it)) => file.package = text(it)?,
                (3, Raw::Bytes(it)) => {
                    self.count()?;
                    file.dependencies.push(text(it)?);
                }
                (4, Raw::Bytes(it)) => file.messages.push(self.message(it, MAX_NESTING)?),
                (5, Raw::Bytes(it)) => file.enums.push(self.enumeration(it)?),
                (6, Raw::Bytes(it)) => file.services.push(self.service(it)?),
                (7, Raw::Bytes(it)) => file.extensions.push(self.field(it)?),
                (8, Raw::Bytes(it)) => each(it, |number, raw| match (number, raw) {
                    (50, Raw::Bytes(it)) => file.features.read(it).ok_or(Malformed),
                    _ => Ok(()),
                })?,
                (9, Raw::Bytes(it)) => self.comments(it, &mut file.comments)?,
                (12, Raw::Bytes(it)) => syntax = text(it)?,
                (14, Raw::Varint(it)) => edition = it,
                _ => {}
            }
            Ok(())
        })?;
        file.edition = Edition::new(syntax, edition);
        Ok(file)
    }

    fn message<'a>(&mut self, encoded: &'a [u8], depth: usize) -> Result<Message<'a>, Unreadable> {
        self.count()?;
        let depth = depth.checked_sub(1).ok_or(Unreadable::TooDeep)?;
        let mut message = Message::default();
        each(encoded, |number, raw| {
            match (number, raw) {
                (1, Raw::Bytes(it)) => message.name = text(it)?,
                (2, Raw::Bytes(it)) => message.fields.push(self.field(it)?),
                (3, Raw::Bytes(it)) => message.messages.push(self.message(it, depth)?),
                (4, Raw::Bytes(it)) => message.enums.push(self.enumeration(it)?),
                (6, Raw::Bytes(it)) => message.extensions.push(self.field(it)?),
                (7, Raw::Bytes(it)) => each(it, |number, raw| {
                    match (number, raw) {
                        (1, Raw::Varint(it)) => message.message_set = it != 0,
                        (7, Raw::Varint(it)) => message.map_entry = it != 0,
                        (12, Raw::Bytes(it)) => message.features.read(it).ok_or(Malformed)?,
                        _ => {}
                    }
                    Ok(())
                })?,
                (8, Raw::Bytes(it)) => message.oneofs.push(self.oneof(it)?),
                _ => {}
            }
            Ok(())
        })?;
        Ok(message)
    }

    fn field<'a>(&mut self, encoded: &'a [u8]) -> Result<Field<'a>, Unreadable> {
        self.count()?;
        let mut field = Field::default();
        each(encoded, |number, raw| {
            match (number, raw) {
                (1, Raw::Bytes(it)) => field.name = text(it)?,
                (2, Raw::Bytes(it)) => field.extendee = text(it)?,
                // A number that is none becomes 0, which no field has.
                (3, Raw::Varint(it)) => field.number = u32::try_from(it).unwrap_or(0),
                (4, Raw::Varint(it)) => field.label = u32::try_from(it).unwrap_or(0),
                (5, Raw::Varint(it)) => field.kind = u32::try_from(it).unwrap_or(0),
                (6, Raw::Bytes(it)) => field.type_name = text(it)?,
                (8, Raw::Bytes(it)) => field_options(it, &mut field)?,
                (9, Raw::Varint(it)) => {
                    field.oneof = Some(usize::try_from(it).unwrap_or(usize::MAX))
                }
                (10, Raw::Bytes(it)) => field.json_name = text(it)?,
                (17, Raw::Varint(it)) => field.proto3_optional = it != 0,
                _ => {}
            }
            Ok(())
        })?;
        Ok(field)
    }

    fn oneof<'a>(&mut self, encoded: &'a [u8]) -> Result<Oneof<'a>, Unreadable> {
        self.count()?;
        let mut oneof = Oneof::default();
        each(encoded, |number, raw| match (number, raw) {
            (1, Raw::Bytes(it)) => {
                oneof.name = text(it)?;
                Ok(())
            }
            (2, Raw::Bytes(it)) => each(it, |number, raw| match (number, raw) {
                (1, Raw::Bytes(it)) => oneof.features.read(it).ok_or(Malformed),
                (VALIDATE, Raw::Bytes(it)) => each(it, |number, raw| {
                    if let (1, Raw::Varint(it)) = (number, raw) {
                        oneof.required = it != 0;
                    }
                    Ok(())
                }),
                _ => Ok(()),
            }),
            _ => Ok(()),
        })?;
        Ok(oneof)
    }

    fn enumeration<'a>(&mut self, encoded: &'a [u8]) -> Result<Enum<'a>, Unreadable> {
        self.count()?;
        let mut found = Enum::default();
        each(encoded, |number, raw| match (number, raw) {
            (1, Raw::Bytes(it)) => {
                found.name = text(it)?;
                Ok(())
            }
            (2, Raw::Bytes(it)) => {
                self.count()?;
                let mut value = ("", 0);
                each(it, |number, raw| {
                    match (number, raw) {
                        (1, Raw::Bytes(it)) => value.0 = text(it)?,
                        (2, Raw::Varint(it)) => value.1 = it as i32,
                        _ => {}
                    }
                    Ok(())
                })?;
                found.values.push(value);
                Ok(())
            }
            (3, Raw::Bytes(it)) => each(it, |number, raw| match (number, raw) {
                (7, Raw::Bytes(it)) => found.features.read(it).ok_or(Malformed),
                _ => Ok(()),
            }),
            _ => Ok(()),
        })?;
        Ok(found)
    }

    fn service<'a>(&mut self, encoded: &'a [u8]) -> Result<Service<'a>, Unreadable> {
        self.count()?;
        let mut service = Service::default();
        each(encoded, |number, raw| {
            match (number, raw) {
                (1, Raw::Bytes(it)) => service.name = text(it)?,
                (2, Raw::Bytes(it)) => service.methods.push(self.method(it)?),
                _ => {}
            }
            Ok(())
        })?;
        Ok(service)
    }

    fn method<'a>(&mut self, encoded: &'a [u8]) -> Result<Method<'a>, Unreadable> {
        self.count()?;
        let mut method = Method::default();
        each(encoded, |number, raw| {
            match (number, raw) {
                (1, Raw::Bytes(it)) => method.name = text(it)?,
                (2, Raw::Bytes(it)) => method.input = text(it)?,
                (3, Raw::Bytes(it)) => method.output = text(it)?,
                (4, Raw::Bytes(it)) => each(it, |number, raw| {
                    match (number, raw) {
                        (33, Raw::Varint(it)) => method.deprecated = it != 0,
                        (34, Raw::Varint(it)) => {
                            method.idempotency_level = u32::try_from(it).unwrap_or(0);
                        }
                        _ => {}
                    }
                    Ok(())
                })?,
                (5, Raw::Varint(it)) => method.client_streaming = it != 0,
                (6, Raw::Varint(it)) => method.server_streaming = it != 0,
                _ => {}
            }
            Ok(())
        })?;
        Ok(method)
    }

    /// What stands before an element, or else behind it.
    fn comments<'a>(&mut self, info: &'a [u8], found: &mut HashMap<Vec<u32>, &'a str>) -> Read {
        each(info, |number, raw| {
            let (1, Raw::Bytes(location)) = (number, raw) else {
                return Ok(());
            };
            let (mut path, mut leading, mut trailing) = (Vec::new(), "", "");
            each(location, |number, raw| {
                match (number, raw) {
                    // The paths that matter are short.
                    (1, Raw::Bytes(mut packed)) if packed.len() <= 512 => {
                        while !packed.is_empty() {
                            let step = wire::varint(&mut packed).ok_or(Malformed)?;
                            path.push(u32::try_from(step).map_err(|_| Malformed)?);
                        }
                    }
                    (3, Raw::Bytes(it)) => leading = text(it)?,
                    (4, Raw::Bytes(it)) => trailing = text(it)?,
                    _ => {}
                }
                Ok(())
            })?;
            let comment = [leading, trailing]
                .into_iter()
                .find(|it| !it.trim().is_empty());
            if let Some(comment) = comment {
                self.count()?;
                found.insert(path, comment);
            }
            Ok(())
        })
    }
}

fn field_options<'a>(options: &'a [u8], field: &mut Field<'a>) -> Read {
    let behavior = |it: u64| {
        1u32.checked_shl(u32::try_from(it).unwrap_or(u32::MAX))
            .unwrap_or(0)
    };
    each(options, |number, raw| {
        match (number, raw) {
            (2, Raw::Varint(it)) => field.packed = Some(it != 0),
            (3, Raw::Varint(it)) => field.deprecated = it != 0,
            (21, Raw::Bytes(it)) => field.features.read(it).ok_or(Malformed)?,
            (FIELD_BEHAVIOR, Raw::Varint(it)) => field.behaviors |= behavior(it),
            (FIELD_BEHAVIOR, Raw::Bytes(mut packed)) => {
                while !packed.is_empty() {
                    field.behaviors |= behavior(wire::varint(&mut packed).ok_or(Malformed)?);
                }
            }
            (VALIDATE, Raw::Bytes(it)) => field.rules = it,
            _ => {}
        }
        Ok(())
    })
}
