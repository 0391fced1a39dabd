//! Messages that JSON doesn't have as objects of their fields.

use std::str::from_utf8;

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{Decoder, Done, MAX_MESSAGES, Unreadable, malformed, too_deep, writer::Slot};
use crate::{
    json::{
        path::{Path, Violations},
        tree::{MAX_DEPTH, Shape, encode_value, read_lenient},
        wire::{self, Raw},
    },
    protobuf::{
        names::camel_path,
        time,
        types::{Mapping, MessageType},
    },
};

impl<'t, 'w> Decoder<'t, 'w> {
    pub(super) fn special(
        &mut self,
        message: &'t MessageType,
        pieces: &[&'w [u8]],
        slot: Slot<'_>,
        depth: usize,
    ) -> Done {
        match message.mapping {
            // `message` has seen to it.
            Mapping::Fields => Ok(()),
            Mapping::Wrapper => self.wrapper(message, pieces, slot, depth),
            Mapping::Any => self.any(message, pieces, slot, depth),
            Mapping::Timestamp | Mapping::Duration => self.time(message, pieces, slot),
            Mapping::FieldMask => self.field_mask(message, pieces, slot),
            Mapping::Struct => self.json(message, Shape::Struct, pieces, slot, depth),
            Mapping::Value => self.json(message, Shape::Value, pieces, slot, depth),
            Mapping::ListValue => self.json(message, Shape::List, pieces, slot, depth),
        }
    }

    fn wrapper(
        &mut self,
        message: &'t MessageType,
        pieces: &[&'w [u8]],
        slot: Slot<'_>,
        depth: usize,
    ) -> Done {
        let Some(field) = message.fields.first() else {
            return Err(malformed(message));
        };
        let start = self.found.len();
        self.scan(message, pieces)?;
        let raw = self.found[start..].last().map(|it| it.raw);
        self.found.truncate(start);
        let raw = raw.unwrap_or_else(|| super::default_of(field.kind));
        self.scalar(message, field, raw, slot, depth)
    }

    /// The seconds and nanoseconds as text; if they have none, as the fields that they are.
    fn time(&mut self, message: &MessageType, pieces: &[&[u8]], slot: Slot<'_>) -> Done {
        let (mut seconds, mut nanos) = (0, 0);
        each(message, pieces, |number, raw| {
            match (number, raw) {
                (1, Raw::Varint(bits)) => seconds = bits as i64,
                (2, Raw::Varint(bits)) => nanos = bits as i32,
                _ => {}
            }
            Some(())
        })?;
        let text = match message.mapping {
            Mapping::Duration => time::format_duration(seconds, nanos),
            _ => time::format_timestamp(seconds, nanos),
        };
        if let Some(text) = text {
            return self.writer.text(slot, &text);
        }
        let object = self.writer.begin_struct(slot);
        self.writer
            .integer_text(Slot::Entry("seconds"), seconds.into())?;
        self.writer.number(Slot::Entry("nanos"), nanos.into())?;
        self.writer.end(object)
    }

    fn field_mask(&mut self, message: &MessageType, pieces: &[&[u8]], slot: Slot<'_>) -> Done {
        let mut mask = String::new();
        each(message, pieces, |number, raw| {
            if let (1, Raw::Bytes(path)) = (number, raw) {
                let path = from_utf8(path).ok()?;
                if !mask.is_empty() {
                    mask.push(',');
                }
                // What JSON has no name for is as the `.proto` has it.
                mask.push_str(camel_path(path).as_deref().unwrap_or(path));
            }
            Some(())
        })?;
        self.writer.text(slot, &mask)
    }

    /// What is JSON already.
    fn json(
        &mut self,
        message: &MessageType,
        shape: Shape,
        pieces: &[&[u8]],
        slot: Slot<'_>,
        depth: usize,
    ) -> Done {
        let joined;
        let encoded = match pieces {
            [one] => one,
            several => {
                joined = several.concat();
                joined.as_slice()
            }
        };
        let node = read_lenient(encoded, shape, MAX_DEPTH).ok_or_else(|| malformed(message))?;
        let mut value = Vec::with_capacity(encoded.len() + 8);
        let mut violations = Violations::default();
        let depth = depth.min(MAX_MESSAGES);
        encode_value(&node, &mut value, &Path::root(""), &mut violations, depth);
        violations.or(()).map_err(|_| too_deep())?;
        self.writer.encoded(slot, &value)
    }

    fn any(
        &mut self,
        message: &'t MessageType,
        pieces: &[&'w [u8]],
        slot: Slot<'_>,
        depth: usize,
    ) -> Done {
        const TYPE: &str = "@type";
        let (mut url, mut value): (_, &'w [u8]) = ("", &[]);
        for piece in pieces {
            let mut left = *piece;
            while !left.is_empty() {
                match wire::field(&mut left) {
                    Some((1, Raw::Bytes(it))) => {
                        url = from_utf8(it).map_err(|_| malformed(message))?;
                    }
                    Some((2, Raw::Bytes(it))) => value = it,
                    Some(_) => {}
                    None => return Err(malformed(message)),
                }
            }
        }
        let object = self.writer.begin_struct(slot);
        if url.is_empty() && value.is_empty() {
            return self.writer.end(object);
        }
        self.writer.text(Slot::Entry(TYPE), url)?;
        let known = url
            .rsplit_once('/')
            .and_then(|(_, name)| self.types.usable(name).ok());
        match known.filter(|_| self.any_left > 0) {
            Some(inner) => {
                let inner = self.types.message(inner);
                self.any_left -= 1;
                if inner.mapping == Mapping::Fields {
                    self.fields(inner, &[value], depth)?;
                } else {
                    let slot = Slot::Entry("value");
                    self.message(inner, &[value], slot, depth.saturating_sub(3))?;
                }
                self.any_left += 1;
            }
            // A type that nobody knows, or one too deep to be looked into.
            None => {
                self.writer.expect(value.len() / 3 * 4)?;
                self.writer
                    .text(Slot::Entry("value"), &STANDARD.encode(value))?;
            }
        }
        self.writer.end(object)
    }
}

/// Goes over the fields of a message that came in pieces.
fn each<'w>(
    message: &MessageType,
    pieces: &[&'w [u8]],
    mut field: impl FnMut(u32, Raw<'w>) -> Option<()>,
) -> Result<(), Unreadable> {
    for piece in pieces {
        let mut left = *piece;
        while !left.is_empty() {
            let next = wire::field(&mut left);
            let done = next.and_then(|(number, raw)| field(number, raw));
            done.ok_or_else(|| malformed(message))?;
        }
    }
    Ok(())
}
