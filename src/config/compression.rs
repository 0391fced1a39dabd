//! How messages are compressed.

use std::fmt;

use toml::de::DeValue;

use super::{form::Form, kind::Kind, text::quoted};

/// How messages are compressed, for peers that say that they understand it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// With gzip.
    Gzip,
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Gzip => "gzip",
        })
    }
}

pub(super) fn compression() -> Kind<Compression> {
    let parse = |value: &DeValue<'_>| match value.as_str()? {
        "none" => Some(Compression::None),
        "gzip" => Some(Compression::Gzip),
        _ => None,
    };
    let form = Form::OneOf(&["none", "gzip"]);
    Kind::new(form, parse, |compression| quoted(&compression.to_string()))
}
