//! Answers out of the wire format, by protobuf's JSON mapping, as an encoded
//! `google.protobuf.Value`.
//!
//! A message is gone over once: its fields are noted, without copying, and then written in
//! the order of their numbers, whatever order they came in. Fields that the type doesn't
//! have are dropped. Everything is bounded: the nesting, and the bytes while they are
//! written.

mod scalar;
mod scan;
mod special;
mod writer;

use bytes::Bytes;

pub(super) use self::scan::integer;
use self::{
    scan::Occurrence,
    writer::{Slot, Writer},
};
use super::types::{Cardinality, Field, Kind, Mapping, MessageType, Types};
use crate::json::wire::{self, Raw};

/// How deep messages may nest in what is written. Decoders give up at 100, and it lies a
/// few levels deep in the response.
const MAX_MESSAGES: usize = 95;
/// How many messages in `google.protobuf.Any` are decoded inside each other.
const MAX_ANY: usize = 8;

/// Why an answer can't be given on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It takes more bytes than it may.
    #[error("is too large")]
    TooLarge,
    /// It is no message of its type, or is nested too deeply; and what is wrong.
    #[error("{0}")]
    Invalid(String),
}

type Done = Result<(), Unreadable>;

/// Decodes an answer of this type into at most `max_bytes`.
pub(super) fn decode(
    types: &Types,
    message: &MessageType,
    wire: &[u8],
    max_bytes: usize,
) -> Result<Bytes, Unreadable> {
    let mut decoder = Decoder {
        types,
        writer: Writer::new(wire.len(), max_bytes),
        found: Vec::with_capacity(message.fields.len().min(64)),
        any_left: MAX_ANY,
    };
    decoder.message(message, &[wire], Slot::Root, MAX_MESSAGES)?;
    decoder.writer.finish()
}

struct Decoder<'t, 'w> {
    types: &'t Types,
    writer: Writer,
    /// The fields of the messages that are being written, the innermost last.
    found: Vec<Occurrence<'w>>,
    any_left: usize,
}

fn malformed(message: &MessageType) -> Unreadable {
    Unreadable::Invalid(format!("its answer is no {}", message.name))
}

#[cold]
fn too_deep() -> Unreadable {
    Unreadable::Invalid("its answer is nested too deeply".to_owned())
}

impl<'t, 'w> Decoder<'t, 'w> {
    /// Writes a message that came in these pieces, of which each adds to those before.
    /// `depth` is how deep the value that is written may be, itself included.
    fn message(
        &mut self,
        message: &'t MessageType,
        pieces: &[&'w [u8]],
        slot: Slot<'_>,
        depth: usize,
    ) -> Done {
        if depth < 2 {
            return Err(too_deep());
        }
        if message.mapping != Mapping::Fields {
            return self.special(message, pieces, slot, depth);
        }
        let object = self.writer.begin_struct(slot);
        self.fields(message, pieces, depth)?;
        self.writer.end(object)
    }

    /// Writes the fields of a message into the object that has begun.
    fn fields(&mut self, message: &'t MessageType, pieces: &[&'w [u8]], depth: usize) -> Done {
        let start = self.found.len();
        self.scan(message, pieces)?;
        let end = self.found.len();
        let mut at = start;
        while at < end {
            let place = self.found[at].field;
            let mut next = at + 1;
            while next < end && self.found[next].field == place {
                next += 1;
            }
            let field = &message.fields[place as usize];
            self.field(message, field, at, next, depth)?;
            at = next;
        }
        self.found.truncate(start);
        Ok(())
    }

    /// Writes a field, which was found at these places.
    #[inline]
    fn field(
        &mut self,
        message: &'t MessageType,
        field: &'t Field,
        from: usize,
        to: usize,
        depth: usize,
    ) -> Done {
        let slot = Slot::Entry(&field.json_name);
        match field.cardinality {
            Cardinality::Repeated | Cardinality::Packed => {
                let list = self.writer.begin_list(slot);
                for at in from..to {
                    self.items(message, field, at, depth.saturating_sub(5))?;
                }
                self.writer.end(list)
            }
            Cardinality::Map => self.map(field, from, to, slot, depth.saturating_sub(3)),
            _ => {
                let raw = self.found[to - 1].raw;
                if field.cardinality == Cardinality::Implicit && is_default(raw) {
                    return Ok(());
                }
                let depth = depth.saturating_sub(3);
                match field.kind.message() {
                    Some(inner) => {
                        let inner = self.types.message(inner);
                        if to - from == 1 {
                            return self.message(inner, &[bytes_of(raw)], slot, depth);
                        }
                        let pieces = self.found[from..to].iter();
                        let pieces: Vec<_> = pieces.map(|it| bytes_of(it.raw)).collect();
                        self.message(inner, &pieces, slot, depth)
                    }
                    None => self.scalar(message, field, raw, slot, depth),
                }
            }
        }
    }

    /// Writes what one occurrence adds to a list.
    fn items(
        &mut self,
        message: &'t MessageType,
        field: &'t Field,
        at: usize,
        depth: usize,
    ) -> Done {
        let raw = self.found[at].raw;
        match (field.kind.message(), raw) {
            (Some(inner), _) => {
                let inner = self.types.message(inner);
                self.message(inner, &[bytes_of(raw)], Slot::Item, depth)
            }
            (None, Raw::Bytes(mut packed)) if field.kind.is_packable() => {
                while !packed.is_empty() {
                    let raw = match field.kind.wire_type() {
                        wire::VARINT => wire::varint(&mut packed).map(Raw::Varint),
                        wire::FIXED64 => wire::fixed64(&mut packed).map(Raw::Fixed64),
                        _ => wire::fixed32(&mut packed).map(Raw::Fixed32),
                    };
                    let raw = raw.ok_or_else(|| malformed(message))?;
                    self.scalar(message, field, raw, Slot::Item, depth)?;
                }
                Ok(())
            }
            (None, _) => self.scalar(message, field, raw, Slot::Item, depth),
        }
    }

    /// Writes a map as an object, sorted by key. Of two entries with one key the last
    /// counts.
    fn map(
        &mut self,
        field: &'t Field,
        from: usize,
        to: usize,
        slot: Slot<'_>,
        depth: usize,
    ) -> Done {
        let entry = field.kind.message().map(|entry| self.types.message(entry));
        let Some((entry, [key_field, value_field])) = entry.map(|entry| (entry, &*entry.fields))
        else {
            return Ok(());
        };
        let mut entries = Vec::with_capacity(to - from);
        for at in from..to {
            let encoded = bytes_of(self.found[at].raw);
            let found = scan::entry(encoded, key_field, value_field);
            entries.push(found.ok_or_else(|| malformed(entry))?);
        }
        // Of equal ones the order remains.
        entries.sort_by(|a, b| a.key.cmp(&b.key));
        let object = self.writer.begin_struct(slot);
        for (at, found) in entries.iter().enumerate() {
            if entries
                .get(at + 1)
                .is_some_and(|next| next.key == found.key)
            {
                continue;
            }
            let name = found.key.name();
            let slot = Slot::Entry(&name);
            let depth = depth.saturating_sub(3);
            match value_field.kind.message() {
                Some(inner) => {
                    let pieces = scan::pieces(found.encoded);
                    self.message(self.types.message(inner), &pieces, slot, depth)?;
                }
                None => {
                    let raw = found.value.unwrap_or_else(|| default_of(value_field.kind));
                    self.scalar(entry, value_field, raw, slot, depth)?;
                }
            }
        }
        self.writer.end(object)
    }
}

/// The fields of a message.
#[inline]
fn bytes_of(raw: Raw<'_>) -> &[u8] {
    match raw {
        Raw::Bytes(bytes) | Raw::Group(bytes) => bytes,
        _ => &[],
    }
}

#[inline]
fn is_default(raw: Raw<'_>) -> bool {
    match raw {
        Raw::Varint(bits) | Raw::Fixed64(bits) => bits == 0,
        Raw::Fixed32(bits) => bits == 0,
        Raw::Bytes(bytes) | Raw::Group(bytes) => bytes.is_empty(),
    }
}

/// What an entry without a value has.
fn default_of(kind: Kind) -> Raw<'static> {
    match kind.wire_type() {
        wire::VARINT => Raw::Varint(0),
        wire::FIXED64 => Raw::Fixed64(0),
        wire::FIXED32 => Raw::Fixed32(0),
        _ => Raw::Bytes(&[]),
    }
}
