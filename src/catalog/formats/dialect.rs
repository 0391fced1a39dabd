//! What each format takes of JSON Schema.

use serde_json::Value;

/// Whose JSON Schema it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    OpenAi,
    Anthropic,
    Gemini,
    Mcp,
}

/// What kind of value a keyword has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// One that says nothing of values, or is treated apart.
    Aside,
    Schema,
    ListOfSchemas,
    SchemasByName,
    Plain,
    /// One whose value is text, a number or a flag, or none of JSON Schema.
    Other,
}

impl Kind {
    /// Of the keyword `key` (JSON Schema 2020-12, and what older drafts had).
    pub(super) fn of(key: &str) -> Self {
        match key {
            "$schema" | "$id" | "$ref" | "$anchor" | "$comment" | "$vocabulary" | "$defs"
            | "$dynamicRef" | "$dynamicAnchor" | "$recursiveRef" | "$recursiveAnchor"
            | "definitions" | "id" | "additionalItems" => Self::Aside,
            "items"
            | "additionalProperties"
            | "contains"
            | "contentSchema"
            | "else"
            | "if"
            | "not"
            | "propertyNames"
            | "then"
            | "unevaluatedItems"
            | "unevaluatedProperties" => Self::Schema,
            "allOf" | "anyOf" | "oneOf" | "prefixItems" => Self::ListOfSchemas,
            "dependentSchemas" | "patternProperties" | "properties" => Self::SchemasByName,
            "const" | "default" | "dependentRequired" | "enum" | "examples" | "required"
            | "type" => Self::Plain,
            _ => Self::Other,
        }
    }
}

impl Dialect {
    /// Whether what is referred to is put in the place of the reference.
    pub(super) fn inlines(self) -> bool {
        self == Self::Gemini
    }

    /// Whether it takes a property of this name, among the arguments themselves or deeper.
    ///
    /// Anthropic refuses others among the arguments
    /// (<https://github.com/decocms/studio/pull/6874>), Gemini everywhere.
    pub(super) fn takes_property(self, name: &str, is_argument: bool) -> bool {
        let others = match self {
            Self::OpenAi | Self::Mcp => return true,
            Self::Anthropic if !is_argument => return true,
            Self::Anthropic => "_.-",
            Self::Gemini => "_",
        };
        let allowed = |c: char| c.is_ascii_alphanumeric() || others.contains(c);
        (1..=64).contains(&name.len()) && name.chars().all(allowed)
    }

    /// Whether it takes this keyword with this value. Gemini refuses those that it has no
    /// field for, and evaluates no others:
    /// <https://ai.google.dev/api/caching#FunctionDeclaration>.
    pub(super) fn takes(self, key: &str, value: &Value) -> bool {
        const TEXTS: [&str; 3] = ["date", "date-time", "time"];
        if self != Self::Gemini {
            return true;
        }
        match key {
            "additionalProperties"
            | "anyOf"
            | "description"
            | "items"
            | "maxItems"
            | "maximum"
            | "minItems"
            | "minimum"
            | "oneOf"
            | "prefixItems"
            | "properties"
            | "required"
            | "title"
            | "type" => true,
            "enum" => value.as_array().is_some_and(|values| {
                values.iter().all(Value::is_string) || values.iter().all(Value::is_number)
            }),
            "format" => value.as_str().is_some_and(|format| TEXTS.contains(&format)),
            _ => false,
        }
    }
}
