//! How messages are sent.

use std::fmt;

use toml::de::DeValue;

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

pub(super) fn compression(value: &DeValue<'_>) -> Result<Compression, String> {
    match value.as_str() {
        Some("none") => Ok(Compression::None),
        Some("gzip") => Ok(Compression::Gzip),
        _ => Err("\"none\" or \"gzip\"".to_owned()),
    }
}
