//! Whether an observation is a `google.protobuf.Value` that a caller can decode, and
//! print as JSON.
//!
//! An observation passes through undecoded, inside a response that also holds
//! those of other tools: one that does not decode would cost the caller all of
//! them, and so would one that JSON has no words for. So it is walked once, without
//! building anything, which takes some nanoseconds a field.

use std::str::from_utf8;

use crate::json::wire::{delimited, varint};

/// How deep messages may nest. Decoders give up at 100, and the observation lies
/// a few levels deep in the response.
const MAX_DEPTH: usize = 95;
/// The encoded `Value` of null.
pub(crate) const NULL: [u8; 2] = [NULL_VALUE << 3, 0];

/// The fields of `Value`: the members of its one oneof.
const NULL_VALUE: u8 = 1;
const NUMBER_VALUE: u8 = 2;
const STRING_VALUE: u8 = 3;
const BOOL_VALUE: u8 = 4;
const STRUCT_VALUE: u8 = 5;
const LIST_VALUE: u8 = 6;

/// What a `Value` has come to so far.
#[derive(Clone, Copy)]
struct Kind {
    /// The field that is set; 0 if none is.
    field: u8,
    /// Whether JSON can say it.
    has_json: bool,
}

/// Whether `encoded` is a `google.protobuf.Value` that JSON can say.
///
/// # Errors
/// With what is wrong with it.
pub(crate) fn check(encoded: &[u8]) -> Result<(), &'static str> {
    match value(encoded, MAX_DEPTH) {
        Some(true) => Ok(()),
        Some(false) => {
            Err("its observation has no JSON: a number is not finite, or a Value has no kind")
        }
        None => Err("its observation is no Value"),
    }
}

// Each of these is `None` for what does not decode, else whether it has JSON.

fn value(encoded: &[u8], depth: usize) -> Option<bool> {
    let mut kind = Kind {
        field: 0,
        has_json: false,
    };
    merge(&mut kind, encoded, depth)?;
    Some(kind.has_json)
}

/// Merges the fields of a `Value` into what it is so far. Of those of a oneof the last
/// one is set, and clears the others; if it is a message that is set already, the two
/// are merged, and what was in the first stays.
fn merge(kind: &mut Kind, mut left: &[u8], depth: usize) -> Option<()> {
    let depth = depth.checked_sub(1)?;
    while !left.is_empty() {
        let (number, wire_type) = key(&mut left)?;
        let (field, has_json) = match (number, wire_type) {
            (1 | 4, 0) => {
                varint(&mut left)?;
                (if number == 1 { NULL_VALUE } else { BOOL_VALUE }, true)
            }
            (2, 1) => {
                let bits = left.split_off(..8)?.try_into().ok()?;
                (NUMBER_VALUE, f64::from_le_bytes(bits).is_finite())
            }
            (3, 2) => {
                from_utf8(delimited(&mut left)?).ok()?;
                (STRING_VALUE, true)
            }
            (5, 2) => (STRUCT_VALUE, entries(delimited(&mut left)?, depth)?),
            (6, 2) => (LIST_VALUE, items(delimited(&mut left)?, depth)?),
            // The wrong type for the field.
            (0..=6, _) => return None,
            _ => {
                skip(number, wire_type, &mut left, depth)?;
                continue;
            }
        };
        let merges = field >= STRUCT_VALUE && field == kind.field;
        kind.has_json = has_json && (kind.has_json || !merges);
        kind.field = field;
    }
    Some(())
}

/// A `ListValue`.
fn items(mut left: &[u8], depth: usize) -> Option<bool> {
    let depth = depth.checked_sub(1)?;
    let mut has_json = true;
    while !left.is_empty() {
        match key(&mut left)? {
            (1, 2) => has_json &= value(delimited(&mut left)?, depth)?,
            (0 | 1, _) => return None,
            (number, wire_type) => skip(number, wire_type, &mut left, depth)?,
        }
    }
    Some(has_json)
}

/// A `Struct`. Of two entries with one key the last counts; here both do, for it takes
/// a strange encoder to write two.
fn entries(mut left: &[u8], depth: usize) -> Option<bool> {
    let depth = depth.checked_sub(1)?;
    let mut has_json = true;
    while !left.is_empty() {
        match key(&mut left)? {
            (1, 2) => has_json &= entry(delimited(&mut left)?, depth)?,
            (0 | 1, _) => return None,
            (number, wire_type) => skip(number, wire_type, &mut left, depth)?,
        }
    }
    Some(has_json)
}

/// An entry of the map `Struct.fields`; without a value it has one of no kind.
fn entry(mut left: &[u8], depth: usize) -> Option<bool> {
    let depth = depth.checked_sub(1)?;
    let mut kind = Kind {
        field: 0,
        has_json: false,
    };
    while !left.is_empty() {
        match key(&mut left)? {
            (1, 2) => drop(from_utf8(delimited(&mut left)?).ok()?),
            (2, 2) => merge(&mut kind, delimited(&mut left)?, depth)?,
            (0..=2, _) => return None,
            (number, wire_type) => skip(number, wire_type, &mut left, depth)?,
        }
    }
    Some(kind.has_json)
}

fn skip(number: u32, wire_type: u32, left: &mut &[u8], depth: usize) -> Option<()> {
    match wire_type {
        0 => drop(varint(left)?),
        1 => drop(left.split_off(..8)?),
        2 => drop(delimited(left)?),
        // A group: fields up to the end that has its number.
        3 => loop {
            let (inner, wire_type) = key(left)?;
            if inner == 0 {
                return None;
            }
            if wire_type == 4 {
                return (inner == number).then_some(());
            }
            skip(inner, wire_type, left, depth.checked_sub(1)?)?;
        },
        5 => drop(left.split_off(..4)?),
        _ => return None,
    }
    Some(())
}

/// A field's number and wire type, which together have 32 bits at most.
fn key(left: &mut &[u8]) -> Option<(u32, u32)> {
    let key = u32::try_from(varint(left)?).ok()?;
    Some((key >> 3, key & 7))
}

#[cfg(test)]
mod tests;
