//! Which fields a message has, and where.

use std::{borrow::Cow, str::from_utf8};

use super::{Decoder, Done, Unreadable, malformed};
use crate::{
    json::wire::{self, Raw},
    protobuf::{
        oneofs::PerOneof,
        types::{Cardinality, Field, Kind, MessageType},
    },
};

/// A field that was found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Occurrence<'w> {
    /// Its place in the message type.
    pub(super) field: u32,
    pub(super) raw: Raw<'w>,
}

/// The last member of a oneof that was found, and the first place from which it counts:
/// setting another member had cleared it before.
#[derive(Clone, Copy)]
struct Last {
    field: u32,
    from: usize,
}

impl<'w> Decoder<'_, 'w> {
    /// Adds the fields of a message to those that were found, sorted by number. Of a
    /// oneof only the member that was last.
    pub(super) fn scan(&mut self, message: &MessageType, pieces: &[&'w [u8]]) -> Done {
        let start = self.found.len();
        let mut sorted = true;
        let mut last = 0;
        let mut oneofs = PerOneof::new();
        let mut cleared = false;
        for piece in pieces {
            let mut left = *piece;
            while !left.is_empty() {
                let Some((number, raw)) = wire::field(&mut left) else {
                    return Err(malformed(message));
                };
                let Some(place) = message.numbered(number, last) else {
                    continue;
                };
                let field = &message.fields[place];
                if !fits(field, raw) {
                    continue;
                }
                sorted &= last <= place;
                last = place;
                let at = u32::try_from(place).unwrap_or(u32::MAX);
                if let Some(oneof) = field.oneof {
                    let member: Option<Last> = oneofs.get(oneof);
                    if member.is_none_or(|it| it.field != at) {
                        cleared |= member.is_some();
                        let from = self.found.len();
                        oneofs.set(oneof, Last { field: at, from });
                    }
                }
                let occurrence = Occurrence { field: at, raw };
                match self.found[start..].last_mut() {
                    // Of a value that is there twice the last counts.
                    Some(before) if before.field == at && is_replaced(field) => {
                        *before = occurrence
                    }
                    _ => {
                        // Each takes some bytes when it is written, unless a hostile one
                        // repeats fields that are not repeated.
                        if self.found.len() > self.writer.max_values() {
                            return Err(Unreadable::TooLarge);
                        }
                        self.found.push(occurrence);
                    }
                }
            }
        }
        if cleared {
            let mut at = start;
            let mut kept = start;
            while at < self.found.len() {
                let it = self.found[at];
                let oneof = message.fields[it.field as usize].oneof;
                let member = oneof.and_then(|oneof| oneofs.get(oneof));
                if member.is_none_or(|last| last.field == it.field && at >= last.from) {
                    self.found[kept] = it;
                    kept += 1;
                }
                at += 1;
            }
            self.found.truncate(kept);
        }
        if !sorted {
            self.found[start..].sort_by_key(|it| it.field);
        }
        Ok(())
    }
}

fn is_replaced(field: &Field) -> bool {
    field.cardinality.is_singular() && field.kind.message().is_none()
}

/// Whether this is how the field may be encoded; otherwise it is a field that nobody
/// knows, as it is for other decoders.
#[inline]
fn fits(field: &Field, raw: Raw<'_>) -> bool {
    let expected = field.kind.wire_type();
    match raw {
        Raw::Varint(_) => expected == wire::VARINT,
        Raw::Fixed64(_) => expected == wire::FIXED64,
        Raw::Fixed32(_) => expected == wire::FIXED32,
        Raw::Group(_) => expected == wire::START_GROUP,
        Raw::Bytes(_) => {
            let repeated = matches!(
                field.cardinality,
                Cardinality::Repeated | Cardinality::Packed
            );
            expected == wire::BYTES || (repeated && field.kind.is_packable())
        }
    }
}

/// The key of a map, in the order in which keys are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key<'w> {
    Text(&'w str),
    Number(i128),
    Bool(bool),
}

impl<'w> Key<'w> {
    /// As JSON has it.
    pub(super) fn name(self) -> Cow<'w, str> {
        match self {
            Self::Text(text) => Cow::Borrowed(text),
            Self::Number(number) => Cow::Owned(number.to_string()),
            Self::Bool(true) => Cow::Borrowed("true"),
            Self::Bool(false) => Cow::Borrowed("false"),
        }
    }

    fn new(kind: Kind, raw: Raw<'w>) -> Option<Self> {
        Some(match (kind, raw) {
            (Kind::String, Raw::Bytes(text)) => Self::Text(from_utf8(text).ok()?),
            (Kind::Bool, Raw::Varint(bits)) => Self::Bool(bits != 0),
            _ => Self::Number(integer(kind, raw)?),
        })
    }
}

/// The integer that a value of an integer kind is.
#[inline]
pub(in crate::protobuf) fn integer(kind: Kind, raw: Raw<'_>) -> Option<i128> {
    Some(match (kind, raw) {
        (Kind::Int32, Raw::Varint(bits)) => i128::from(bits as i32),
        (Kind::Int64, Raw::Varint(bits)) => i128::from(bits as i64),
        (Kind::Uint32, Raw::Varint(bits)) => i128::from(bits as u32),
        (Kind::Uint64, Raw::Varint(bits)) => i128::from(bits),
        (Kind::Sint32, Raw::Varint(bits)) => {
            let bits = bits as u32;
            i128::from((bits >> 1) as i32 ^ -((bits & 1) as i32))
        }
        (Kind::Sint64, Raw::Varint(bits)) => i128::from((bits >> 1) as i64 ^ -((bits & 1) as i64)),
        (Kind::Fixed32, Raw::Fixed32(bits)) => i128::from(bits),
        (Kind::Sfixed32, Raw::Fixed32(bits)) => i128::from(bits as i32),
        (Kind::Fixed64, Raw::Fixed64(bits)) => i128::from(bits),
        (Kind::Sfixed64, Raw::Fixed64(bits)) => i128::from(bits as i64),
        _ => return None,
    })
}

/// An entry of a map.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'w> {
    pub(super) key: Key<'w>,
    /// The last one.
    pub(super) value: Option<Raw<'w>>,
    pub(super) encoded: &'w [u8],
}

/// `None` if it is malformed.
pub(super) fn entry<'w>(encoded: &'w [u8], key: &Field, value: &Field) -> Option<Entry<'w>> {
    let mut found = (super::default_of(key.kind), None);
    let mut left = encoded;
    while !left.is_empty() {
        match wire::field(&mut left)? {
            (1, raw) if fits(key, raw) => found.0 = raw,
            (2, raw) if fits(value, raw) => found.1 = Some(raw),
            _ => {}
        }
    }
    Some(Entry {
        key: Key::new(key.kind, found.0)?,
        value: found.1,
        encoded,
    })
}

/// The message that is the value of an entry: usually one piece.
pub(super) fn pieces(mut entry: &[u8]) -> Vec<&[u8]> {
    let mut pieces = Vec::new();
    while !entry.is_empty() {
        match wire::field(&mut entry) {
            Some((2, Raw::Bytes(piece))) => pieces.push(piece),
            Some(_) => {}
            None => break,
        }
    }
    pieces
}
