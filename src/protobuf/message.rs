//! A message type, ready for use.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use serde_json::{Map, Value as Json};

use super::{
    decode::{self, Unreadable},
    encode,
    schema::{self, Direction},
    types::{MessageType, Types},
};
use crate::{core::error::Violation, json::tree::Node};

/// A message type of a [`Pool`](super::Pool), whose types it keeps: cheap to clone.
#[derive(Clone)]
pub struct Message {
    types: Arc<Types>,
    index: u32,
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Message").field(&self.full_name()).finish()
    }
}

impl Message {
    pub(super) fn new(types: Arc<Types>, index: u32) -> Self {
        Self { types, index }
    }

    fn message(&self) -> &MessageType {
        self.types.message(self.index)
    }

    /// The full name of the type.
    pub fn full_name(&self) -> &str {
        &self.message().name
    }

    /// Encodes arguments, an object, as this message. A type that JSON doesn't have as an
    /// object, such as `google.protobuf.StringValue`, takes one with the member `value`.
    ///
    /// # Errors
    /// All that does not fit, at most 16 violations, with paths that begin at `arguments`.
    pub fn encode(&self, arguments: &Node<'_>) -> Result<Bytes, Vec<Violation>> {
        encode::encode(&self.types, self.message(), arguments)
    }

    /// Decodes an answer, which is this message, into an encoded `google.protobuf.Value`
    /// of at most `max_bytes`, which others can decode and JSON can say.
    ///
    /// # Errors
    /// If it is none, is nested too deeply or becomes too large.
    pub fn decode(&self, wire: &[u8], max_bytes: usize) -> Result<Bytes, Unreadable> {
        decode::decode(&self.types, self.message(), wire, max_bytes)
    }

    /// The JSON Schema (2020-12) of the arguments that [`encode`](Self::encode) takes: an
    /// object without `oneOf` and `anyOf`. Fields that are `OUTPUT_ONLY` are not in it, nor
    /// are extensions.
    pub fn input_schema(&self) -> Map<String, Json> {
        schema::schema(&self.types, self.index, Direction::Input)
    }

    /// The JSON Schema (2020-12) of what [`decode`](Self::decode) gives, which is no object
    /// for a type such as `google.protobuf.StringValue`.
    pub fn output_schema(&self) -> Map<String, Json> {
        schema::schema(&self.types, self.index, Direction::Output)
    }
}
