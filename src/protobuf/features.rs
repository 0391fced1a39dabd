//! What a field means on the wire, by its file's edition and the features that are set on
//! the way to it (<https://protobuf.dev/editions/features/>). The syntaxes `proto2` and
//! `proto3` are editions with defaults of their own.

use crate::json::wire::{self, Raw};

/// The edition of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Edition {
    #[default]
    Proto2,
    Proto3,
    /// 2023 and 2024: what changed between them is about source code.
    Editions,
    /// Its defaults are not known.
    Unknown,
}

impl Edition {
    /// By the fields `syntax` and `edition` of the file.
    pub(super) fn new(syntax: &str, edition: u64) -> Self {
        match (syntax, edition) {
            ("" | "proto2", 0 | 998) => Self::Proto2,
            ("proto3", 0 | 999) => Self::Proto3,
            ("editions", 998) => Self::Proto2,
            ("editions", 999) => Self::Proto3,
            ("editions", 1000 | 1001) => Self::Editions,
            _ => Self::Unknown,
        }
    }

    /// The features of what sets none.
    pub(super) fn defaults(self) -> Features {
        let proto2 = self == Self::Proto2;
        Features {
            presence: match self {
                Self::Proto3 => Presence::Implicit,
                _ => Presence::Explicit,
            },
            closed: proto2,
            packed: !proto2,
            delimited: false,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    Explicit,
    Implicit,
    Required,
}

/// The features that matter here, resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Features {
    pub(super) presence: Presence,
    /// Of an enum: only declared values are values.
    pub(super) closed: bool,
    pub(super) packed: bool,
    /// Messages are encoded as groups.
    pub(super) delimited: bool,
}

/// The features that one element sets.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Overrides {
    presence: Option<Presence>,
    closed: Option<bool>,
    packed: Option<bool>,
    delimited: Option<bool>,
}

impl Overrides {
    /// Adds what an encoded `google.protobuf.FeatureSet` sets. `None` if it is malformed.
    pub(super) fn read(&mut self, mut left: &[u8]) -> Option<()> {
        while !left.is_empty() {
            match wire::field(&mut left)? {
                (1, Raw::Varint(it)) => {
                    self.presence = match it {
                        1 => Some(Presence::Explicit),
                        2 => Some(Presence::Implicit),
                        3 => Some(Presence::Required),
                        _ => self.presence,
                    }
                }
                (2, Raw::Varint(it @ (1 | 2))) => self.closed = Some(it == 2),
                (3, Raw::Varint(it @ (1 | 2))) => self.packed = Some(it == 1),
                (5, Raw::Varint(it @ (1 | 2))) => self.delimited = Some(it == 2),
                _ => {}
            }
        }
        Some(())
    }
}

impl Features {
    /// Of an element inside of the one with these.
    pub(super) fn with(self, overrides: Overrides) -> Self {
        Self {
            presence: overrides.presence.unwrap_or(self.presence),
            closed: overrides.closed.unwrap_or(self.closed),
            packed: overrides.packed.unwrap_or(self.packed),
            delimited: overrides.delimited.unwrap_or(self.delimited),
        }
    }
}
