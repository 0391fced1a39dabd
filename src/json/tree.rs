//! JSON as its writer wrote it: borrowed from the bytes that arrived, numbers with all
//! their digits.
//!
//! It is read out of an encoded `google.protobuf.Struct` or out of JSON text, and is what
//! arguments are checked and translated by. What is read is always JSON: numbers are
//! finite, objects have each key once, and nothing is nested deeper than [`MAX_DEPTH`].

mod decimal;
mod text;
mod value;

use std::{borrow::Cow, collections::HashMap};

use bytes::Bytes;
use serde_json::{Map, Value as Json};

pub(crate) use self::{
    decimal::integer,
    value::{Shape, encode_fields, encode_items, encode_value, name_of, read_lenient},
};
use crate::core::error::Violation;

/// How deep lists and objects may nest, the outermost included.
pub const MAX_DEPTH: usize = 45;

/// A JSON value.
#[derive(Clone, Debug, PartialEq)]
pub enum Node<'a> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number, finite.
    Number(Number<'a>),
    /// A string.
    Text(Cow<'a, str>),
    /// An array.
    List(Vec<Node<'a>>),
    /// An object: its members in the order in which they were written, each key once.
    Object(Vec<(Cow<'a, str>, Node<'a>)>),
}

/// A number as it was written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number<'a> {
    /// A finite double, out of a `Struct`.
    Double(f64),
    /// A number of JSON's grammar, out of a text. Its nearest double is finite.
    Digits(&'a str),
}

impl<'a> Node<'a> {
    /// Reads the arguments of a call, an encoded `google.protobuf.Struct`.
    ///
    /// # Errors
    /// What is wrong with them: the encoding, a number that is not finite, a value of no
    /// kind, or too deep nesting.
    pub fn from_struct(encoded: &'a [u8]) -> Result<Self, Vec<Violation>> {
        value::read_struct(encoded)
    }

    /// Reads the arguments of a call, an object as JSON text (RFC 8259).
    ///
    /// # Errors
    /// What is wrong with them: the syntax (with line and column), that they are no object,
    /// a key that an object has twice, a number beyond a double, or too deep nesting.
    pub fn from_json(text: &'a [u8]) -> Result<Self, Vec<Violation>> {
        text::read(text)
    }

    /// Encodes an object as `google.protobuf.Struct`.
    ///
    /// # Errors
    /// The integers that a double doesn't hold exactly, and what is nested too deeply for
    /// decoders of protobuf. Also if it is no object.
    pub fn encode_struct(&self) -> Result<Bytes, Vec<Violation>> {
        value::encode_struct(self)
    }

    /// As `serde_json` has it, which rounds integers beyond 64 bits.
    pub fn to_json(&self) -> Json {
        match self {
            Self::Null => Json::Null,
            Self::Bool(flag) => Json::Bool(*flag),
            Self::Number(number) => number.to_json(),
            Self::Text(text) => Json::String(text.clone().into_owned()),
            Self::List(items) => items.iter().map(Self::to_json).collect(),
            Self::Object(members) => {
                let members = members.iter();
                let members = members.map(|(key, node)| (key.clone().into_owned(), node.to_json()));
                Json::Object(members.collect::<Map<_, _>>())
            }
        }
    }

    /// What it is, for messages.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Number(_) => "a number",
            Self::Text(_) => "a string",
            Self::List(_) => "a list",
            Self::Object(_) => "an object",
        }
    }
}

impl Number<'_> {
    /// The nearest double.
    pub fn to_f64(self) -> f64 {
        match self {
            Self::Double(number) => number,
            Self::Digits(digits) => digits.parse().unwrap_or(f64::NAN),
        }
    }

    /// The integer that it is, if it is one of 128 bits.
    pub fn to_integer(self) -> Option<i128> {
        match self {
            Self::Double(number) if number.fract() == 0.0 && number.abs() < 2f64.powi(63) => {
                Some(i128::from(number as i64))
            }
            Self::Double(number) => {
                (number.fract() == 0.0 && number.abs() < 2f64.powi(127)).then_some(number as i128)
            }
            Self::Digits(digits) => integer(digits),
        }
    }

    fn to_json(self) -> Json {
        match self {
            Self::Double(number) => super::number_to_json(number),
            Self::Digits(digits) => {
                let whole = || !digits.contains(['.', 'e', 'E']);
                match integer(digits).filter(|_| whole()) {
                    Some(0) if digits.starts_with('-') => Json::from(-0.0),
                    Some(integer) => i64::try_from(integer)
                        .map(Json::from)
                        .or_else(|_| u64::try_from(integer).map(Json::from))
                        .unwrap_or_else(|_| Json::from(self.to_f64())),
                    None => Json::from(self.to_f64()),
                }
            }
        }
    }
}

/// Gives each key of an object its last value, as protobuf has it for maps. In place; of
/// an object without duplicates nothing moves.
fn keep_last<'a>(members: &mut Vec<(Cow<'a, str>, Node<'a>)>) {
    if let Some(duplicates) = duplicates(members) {
        let mut at = 0;
        let mut duplicates = duplicates.into_iter().peekable();
        members.retain(|_| {
            let drop = duplicates.next_if_eq(&at).is_some();
            at += 1;
            !drop
        });
    }
}

/// The members of which a later one has the same key, in order; `None` if there are none.
fn duplicates(members: &[(Cow<'_, str>, Node<'_>)]) -> Option<Vec<usize>> {
    const FEW: usize = 12;
    if members.is_sorted_by(|(a, _), (b, _)| a < b) {
        return None;
    }
    let mut found = Vec::new();
    if members.len() <= FEW {
        for (at, (key, _)) in members.iter().enumerate() {
            if members[at + 1..].iter().any(|(later, _)| later == key) {
                found.push(at);
            }
        }
    } else {
        let mut places = HashMap::with_capacity(members.len());
        for (at, (key, _)) in members.iter().enumerate() {
            found.extend(places.insert(&**key, at));
        }
        found.sort_unstable();
    }
    (!found.is_empty()).then_some(found)
}

#[cfg(test)]
mod tests;
