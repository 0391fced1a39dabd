//! Numbers, strings, bytes and enums.

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};

use super::{Encoder, Written};
use crate::{
    json::{
        path::Path,
        tree::{Node, Number, integer},
        wire,
    },
    protobuf::types::{EnumType, Field, Kind},
};

const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// 2^53: beyond, a double may stand for another integer than its writer meant.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// The range of an integer kind, as messages show it.
struct Range {
    min: i128,
    max: i128,
    name: &'static str,
}

const INT32: Range = Range {
    min: i32::MIN as i128,
    max: i32::MAX as i128,
    name: "a whole number of 32 bits",
};
const UINT32: Range = Range {
    min: 0,
    max: u32::MAX as i128,
    name: "a whole number of 32 bits, not negative",
};
const INT64: Range = Range {
    min: i64::MIN as i128,
    max: i64::MAX as i128,
    name: "a whole number of 64 bits",
};
const UINT64: Range = Range {
    min: 0,
    max: u64::MAX as i128,
    name: "a whole number of 64 bits, not negative",
};

impl Encoder<'_> {
    /// Writes a value without its tag.
    #[inline]
    pub(super) fn scalar(&mut self, kind: Kind, node: &Node<'_>, path: &Path<'_>) -> Written {
        match kind {
            Kind::String => match node {
                Node::Text(text) => self.delimited(text.as_bytes()),
                _ => self.refuse(path, node, "a string"),
            },
            Kind::Bool => match node {
                Node::Bool(flag) => self.varint(u64::from(*flag)),
                _ => self.refuse(path, node, "a boolean"),
            },
            Kind::Int32 => self.integer(node, &INT32, path, |it| it as i64 as u64),
            Kind::Int64 => self.integer(node, &INT64, path, |it| it as i64 as u64),
            Kind::Uint32 => self.integer(node, &UINT32, path, |it| it as u64),
            Kind::Uint64 => self.integer(node, &UINT64, path, |it| it as u64),
            Kind::Sint32 => self.integer(node, &INT32, path, |it| zigzag(it as i64)),
            Kind::Sint64 => self.integer(node, &INT64, path, |it| zigzag(it as i64)),
            Kind::Fixed32 => self.fixed(node, &UINT32, path, 4),
            Kind::Sfixed32 => self.fixed(node, &INT32, path, 4),
            Kind::Fixed64 => self.fixed(node, &UINT64, path, 8),
            Kind::Sfixed64 => self.fixed(node, &INT64, path, 8),
            Kind::Double | Kind::Float => self.float(kind, node, path),
            Kind::Bytes => match node {
                Node::Text(text) => match base64(text) {
                    Some(bytes) => self.delimited(&bytes),
                    None => {
                        self.violations.add(path, "must be base64");
                        Written::Value
                    }
                },
                _ => self.refuse(path, node, "a string of base64"),
            },
            Kind::Enum(at) => {
                let of = self.types.enumeration(at);
                self.enumeration(of, node, path)
            }
            // Not without a tag.
            Kind::Message(_) | Kind::Group(_) => Written::Value,
        }
    }

    #[cold]
    fn refuse(&mut self, path: &Path<'_>, node: &Node<'_>, expected: &str) -> Written {
        self.wrong(path, node, expected);
        Written::Value
    }

    fn delimited(&mut self, bytes: &[u8]) -> Written {
        wire::put_varint(&mut self.out, bytes.len() as u64);
        self.out.extend_from_slice(bytes);
        Written::default_if(bytes.is_empty())
    }

    fn varint(&mut self, value: u64) -> Written {
        wire::put_varint(&mut self.out, value);
        Written::default_if(value == 0)
    }

    #[inline]
    fn integer(
        &mut self,
        node: &Node<'_>,
        range: &Range,
        path: &Path<'_>,
        encode: impl Fn(i128) -> u64,
    ) -> Written {
        match self.in_range(node, range, path) {
            Some(value) => self.varint(encode(value)),
            None => Written::Value,
        }
    }

    fn fixed(&mut self, node: &Node<'_>, range: &Range, path: &Path<'_>, bytes: usize) -> Written {
        match self.in_range(node, range, path) {
            Some(value) => {
                self.out.extend_from_slice(&value.to_le_bytes()[..bytes]);
                Written::default_if(value == 0)
            }
            None => Written::Value,
        }
    }

    #[inline]
    fn in_range(&mut self, node: &Node<'_>, range: &Range, path: &Path<'_>) -> Option<i128> {
        let found = match node {
            Node::Number(Number::Double(number)) if number.abs() > EXACT => {
                let problem = "is beyond 2^53, where doubles are not exact: write it as a string";
                self.violations.add(path, problem);
                return None;
            }
            Node::Number(number) => number.to_integer(),
            Node::Text(text) => integer(text),
            _ => {
                self.wrong(path, node, range.name);
                return None;
            }
        };
        let found = found.filter(|found| (range.min..=range.max).contains(found));
        if found.is_none() {
            self.out_of_range(node, range, path);
        }
        found
    }

    #[cold]
    fn out_of_range(&mut self, node: &Node<'_>, range: &Range, path: &Path<'_>) {
        let shown = match node {
            Node::Number(Number::Double(number)) => number.to_string(),
            Node::Number(Number::Digits(digits)) => (*digits).to_owned(),
            Node::Text(text) => format!("{:?}", &text[..text.floor_char_boundary(40)]),
            other => other.kind().to_owned(),
        };
        self.violations
            .add(path, format!("must be {}, is {shown}", range.name));
    }

    fn float(&mut self, kind: Kind, node: &Node<'_>, path: &Path<'_>) -> Written {
        let number = match node {
            Node::Number(number) => number.to_f64(),
            Node::Text(text) => match &**text {
                "NaN" => f64::NAN,
                "Infinity" => f64::INFINITY,
                "-Infinity" => f64::NEG_INFINITY,
                text => match finite(text) {
                    Some(number) => number,
                    None => {
                        let problem = "must be a number, or \"NaN\", \"Infinity\" or \"-Infinity\"";
                        self.violations.add(path, problem);
                        return Written::Value;
                    }
                },
            },
            _ => return self.refuse(path, node, "a number"),
        };
        if kind == Kind::Double {
            self.out.extend_from_slice(&number.to_le_bytes());
            // A negative zero is no default.
            return Written::default_if(number.to_bits() == 0);
        }
        let single = number as f32;
        if single.is_infinite() && number.is_finite() {
            self.violations
                .add(path, "must be within the range of a float of 32 bits");
        }
        self.out.extend_from_slice(&single.to_le_bytes());
        Written::default_if(single.to_bits() == 0)
    }

    fn enumeration(&mut self, of: &EnumType, node: &Node<'_>, path: &Path<'_>) -> Written {
        let number = match node {
            Node::Null if of.null => Some(0),
            Node::Text(name) => {
                let number = of.number_of(name).or_else(|| differently_cased(of, name));
                if number.is_none() {
                    self.unknown_enum_name(of, name, path);
                    return Written::Value;
                }
                number
            }
            Node::Number(number) => {
                let number = number
                    .to_integer()
                    .and_then(|number| i32::try_from(number).ok());
                number.filter(|&number| !of.closed || of.name_of(number).is_some())
            }
            _ => return self.refuse(path, node, "the name of an enum value"),
        };
        match number {
            Some(number) => self.varint(i64::from(number) as u64),
            None => {
                self.violations
                    .add(path, format!("is no number of {}", of.name));
                Written::Value
            }
        }
    }

    /// Writes the key of an entry, which JSON has as a string.
    pub(super) fn map_key(&mut self, field: &Field, key: &str, path: &Path<'_>) {
        wire::put_tag(&mut self.out, field.number, field.kind.wire_type());
        let node = match field.kind {
            Kind::String => {
                self.delimited(key.as_bytes());
                return;
            }
            Kind::Bool => match key {
                "true" => Node::Bool(true),
                "false" => Node::Bool(false),
                _ => {
                    self.violations
                        .add(path, "must be the key \"true\" or \"false\"");
                    return;
                }
            },
            // Each number has one way to be written, so that no two keys are one.
            _ if key == "-0" || key.contains(['.', 'e', 'E']) => {
                self.violations
                    .add(path, "must be the key of a map: a whole number");
                return;
            }
            _ => Node::Text(key.into()),
        };
        self.scalar(field.kind, &node, path);
    }
}

fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63) as u64
}

/// The only value whose name differs but in its case.
fn differently_cased(of: &EnumType, name: &str) -> Option<i32> {
    let mut like = of
        .values
        .iter()
        .filter(|value| value.name.eq_ignore_ascii_case(name));
    let first = like.next()?;
    like.all(|other| other.number == first.number)
        .then_some(first.number)
}

/// A number of JSON's grammar that is finite.
fn finite(text: &str) -> Option<f64> {
    let plain = |byte: u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
    let is_json = text.bytes().all(plain) && !text.starts_with(['+', '.']) && !text.ends_with('.');
    let number: f64 = text.parse().ok().filter(|_| is_json)?;
    number.is_finite().then_some(number)
}

/// Bytes out of base64: standard or URL-safe, padded or not.
pub(super) fn base64(text: &str) -> Option<Vec<u8>> {
    let engine = if text.contains(['-', '_']) {
        &URL_SAFE
    } else {
        &STANDARD
    };
    engine.decode(text).ok()
}
