//! Protobuf's wire format, read without copying, and written with lengths that are known
//! late (<https://protobuf.dev/programming-guides/encoding/>).

/// How deep groups are followed that nobody knows; other decoders give up at 100 as well.
const MAX_GROUPS: usize = 100;

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Raw<'a> {
    /// An integer, a bool or an enum.
    Varint(u64),
    /// Eight bytes.
    Fixed64(u64),
    /// A string, bytes, a message, or packed numbers.
    Bytes(&'a [u8]),
    /// The fields of a message, without the tags around them.
    Group(&'a [u8]),
    /// Four bytes.
    Fixed32(u32),
}

/// The wire types, as tags have them.
pub(crate) const VARINT: u32 = 0;
pub(crate) const FIXED64: u32 = 1;
pub(crate) const BYTES: u32 = 2;
pub(crate) const START_GROUP: u32 = 3;
pub(crate) const END_GROUP: u32 = 4;
pub(crate) const FIXED32: u32 = 5;

/// The next field of a message, of which something is left: its number and what it holds.
/// `None` if it is malformed.
#[inline]
pub(crate) fn field<'a>(left: &mut &'a [u8]) -> Option<(u32, Raw<'a>)> {
    let (number, wire_type) = tag(left)?;
    let raw = match wire_type {
        VARINT => Raw::Varint(varint(left)?),
        FIXED64 => Raw::Fixed64(fixed64(left)?),
        BYTES => Raw::Bytes(delimited(left)?),
        START_GROUP => Raw::Group(group(number, left, MAX_GROUPS)?),
        FIXED32 => Raw::Fixed32(fixed32(left)?),
        _ => return None,
    };
    Some((number, raw))
}

/// The fields up to the end of the group `number`, whose beginning was read.
fn group<'a>(number: u32, left: &mut &'a [u8], depth: usize) -> Option<&'a [u8]> {
    let depth = depth.checked_sub(1)?;
    let all = *left;
    loop {
        let before = left.len();
        let (inner, wire_type) = tag(left)?;
        match wire_type {
            VARINT => drop(varint(left)?),
            FIXED64 => drop(fixed64(left)?),
            BYTES => drop(delimited(left)?),
            START_GROUP => drop(group(inner, left, depth)?),
            END_GROUP if inner == number => return all.get(..all.len() - before),
            FIXED32 => drop(fixed32(left)?),
            _ => return None,
        }
    }
}

/// A field's number and wire type, which together have 32 bits at most.
#[inline]
fn tag(left: &mut &[u8]) -> Option<(u32, u32)> {
    let tag = u32::try_from(varint(left)?).ok()?;
    (tag >> 3 != 0).then_some((tag >> 3, tag & 7))
}

#[inline]
pub(crate) fn delimited<'a>(left: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(varint(left)?).ok()?;
    left.split_off(..length)
}

/// Goes over a length-delimited field with this tag, if it is next and is shorter than 128
/// bytes, as most are.
#[inline]
pub(crate) fn short<'a>(left: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    let [found, length @ 0..0x80, rest @ ..] = *left else {
        return None;
    };
    let (field, rest) = rest.split_at_checked(usize::from(*length))?;
    (*found == tag).then(|| *left = rest)?;
    Some(field)
}

#[inline]
pub(crate) fn fixed64(left: &mut &[u8]) -> Option<u64> {
    let bytes = left.split_off(..8)?.try_into().ok()?;
    Some(u64::from_le_bytes(bytes))
}

#[inline]
pub(crate) fn fixed32(left: &mut &[u8]) -> Option<u32> {
    let bytes = left.split_off(..4)?.try_into().ok()?;
    Some(u32::from_le_bytes(bytes))
}

#[inline]
pub(crate) fn varint(left: &mut &[u8]) -> Option<u64> {
    let (&first, rest) = left.split_first()?;
    if first < 0x80 {
        *left = rest;
        return Some(first.into());
    }
    long_varint(left)
}

fn long_varint(left: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for (index, &byte) in left.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            *left = &left[index + 1..];
            // Of the tenth byte one bit is left.
            return (index < 9 || byte < 2).then_some(value);
        }
    }
    None
}

/// How many bytes a number takes as a varint.
#[inline]
pub(crate) fn varint_len(value: u64) -> usize {
    (70 - (value | 1).leading_zeros() as usize) / 7
}

#[inline]
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[inline]
pub(crate) fn put_tag(out: &mut Vec<u8>, number: u32, wire_type: u32) {
    put_varint(out, u64::from(number << 3 | wire_type));
}

/// Writes a length-delimited field.
#[inline]
pub(crate) fn put_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_tag(out, number, BYTES);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Begins a length-delimited field whose length is not known yet, for [`end`].
#[inline]
pub(crate) fn begin(out: &mut Vec<u8>, number: u32) -> usize {
    put_tag(out, number, BYTES);
    begin_length(out)
}

/// As [`begin`], the tag being written already.
#[inline]
pub(crate) fn begin_length(out: &mut Vec<u8>) -> usize {
    out.push(0);
    out.len()
}

/// Ends the field that began at `start`: writes its length before it.
#[inline]
pub(crate) fn end(out: &mut Vec<u8>, start: usize) {
    let length = out.len() - start;
    if let Ok(short @ 0..0x80) = u8::try_from(length) {
        out[start - 1] = short;
    } else {
        end_long(out, start);
    }
}

fn end_long(out: &mut Vec<u8>, start: usize) {
    let end = out.len();
    let mut length = (end - start) as u64;
    let more = varint_len(length) - 1;
    out.resize(end + more, 0);
    out.copy_within(start..end, start + more);
    for byte in &mut out[start - 1..start + more] {
        *byte = length as u8 | 0x80;
        length >>= 7;
    }
    out[start + more - 1] &= 0x7f;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_are_read_as_they_are_written() {
        let numbers = (0..64).flat_map(|bit| [1 << bit, (1 << bit) - 1, u64::MAX >> bit]);
        for number in numbers {
            let mut out = Vec::new();
            put_varint(&mut out, number);
            assert_eq!(out.len(), varint_len(number), "{number}");
            let mut left = out.as_slice();
            assert_eq!((varint(&mut left), left.len()), (Some(number), 0));
        }
        assert_eq!(varint(&mut [0xff; 9].as_slice()), None);
        let too_long = [[0xff; 9].as_slice(), &[2]].concat();
        assert_eq!(varint(&mut too_long.as_slice()), None);
        assert_eq!(varint(&mut [0xff; 11].as_slice()), None);
    }

    #[test]
    fn lengths_are_put_before_what_they_measure() {
        for length in [0, 1, 127, 128, 16_383, 16_384, 3_000_000] {
            let mut out = vec![7];
            let start = begin(&mut out, 3);
            out.resize(start + length, 9);
            end(&mut out, start);
            out.push(8);
            let mut left = &out[1..];
            assert_eq!(field(&mut left), Some((3, Raw::Bytes(&vec![9; length]))));
            assert_eq!((out[0], left), (7, [8].as_slice()));
        }
    }

    #[test]
    fn groups_end_where_they_began() {
        let group = [0x0b, 0x13, 0x08, 0x01, 0x14, 0x0c, 0x08];
        let mut left = group.as_slice();
        let expected = Raw::Group(&group[1..5]);
        assert_eq!(field(&mut left), Some((1, expected)));
        assert_eq!(left, [8]);
        for wrong in [
            [0x0b, 0x14].as_slice(),
            &[0x0c],
            &[0x0b],
            &[0x0e, 0],
            &[0x03, 0x04],
        ] {
            assert_eq!(field(&mut &*wrong), None, "{wrong:?}");
        }
        assert_eq!(field(&mut [0x0b; 100_000].as_slice()), None);
    }
}
