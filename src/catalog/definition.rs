//! What is known of a tool, whoever told it.

use std::sync::Arc;

use serde_json::{Map, Value};

/// A JSON Schema (2020-12) of objects.
pub type Schema = Arc<Map<String, Value>>;

/// What a tool is, for people and models.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Definition {
    /// A name for people; may be empty.
    pub title: String,
    /// What it does; may be empty.
    pub description: String,
    /// Of its arguments, if it is known.
    pub input_schema: Option<Schema>,
    /// Of its observations, if it is known.
    pub output_schema: Option<Schema>,
    /// Whether, as far as its service says, it only reads.
    pub read_only: bool,
    /// Whether, as far as its service says, it may destroy something.
    pub destructive: bool,
}

/// Of a tool of which no more is known than what it does.
impl From<String> for Definition {
    fn from(description: String) -> Self {
        Self {
            description,
            ..Self::default()
        }
    }
}
