//! What the files declare, by full name.

use std::collections::{HashMap, hash_map::Entry};

use super::{MAX_NAME_BYTES, Problems};
use crate::protobuf::{
    descriptor::{self, File},
    features::Features,
    types::TypeRef,
};

/// The declarations of all files.
#[derive(Debug, Default)]
pub(super) struct Index<'a> {
    pub(super) files: Vec<FileEntry<'a>>,
    pub(super) messages: Vec<Declared<descriptor::Message<'a>>>,
    pub(super) enums: Vec<Declared<descriptor::Enum<'a>>>,
    pub(super) services: Vec<Declared<descriptor::Service<'a>>>,
    /// Their names are full.
    pub(super) extensions: Vec<Declared<descriptor::Field<'a>>>,
    pub(super) by_name: HashMap<Box<str>, TypeRef>,
}

/// What is left of a file, once its declarations are in the index.
#[derive(Debug)]
pub(super) struct FileEntry<'a> {
    pub(super) name: &'a str,
    pub(super) dependencies: Vec<&'a str>,
    pub(super) comments: HashMap<Vec<u32>, &'a str>,
}

/// A declaration, and what is around it.
#[derive(Debug)]
pub(super) struct Declared<T> {
    pub(super) full_name: String,
    pub(super) it: T,
    pub(super) features: Features,
    pub(super) file: usize,
    /// In its file, for its comment.
    pub(super) path: Vec<u32>,
}

/// The place of something that is being declared.
#[derive(Clone, Copy)]
struct Scope<'s> {
    file: usize,
    file_name: &'s str,
    name: &'s str,
    features: Features,
    path: &'s [u32],
}

impl Scope<'_> {
    /// The full name and the path of what is in here.
    fn inner(&self, name: &str, field: u32, at: usize) -> (String, Vec<u32>) {
        let full_name = match self.name {
            "" => name.to_owned(),
            scope => format!("{scope}.{name}"),
        };
        let at = u32::try_from(at).unwrap_or(u32::MAX);
        (full_name, [self.path, &[field, at]].concat())
    }
}

impl<'a> Index<'a> {
    /// What a name stands for where `scope` is declared. Compilers write full names, with
    /// a dot before them; grpc-node's reflection does not, and leaves that to the
    /// language's rule: the innermost scope that has it.
    pub(super) fn resolve(&self, mut scope: &str, name: &str) -> Option<TypeRef> {
        if let Some(full) = name.strip_prefix('.') {
            return self.by_name.get(full).copied();
        }
        loop {
            let within = match scope {
                "" => self.by_name.get(name),
                scope => self.by_name.get(format!("{scope}.{name}").as_str()),
            };
            if within.is_some() || scope.is_empty() {
                return within.copied();
            }
            scope = scope.rsplit_once('.').map_or("", |(outer, _)| outer);
        }
    }

    /// Takes what a file declares, but for what has a name that can't be, or one that is
    /// taken.
    pub(super) fn add(&mut self, file: File<'a>, problems: &mut Problems) {
        let scope = Scope {
            file: self.files.len(),
            file_name: file.name,
            name: file.package,
            features: file.edition.defaults().with(file.features),
            path: &[],
        };
        self.files.push(FileEntry {
            name: file.name,
            dependencies: file.dependencies,
            comments: file.comments,
        });
        for (at, message) in file.messages.into_iter().enumerate() {
            self.message(message, scope, 4, at, problems);
        }
        for (at, it) in file.enums.into_iter().enumerate() {
            self.enumeration(it, scope, 5, at, problems);
        }
        self.extensions(file.extensions, scope, 7);
        for (at, service) in file.services.into_iter().enumerate() {
            let (full_name, path) = scope.inner(service.name, 6, at);
            if is_identifier(service.name) && full_name.len() <= MAX_NAME_BYTES {
                self.services.push(Declared {
                    full_name,
                    it: service,
                    features: scope.features,
                    file: scope.file,
                    path,
                });
            } else {
                problems.add(
                    file.name,
                    format!("service {at} is left out: it has no name"),
                );
            }
        }
    }

    fn message(
        &mut self,
        mut message: descriptor::Message<'a>,
        scope: Scope<'_>,
        field: u32,
        at: usize,
        problems: &mut Problems,
    ) {
        let (full_name, path) = scope.inner(message.name, field, at);
        let index = u32::try_from(self.messages.len()).unwrap_or(u32::MAX);
        if !self.declare(
            message.name,
            &full_name,
            TypeRef::Message(index),
            scope,
            problems,
        ) {
            return;
        }
        let inner = Scope {
            name: &full_name,
            features: scope.features.with(message.features),
            path: &path,
            ..scope
        };
        let messages = std::mem::take(&mut message.messages);
        let enums = std::mem::take(&mut message.enums);
        let extensions = std::mem::take(&mut message.extensions);
        self.messages.push(Declared {
            full_name: full_name.clone(),
            it: message,
            features: inner.features,
            file: scope.file,
            path: path.clone(),
        });
        for (at, message) in messages.into_iter().enumerate() {
            self.message(message, inner, 3, at, problems);
        }
        for (at, it) in enums.into_iter().enumerate() {
            self.enumeration(it, inner, 4, at, problems);
        }
        self.extensions(extensions, inner, 6);
    }

    fn enumeration(
        &mut self,
        it: descriptor::Enum<'a>,
        scope: Scope<'_>,
        field: u32,
        at: usize,
        problems: &mut Problems,
    ) {
        let (full_name, path) = scope.inner(it.name, field, at);
        let index = u32::try_from(self.enums.len()).unwrap_or(u32::MAX);
        if self.declare(it.name, &full_name, TypeRef::Enum(index), scope, problems) {
            self.enums.push(Declared {
                full_name,
                features: scope.features.with(it.features),
                it,
                file: scope.file,
                path,
            });
        }
    }

    fn extensions(&mut self, extensions: Vec<descriptor::Field<'a>>, scope: Scope<'_>, field: u32) {
        for (at, extension) in extensions.into_iter().enumerate() {
            let (full_name, path) = scope.inner(extension.name, field, at);
            // Those of options, of which there are many, are not in any message.
            let of_options = extension.extendee.starts_with(".google.protobuf.");
            if is_identifier(extension.name) && full_name.len() <= MAX_NAME_BYTES && !of_options {
                self.extensions.push(Declared {
                    full_name,
                    features: scope.features,
                    it: extension,
                    file: scope.file,
                    path,
                });
            }
        }
    }

    fn declare(
        &mut self,
        name: &str,
        full_name: &str,
        it: TypeRef,
        scope: Scope<'_>,
        problems: &mut Problems,
    ) -> bool {
        if !is_identifier(name) || full_name.len() > MAX_NAME_BYTES {
            let scope_name = scope.name;
            let problem = format!("a type in `{scope_name}` is left out: its name can't be one");
            problems.add(scope.file_name, problem);
            return false;
        }
        match self.by_name.entry(full_name.into()) {
            Entry::Vacant(entry) => {
                entry.insert(it);
                true
            }
            Entry::Occupied(_) => {
                let problem = format!("{full_name} is left out: another file has it, too");
                problems.add(scope.file_name, problem);
                false
            }
        }
    }
}

/// Whether a name is one of the language's.
pub(super) fn is_identifier(name: &str) -> bool {
    let part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let digit = |byte: &u8| byte.is_ascii_digit();
    name.bytes().all(part) && !name.as_bytes().first().is_none_or(digit)
}
