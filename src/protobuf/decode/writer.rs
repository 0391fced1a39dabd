//! Writes a `google.protobuf.Value`, as far as it has room.

use bytes::Bytes;

use super::{Done, Unreadable};
use crate::json::wire::{self, put_varint, varint_len};

/// How many values there may be beside those that the bytes allow.
const FREE_VALUES: usize = 1000;
/// What the shortest value takes, in bytes.
const MIN_VALUE_BYTES: usize = 4;

/// The tags of `Value`'s members.
const NULL: u8 = 1 << 3;
const NUMBER: u8 = 2 << 3 | wire::FIXED64 as u8;
const STRING: u8 = 3 << 3 | wire::BYTES as u8;
const BOOL: u8 = 4 << 3;
const STRUCT: u8 = 5 << 3 | wire::BYTES as u8;
const LIST: u8 = 6 << 3 | wire::BYTES as u8;
/// The tags of an item in `ListValue`, or of an entry in `Struct`; of its key and value.
const FIRST: u8 = 1 << 3 | wire::BYTES as u8;
const SECOND: u8 = 2 << 3 | wire::BYTES as u8;

/// An entry whose key and value are shorter together has lengths of one byte each.
const SHORT: usize = 120;

/// Where a value goes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Slot<'k> {
    /// It is what is written.
    Root,
    /// Into the list that has begun.
    Item,
    /// Into the object that has begun, under this key.
    Entry(&'k str),
}

/// An object or a list that has begun: the places of the lengths that are not known yet;
/// 0 if there is none.
#[derive(Clone, Copy, Debug)]
pub(super) struct Begun {
    entry: usize,
    value: usize,
    inner: usize,
}

#[derive(Debug)]
pub(super) struct Writer {
    out: Vec<u8>,
    max_bytes: usize,
}

impl Writer {
    /// For an answer of so many bytes.
    pub(super) fn new(wire: usize, max_bytes: usize) -> Self {
        let expected = (64 + 3 * wire).min(max_bytes);
        Self {
            out: Vec::with_capacity(expected),
            max_bytes,
        }
    }

    pub(super) fn finish(self) -> Result<Bytes, Unreadable> {
        if self.out.len() > self.max_bytes {
            return Err(Unreadable::TooLarge);
        }
        Ok(self.out.into())
    }

    /// How many values there may be at most.
    pub(super) fn max_values(&self) -> usize {
        self.max_bytes / MIN_VALUE_BYTES + FREE_VALUES
    }

    /// Whether there is room for so many bytes more.
    #[inline]
    pub(super) fn expect(&self, bytes: usize) -> Done {
        if self.out.len() + bytes > self.max_bytes {
            return Err(Unreadable::TooLarge);
        }
        Ok(())
    }

    /// Writes all that is before a value of so many bytes.
    #[inline]
    fn open(&mut self, slot: Slot<'_>, value: usize) -> Done {
        match slot {
            Slot::Root => self.expect(value)?,
            Slot::Item => {
                self.expect(value + 2)?;
                self.out.push(FIRST);
                put_varint(&mut self.out, value as u64);
            }
            Slot::Entry(key) if key.len() + value < SHORT => {
                let entry = key.len() + value + 4;
                self.expect(entry + 2)?;
                let head = [FIRST, entry as u8, FIRST, key.len() as u8];
                self.out.extend_from_slice(&head);
                self.out.extend_from_slice(key.as_bytes());
                self.out.extend_from_slice(&[SECOND, value as u8]);
            }
            Slot::Entry(key) => {
                let key_bytes = 1 + varint_len(key.len() as u64) + key.len();
                let entry = key_bytes + 1 + varint_len(value as u64) + value;
                self.expect(entry + 2)?;
                self.out.push(FIRST);
                put_varint(&mut self.out, entry as u64);
                self.key(key);
                self.out.push(SECOND);
                put_varint(&mut self.out, value as u64);
            }
        }
        Ok(())
    }

    #[inline]
    fn key(&mut self, key: &str) {
        self.out.push(FIRST);
        put_varint(&mut self.out, key.len() as u64);
        self.out.extend_from_slice(key.as_bytes());
    }

    pub(super) fn null(&mut self, slot: Slot<'_>) -> Done {
        self.open(slot, 2)?;
        self.out.extend_from_slice(&[NULL, 0]);
        Ok(())
    }

    pub(super) fn boolean(&mut self, slot: Slot<'_>, flag: bool) -> Done {
        self.open(slot, 2)?;
        self.out.extend_from_slice(&[BOOL, u8::from(flag)]);
        Ok(())
    }

    pub(super) fn number(&mut self, slot: Slot<'_>, number: f64) -> Done {
        self.open(slot, 9)?;
        self.out.push(NUMBER);
        self.out.extend_from_slice(&number.to_le_bytes());
        Ok(())
    }

    #[inline]
    pub(super) fn text(&mut self, slot: Slot<'_>, text: &str) -> Done {
        self.utf8(slot, text.as_bytes())
    }

    /// A string whose bytes are known to be UTF-8.
    #[inline]
    fn utf8(&mut self, slot: Slot<'_>, text: &[u8]) -> Done {
        let length = text.len() as u64;
        self.open(slot, 1 + varint_len(length) + text.len())?;
        self.out.push(STRING);
        put_varint(&mut self.out, length);
        self.out.extend_from_slice(text);
        Ok(())
    }

    /// An integer as a string.
    pub(super) fn integer_text(&mut self, slot: Slot<'_>, value: i128) -> Done {
        let mut digits = [0; 21];
        let mut at = digits.len();
        // The integers of protobuf have 64 bits at most.
        let mut left = value.unsigned_abs() as u64;
        loop {
            at -= 1;
            digits[at] = b'0' + (left % 10) as u8;
            left /= 10;
            if left == 0 {
                break;
            }
        }
        if value < 0 {
            at -= 1;
            digits[at] = b'-';
        }
        self.utf8(slot, &digits[at..])
    }

    pub(super) fn begin_struct(&mut self, slot: Slot<'_>) -> Begun {
        self.begin(slot, STRUCT)
    }

    pub(super) fn begin_list(&mut self, slot: Slot<'_>) -> Begun {
        self.begin(slot, LIST)
    }

    fn begin(&mut self, slot: Slot<'_>, tag: u8) -> Begun {
        let mut begun = Begun {
            entry: 0,
            value: 0,
            inner: 0,
        };
        match slot {
            Slot::Root => {}
            Slot::Item => {
                self.out.push(FIRST);
                begun.value = wire::begin_length(&mut self.out);
            }
            Slot::Entry(key) => {
                self.out.push(FIRST);
                begun.entry = wire::begin_length(&mut self.out);
                self.key(key);
                self.out.push(SECOND);
                begun.value = wire::begin_length(&mut self.out);
            }
        }
        self.out.push(tag);
        begun.inner = wire::begin_length(&mut self.out);
        begun
    }

    pub(super) fn end(&mut self, begun: Begun) -> Done {
        for start in [begun.inner, begun.value, begun.entry] {
            if start != 0 {
                wire::end(&mut self.out, start);
            }
        }
        self.expect(0)
    }

    /// Writes a value that is at hand.
    pub(super) fn encoded(&mut self, slot: Slot<'_>, value: &[u8]) -> Done {
        self.open(slot, value.len())?;
        self.out.extend_from_slice(value);
        Ok(())
    }
}
