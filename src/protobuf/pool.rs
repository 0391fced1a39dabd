//! The descriptors of one service at one time, as an index of types by full name.
//!
//! Compiled descriptors name types in full, so nothing has to be linked: it does not matter
//! under which names files import each other, nor in which order they come. A type that no
//! file has costs those types that need it, and no others.

mod index;
mod link;
mod parts;

use std::{
    collections::{BTreeSet, HashSet},
    fmt,
    sync::Arc,
};

use bytes::Bytes;

use self::index::Index;
use super::{
    descriptor::{File, Reader},
    features::Edition,
    message::Message,
    types::{Types, Unusable},
};
use crate::json::wire::{self, Raw};

/// How many files one pool may have.
pub const MAX_FILES: usize = 2000;
/// How many bytes all of its files may have together.
pub const MAX_BYTES: usize = 16 << 20;
/// The longest full name, in bytes.
pub const MAX_NAME_BYTES: usize = 512;
/// How many problems are told of one pool.
const MAX_PROBLEMS: usize = 100;
/// What every pool has, whether it was sent or not: `google/protobuf/*.proto` (but for
/// those of the compiler) and `google/rpc/{status,error_details}.proto`.
pub(super) static WELL_KNOWN: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/well_known.bin"));

/// The descriptors of one service at one time.
#[derive(Clone, Debug)]
pub struct Pool {
    types: Arc<Types>,
    services: Vec<String>,
    methods: Vec<Method>,
    missing: BTreeSet<String>,
    unresolved: BTreeSet<String>,
}

/// A method of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Method {
    /// `package.Service/Method`
    pub full_name: String,
    /// The full name of the request's type.
    pub input: String,
    /// The full name of the response's type.
    pub output: String,
    /// Whether it takes many requests.
    pub client_streaming: bool,
    /// Whether it gives many responses.
    pub server_streaming: bool,
    /// Whether it may be called twice (`idempotency_level` of any kind).
    pub idempotent: bool,
    /// Whether it changes nothing (`idempotency_level = NO_SIDE_EFFECTS`).
    pub read_only: bool,
    /// Whether it is marked as deprecated.
    pub deprecated: bool,
    /// Its comment, if the descriptors have comments; else empty.
    pub description: String,
}

/// What is wrong with some of the descriptors; the others are as good as without them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file, by its name if it has one.
    pub file: String,
    /// What is wrong with it, and what follows from that.
    pub description: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file, self.description)
    }
}

impl Pool {
    /// Indexes files, encoded `google.protobuf.FileDescriptorProto`s, in any order. Those
    /// that can't be used are left out, as are all beyond [`MAX_FILES`] and [`MAX_BYTES`],
    /// and told.
    pub fn new(files: impl IntoIterator<Item = Bytes>) -> (Self, Vec<Problem>) {
        let files: Vec<_> = files.into_iter().collect();
        Self::of(files.iter().map(AsRef::as_ref))
    }

    /// Indexes an encoded `google.protobuf.FileDescriptorSet`, as `protoc
    /// --descriptor_set_out --include_imports` writes it.
    ///
    /// # Errors
    /// If it is none.
    pub fn from_set(set: &[u8]) -> Result<(Self, Vec<Problem>), Problem> {
        let files = files_of(set).filter(|files| !files.is_empty());
        let files = files.ok_or_else(|| Problem {
            file: "the descriptor set".to_owned(),
            description: "is no encoded google.protobuf.FileDescriptorSet".to_owned(),
        })?;
        Ok(Self::of(files.into_iter()))
    }

    fn of<'a>(encoded: impl Iterator<Item = &'a [u8]>) -> (Self, Vec<Problem>) {
        let mut problems = Problems::default();
        let mut reader = Reader::new();
        let mut index = Index::default();
        let mut known = HashSet::new();
        for encoded in files_of(WELL_KNOWN).into_iter().flatten() {
            if let Ok(file) = reader.file(encoded) {
                known.insert(file.name);
                index.add(file, &mut Problems::default());
            }
        }
        let bundled = known.clone();
        let mut bytes_left = MAX_BYTES;
        for (at, encoded) in encoded.enumerate() {
            if at >= MAX_FILES || encoded.len() > bytes_left {
                let limits = format!("{MAX_FILES} files and {} MiB", MAX_BYTES >> 20);
                problems.add(
                    &format!("file {at}"),
                    format!("is left out: the limit is {limits}"),
                );
                break;
            }
            bytes_left -= encoded.len();
            match reader.file(encoded) {
                Err(error) => {
                    problems.add(&format!("file {at}"), format!("is left out: {error}"));
                }
                Ok(file) if is_placeholder(&file) || bundled.contains(file.name) => {}
                Ok(file) if file.edition == Edition::Unknown => {
                    let problem = "is left out: its syntax or edition is not known";
                    problems.add(file.name, problem.to_owned());
                }
                // Servers may send a file as often as they like.
                Ok(file) if !known.insert(file.name) => {}
                Ok(file) => index.add(file, &mut problems),
            }
        }
        (index.link(&known, &mut problems), problems.found)
    }

    /// Imports that the files name, and that are not among them; none if no type is
    /// missing, for then these have but options.
    pub fn missing(&self) -> impl Iterator<Item = &str> {
        self.missing.iter().map(String::as_str)
    }

    /// The full names of types that the files use, and that none of them has.
    pub fn unresolved(&self) -> impl Iterator<Item = &str> {
        self.unresolved.iter().map(String::as_str)
    }

    /// The full names of the services, in the order of the files.
    pub fn services(&self) -> impl Iterator<Item = &str> {
        self.services.iter().map(String::as_str)
    }

    /// The methods of all services, in the order of the files.
    pub fn methods(&self) -> &[Method] {
        &self.methods
    }

    /// A message type, by its full name.
    ///
    /// # Errors
    /// If it can't be translated: it, or a type that it needs, is not here or is wrong.
    pub fn message(&self, full_name: &str) -> Result<Message, Unusable> {
        let index = self.types.usable(full_name)?;
        Ok(Message::new(Arc::clone(&self.types), index))
    }
}

/// The files of a set. `None` if it is none.
fn files_of(mut set: &[u8]) -> Option<Vec<&[u8]>> {
    let mut files = Vec::new();
    while !set.is_empty() {
        if let (1, Raw::Bytes(file)) = wire::field(&mut set)? {
            files.push(file);
            // One more than there may be is seen, and told.
            if files.len() > MAX_FILES {
                break;
            }
        }
    }
    Some(files)
}

/// What grpc-go sends for an import that it does not have (grpc/grpc-go#6770).
fn is_placeholder(file: &File<'_>) -> bool {
    let empty = file.messages.is_empty()
        && file.enums.is_empty()
        && file.services.is_empty()
        && file.extensions.is_empty();
    empty && file.package.is_empty() && (file.name.is_empty() || file.edition == Edition::Unknown)
}

#[derive(Debug, Default)]
struct Problems {
    found: Vec<Problem>,
}

impl Problems {
    fn add(&mut self, file: &str, description: String) {
        if self.found.len() < MAX_PROBLEMS {
            let file = &file[..file.floor_char_boundary(MAX_NAME_BYTES)];
            self.found.push(Problem {
                file: file.to_owned(),
                description,
            });
        }
    }
}

#[cfg(test)]
mod tests;
