//! Numbers, strings, bytes and enums as values of JSON.

use std::str::from_utf8;

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{Decoder, Done, Unreadable, malformed, scan::integer, too_deep, writer::Slot};
use crate::{
    json::{tree::name_of, wire::Raw},
    protobuf::types::{Field, Kind, MessageType},
};

impl<'t> Decoder<'t, '_> {
    #[inline]
    pub(super) fn scalar(
        &mut self,
        message: &'t MessageType,
        field: &'t Field,
        raw: Raw<'_>,
        slot: Slot<'_>,
        depth: usize,
    ) -> Done {
        if depth == 0 {
            return Err(too_deep());
        }
        match (field.kind, raw) {
            (Kind::String, Raw::Bytes(text)) => match from_utf8(text) {
                Ok(text) => self.writer.text(slot, text),
                Err(_) => Err(not_utf8(message, field)),
            },
            (Kind::Bool, Raw::Varint(bits)) => self.writer.boolean(slot, bits != 0),
            (Kind::Bytes, Raw::Bytes(bytes)) => {
                // The size is known before it takes the memory.
                self.writer.expect(bytes.len() / 3 * 4)?;
                self.writer.text(slot, &STANDARD.encode(bytes))
            }
            (Kind::Double, Raw::Fixed64(bits)) => self.double(slot, f64::from_bits(bits)),
            (Kind::Float, Raw::Fixed32(bits)) => self.float(slot, f32::from_bits(bits)),
            (Kind::Enum(at), Raw::Varint(bits)) => {
                let of = self.types.enumeration(at);
                let number = bits as i32;
                match of.name_of(number) {
                    _ if of.null => self.writer.null(slot),
                    Some(name) => self.writer.text(slot, name),
                    None => self.writer.number(slot, number.into()),
                }
            }
            (kind, raw) => {
                let Some(value) = integer(kind, raw) else {
                    return Err(malformed(message));
                };
                if is_64_bits(kind) {
                    self.writer.integer_text(slot, value)
                } else {
                    // These have 32 bits.
                    self.writer.number(slot, value as i64 as f64)
                }
            }
        }
    }

    pub(super) fn double(&mut self, slot: Slot<'_>, number: f64) -> Done {
        if number.is_finite() {
            self.writer.number(slot, number)
        } else {
            self.writer.text(slot, name_of(number))
        }
    }

    /// The shortest decimal that is this float: 0.1, not 0.10000000149011612.
    fn float(&mut self, slot: Slot<'_>, number: f32) -> Done {
        const WHOLE: f32 = 16_777_216.0;
        if number.fract() == 0.0 && number.abs() <= WHOLE || !number.is_finite() {
            return self.double(slot, number.into());
        }
        let shortest = number.to_string().parse();
        self.double(slot, shortest.unwrap_or_else(|_| number.into()))
    }
}

/// Kinds that doubles don't hold.
fn is_64_bits(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Int64 | Kind::Uint64 | Kind::Sint64 | Kind::Fixed64 | Kind::Sfixed64
    )
}

#[cold]
fn not_utf8(message: &MessageType, field: &Field) -> Unreadable {
    let (field, message) = (&field.name, &message.name);
    Unreadable::Invalid(format!("its answer has no UTF-8 in {field} of {message}"))
}
