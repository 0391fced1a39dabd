//! Trees out of `google.protobuf.Struct` and `Value`, and into them.

use std::{borrow::Cow, str::from_utf8};

use bytes::Bytes;

use super::{MAX_DEPTH, Node, Number, integer, keep_last, text::too_deep};
use crate::{
    core::error::Violation,
    json::{
        path::{Path, Violations},
        wire::{self, Raw},
    },
};

/// How deep messages may nest in what is encoded here. Decoders give up at 100, and the
/// arguments lie a few levels deep in their request.
const MAX_MESSAGES: usize = 95;

/// The tag of a struct's entries, a list's items and an entry's key.
const FIRST: u8 = 1 << 3 | wire::BYTES as u8;
/// The tag of an entry's value.
const SECOND: u8 = 2 << 3 | wire::BYTES as u8;
/// The tags of `Value`'s members.
const NULL: u8 = 1 << 3;
const NUMBER: u8 = 2 << 3 | wire::FIXED64 as u8;
const STRING: u8 = 3 << 3 | wire::BYTES as u8;
const BOOL: u8 = 4 << 3;

pub(super) fn read_struct(encoded: &[u8]) -> Result<Node<'_>, Vec<Violation>> {
    let mut reader = Reader {
        lenient: false,
        violations: Violations::default(),
    };
    // Few members take less than this; more of them cost an allocation or two.
    const MEMBER_BYTES: usize = 20;
    let mut members = Vec::with_capacity((encoded.len() / MEMBER_BYTES).min(256));
    let root = Path::root("arguments");
    if reader
        .members(&mut members, encoded, &root, MAX_DEPTH - 1)
        .is_none()
    {
        reader.violations = Violations::default();
        reader
            .violations
            .add(&root, "must be an encoded google.protobuf.Struct");
    }
    reader.violations.or(Node::Object(members))
}

/// Which of the messages of `struct.proto` it is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Shape {
    Struct,
    Value,
    List,
}

/// Reads what a tool answered, `depth` levels deep at most: numbers that are not finite
/// become text, and a value of no kind becomes null. `None` if it does not decode.
pub(crate) fn read_lenient(encoded: &[u8], shape: Shape, depth: usize) -> Option<Node<'_>> {
    let mut reader = Reader {
        lenient: true,
        violations: Violations::default(),
    };
    let path = Path::root("");
    let node = match shape {
        Shape::Value => {
            let mut node = None;
            reader.value(&mut node, encoded, &path, depth)?;
            node.unwrap_or(Node::Null)
        }
        Shape::Struct => {
            let mut members = Vec::new();
            reader.members(&mut members, encoded, &path, depth.checked_sub(1)?)?;
            Node::Object(members)
        }
        Shape::List => {
            let mut items = Vec::new();
            reader.items(&mut items, encoded, &path, depth.checked_sub(1)?)?;
            Node::List(items)
        }
    };
    reader.violations.or(node).ok()
}

struct Reader {
    lenient: bool,
    violations: Violations,
}

// Each of these is `None` for what does not decode.

impl Reader {
    /// Adds the fields of a `Struct` to what it has.
    fn members<'a>(
        &mut self,
        members: &mut Vec<(Cow<'a, str>, Node<'a>)>,
        mut left: &'a [u8],
        path: &Path<'_>,
        depth: usize,
    ) -> Option<()> {
        while !left.is_empty() {
            if let Some(entry) = wire::short(&mut left, FIRST) {
                members.push(self.entry(entry, path, depth)?);
                continue;
            }
            match wire::field(&mut left)? {
                (1, Raw::Bytes(entry)) => members.push(self.entry(entry, path, depth)?),
                (1, _) => return None,
                _ => {}
            }
        }
        keep_last(members);
        Some(())
    }

    /// An entry of the map `Struct.fields`.
    fn entry<'a>(
        &mut self,
        entry: &'a [u8],
        path: &Path<'_>,
        depth: usize,
    ) -> Option<(Cow<'a, str>, Node<'a>)> {
        let mut left = entry;
        if let Some(key) = wire::short(&mut left, FIRST)
            && let Some(value) = wire::short(&mut left, SECOND)
            && left.is_empty()
            && let Some(node) = scalar(value)
        {
            return Some((Cow::Borrowed(from_utf8(key).ok()?), node));
        }
        let mut key = "";
        let mut left = entry;
        let mut value = None;
        let mut values = 0;
        while !left.is_empty() {
            match wire::field(&mut left)? {
                (1, Raw::Bytes(text)) => key = from_utf8(text).ok()?,
                (2, Raw::Bytes(encoded)) => {
                    value = Some(encoded);
                    values += 1;
                }
                (1 | 2, _) => return None,
                _ => {}
            }
        }
        let path = path.key(key);
        let mut node = None;
        if values < 2 {
            self.merge(&mut node, value.unwrap_or_default(), &path, depth)?;
        } else {
            let mut left = entry;
            while !left.is_empty() {
                if let (2, Raw::Bytes(encoded)) = wire::field(&mut left)? {
                    self.merge(&mut node, encoded, &path, depth)?;
                }
            }
        }
        Some((Cow::Borrowed(key), self.known(node, &path)))
    }

    fn value<'a>(
        &mut self,
        node: &mut Option<Node<'a>>,
        encoded: &'a [u8],
        path: &Path<'_>,
        depth: usize,
    ) -> Option<()> {
        self.merge(node, encoded, path, depth)
    }

    fn known<'a>(&mut self, node: Option<Node<'a>>, path: &Path<'_>) -> Node<'a> {
        if node.is_none() && !self.lenient {
            self.violations
                .add(path, "must have a value, is a Value of no kind");
        }
        node.unwrap_or(Node::Null)
    }

    /// Merges the fields of a `Value` into what it is so far. Of those of a oneof the last
    /// one is set, and clears the others; if it is a message that is set already, the two
    /// are merged.
    fn merge<'a>(
        &mut self,
        node: &mut Option<Node<'a>>,
        mut left: &'a [u8],
        path: &Path<'_>,
        depth: usize,
    ) -> Option<()> {
        while !left.is_empty() {
            let next = match wire::field(&mut left)? {
                (1, Raw::Varint(_)) => Node::Null,
                (2, Raw::Fixed64(bits)) => self.number(f64::from_bits(bits), path),
                (3, Raw::Bytes(text)) => Node::Text(Cow::Borrowed(from_utf8(text).ok()?)),
                (4, Raw::Varint(flag)) => Node::Bool(flag != 0),
                (5 | 6, Raw::Bytes(_)) if depth == 0 => {
                    self.violations.add(path, too_deep());
                    Node::Null
                }
                (5, Raw::Bytes(encoded)) => {
                    let mut members = match node.take() {
                        Some(Node::Object(members)) => members,
                        _ => Vec::new(),
                    };
                    self.members(&mut members, encoded, path, depth - 1)?;
                    Node::Object(members)
                }
                (6, Raw::Bytes(encoded)) => {
                    let mut items = match node.take() {
                        Some(Node::List(items)) => items,
                        _ => Vec::new(),
                    };
                    self.items(&mut items, encoded, path, depth - 1)?;
                    Node::List(items)
                }
                // The wrong type for the field.
                (1..=6, _) => return None,
                _ => continue,
            };
            *node = Some(next);
        }
        Some(())
    }

    fn items<'a>(
        &mut self,
        items: &mut Vec<Node<'a>>,
        mut left: &'a [u8],
        path: &Path<'_>,
        depth: usize,
    ) -> Option<()> {
        while !left.is_empty() {
            match wire::field(&mut left)? {
                (1, Raw::Bytes(encoded)) => {
                    let path = path.index(items.len());
                    let mut node = None;
                    self.merge(&mut node, encoded, &path, depth)?;
                    items.push(self.known(node, &path));
                }
                (1, _) => return None,
                _ => {}
            }
        }
        Some(())
    }

    fn number<'a>(&mut self, number: f64, path: &Path<'_>) -> Node<'a> {
        if number.is_finite() {
            return Node::Number(Number::Double(number));
        }
        if !self.lenient {
            self.violations.add(path, "must be a finite number");
        }
        Node::Text(Cow::Borrowed(name_of(number)))
    }
}

/// A `Value` that is a scalar and is encoded as usual. `None` of others, which may be good.
#[inline]
fn scalar(value: &[u8]) -> Option<Node<'_>> {
    match value {
        [NUMBER, bits @ ..] => {
            let number = f64::from_le_bytes(bits.try_into().ok()?);
            number
                .is_finite()
                .then_some(Node::Number(Number::Double(number)))
        }
        [STRING, length @ 0..0x80, text @ ..] if text.len() == usize::from(*length) => {
            Some(Node::Text(Cow::Borrowed(from_utf8(text).ok()?)))
        }
        [BOOL, flag @ (0 | 1)] => Some(Node::Bool(*flag == 1)),
        [NULL, 0] => Some(Node::Null),
        _ => None,
    }
}

/// What protobuf's JSON mapping calls a number that is not finite.
pub(crate) fn name_of(number: f64) -> &'static str {
    match number {
        f64::INFINITY => "Infinity",
        f64::NEG_INFINITY => "-Infinity",
        _ => "NaN",
    }
}

pub(super) fn encode_struct(node: &Node<'_>) -> Result<Bytes, Vec<Violation>> {
    let mut violations = Violations::default();
    let root = Path::root("arguments");
    let mut out = Vec::new();
    match node {
        Node::Object(members) => {
            encode_fields(members, &mut out, &root, &mut violations, MAX_MESSAGES);
        }
        other => violations.add(&root, format!("must be an object, is {}", other.kind())),
    }
    violations.or(out.into())
}

/// Writes the fields of a `Struct`, in which messages may nest as deep as `depth`.
pub(crate) fn encode_fields(
    members: &[(Cow<'_, str>, Node<'_>)],
    out: &mut Vec<u8>,
    path: &Path<'_>,
    violations: &mut Violations,
    depth: usize,
) {
    for (key, node) in members {
        let path = path.key(key);
        let entry = wire::begin(out, 1);
        wire::put_bytes(out, 1, key.as_bytes());
        let value = wire::begin(out, 2);
        encode_value(node, out, &path, violations, depth.saturating_sub(2));
        wire::end(out, value);
        wire::end(out, entry);
    }
}

/// Writes the fields of a `ListValue`, in which messages may nest as deep as `depth`.
pub(crate) fn encode_items(
    items: &[Node<'_>],
    out: &mut Vec<u8>,
    path: &Path<'_>,
    violations: &mut Violations,
    depth: usize,
) {
    for (index, node) in items.iter().enumerate() {
        let value = wire::begin(out, 1);
        encode_value(
            node,
            out,
            &path.index(index),
            violations,
            depth.saturating_sub(1),
        );
        wire::end(out, value);
    }
}

/// Writes the fields of a `Value`, in which messages may nest as deep as `depth`.
pub(crate) fn encode_value(
    node: &Node<'_>,
    out: &mut Vec<u8>,
    path: &Path<'_>,
    violations: &mut Violations,
    depth: usize,
) {
    match node {
        Node::Null => out.extend([0x08, 0]),
        Node::Bool(flag) => out.extend([0x20, u8::from(*flag)]),
        Node::Number(number) => match exact(*number) {
            Some(number) => {
                out.push(0x11);
                out.extend(number.to_le_bytes());
            }
            None => violations.add(
                path,
                "must be an integer that a double holds exactly: write it as a string",
            ),
        },
        Node::Text(text) => wire::put_bytes(out, 3, text.as_bytes()),
        Node::List(_) | Node::Object(_) if depth < 4 => {
            violations.add(path, "is nested too deeply for protobuf");
        }
        Node::Object(members) => {
            let start = wire::begin(out, 5);
            encode_fields(members, out, path, violations, depth - 1);
            wire::end(out, start);
        }
        Node::List(items) => {
            let start = wire::begin(out, 6);
            encode_items(items, out, path, violations, depth - 1);
            wire::end(out, start);
        }
    }
}

/// The double that a number is. That a fraction is rounded is what doubles are; an integer
/// that is written as one would be another.
fn exact(number: Number<'_>) -> Option<f64> {
    let double = number.to_f64();
    let is_exact = match number {
        Number::Double(_) => true,
        Number::Digits(digits) => match integer(digits) {
            Some(integer) => double as i128 == integer || digits.contains(['e', 'E']),
            None => digits.contains(['.', 'e', 'E']),
        },
    };
    (is_exact && double.is_finite()).then_some(double)
}
