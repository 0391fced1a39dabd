//! Declarations into types: names become places, features become what fields are.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use super::{
    MAX_NAME_BYTES, Method, Pool, Problems,
    index::{Declared, Index, is_identifier},
    parts::{
        MAX_MISSING, comment, enumeration, is_entry, mapping, missing, name_fields, spread_unusable,
    },
};
use crate::protobuf::{
    descriptor,
    features::{Features, Presence},
    names::lower_camel,
    types::{Cardinality, Field, Kind, MessageType, Oneof, TypeRef, Types, Unusable},
};

/// The largest number of a field.
const MAX_NUMBER: u32 = (1 << 29) - 1;

const LABEL_REQUIRED: u32 = 2;
const LABEL_REPEATED: u32 = 3;
const TYPE_GROUP: u32 = 10;
const TYPE_MESSAGE: u32 = 11;

/// Why a message can't be used, found while its fields are linked.
enum Fault {
    Missing(String),
    Invalid(String),
}

impl Index<'_> {
    /// The pool of these declarations. `known` are the names of the files that are there.
    pub(super) fn link(self, known: &HashSet<&str>, problems: &mut Problems) -> Pool {
        let mut linker = Linker {
            index: &self,
            unresolved: BTreeSet::new(),
        };
        let mut extensions = linker.extensions();
        let messages = self.messages.iter().enumerate();
        let messages = messages.map(|(at, message)| {
            let at = u32::try_from(at).unwrap_or(u32::MAX);
            linker.message(message, extensions.remove(&at).unwrap_or_default())
        });
        let mut messages: Vec<_> = messages.collect();
        spread_unusable(&mut messages);
        for message in &messages {
            if let Some(Unusable::Invalid { name, problem }) = &message.unusable
                && *name == *message.name
            {
                problems.add(name, format!("{problem}, so it can't be used"));
            }
        }
        let methods = linker.methods(problems);
        let unresolved = linker.unresolved;
        let missing = match unresolved.is_empty() {
            true => BTreeSet::new(),
            false => missing(&self.files, known),
        };
        let enums = self.enums.iter().map(|it| enumeration(it, &self.files));
        let enums = enums.collect();
        let services = self.services.iter();
        Pool {
            services: services.map(|it| it.full_name.clone()).collect(),
            methods,
            missing,
            unresolved,
            types: Arc::new(Types {
                messages,
                enums,
                by_name: self.by_name,
            }),
        }
    }
}

struct Linker<'i, 'a> {
    index: &'i Index<'a>,
    unresolved: BTreeSet<String>,
}

impl Linker<'_, '_> {
    fn comment(&self, file: usize, path: &[u32]) -> Option<Box<str>> {
        comment(&self.index.files, file, path)
    }

    /// What a name stands for where `scope` is declared.
    fn resolve(&mut self, scope: &str, name: &str) -> Result<TypeRef, Fault> {
        self.index.resolve(scope, name).ok_or_else(|| {
            let name = name.strip_prefix('.').unwrap_or(name);
            let shown = &name[..name.floor_char_boundary(MAX_NAME_BYTES)];
            if self.unresolved.len() < MAX_MISSING {
                self.unresolved.insert(shown.to_owned());
            }
            Fault::Missing(shown.to_owned())
        })
    }

    /// The extensions of each message, by its place. Those that can't be used are left out:
    /// their messages are what they are without them.
    fn extensions(&mut self) -> HashMap<u32, Vec<Field>> {
        let mut found: HashMap<u32, Vec<Field>> = HashMap::new();
        let mut numbers = HashSet::new();
        for extension in &self.index.extensions {
            let scope = extension.full_name.as_str();
            let extendee = self.index.resolve(scope, extension.it.extendee);
            let Some(TypeRef::Message(of)) = extendee else {
                continue;
            };
            let comment = self.comment(extension.file, &extension.path);
            let field = self.field(scope, &extension.it, extension.features, false, comment);
            if let Ok(mut field) = field
                && numbers.insert((of, field.number))
            {
                field.name = format!("[{}]", extension.full_name).into();
                field.json_name = field.name.clone();
                field.extension = true;
                field.oneof = None;
                if field.cardinality == Cardinality::Implicit {
                    field.cardinality = Cardinality::Explicit;
                }
                found.entry(of).or_default().push(field);
            }
        }
        found
    }

    fn message(
        &mut self,
        declared: &Declared<descriptor::Message<'_>>,
        mut fields: Vec<Field>,
    ) -> MessageType {
        let it = &declared.it;
        let mut fault = it
            .message_set
            .then(|| Fault::Invalid("is a message set".to_owned()));
        for (at, field) in (0..).zip(&it.fields) {
            let comment = self.comment(declared.file, &[&declared.path[..], &[2, at]].concat());
            let scope = declared.full_name.as_str();
            match self.field(scope, field, declared.features, it.map_entry, comment) {
                Ok(linked) => fields.push(linked),
                Err(found) => fault = Some(fault.unwrap_or(found)),
            }
        }
        fields.sort_by_key(|field| (field.number, field.extension));
        // An extension can't take the number of a field.
        fields.dedup_by(|later, first| later.number == first.number && later.extension);
        if let Some(pair) = fields
            .windows(2)
            .find(|pair| pair[0].number == pair[1].number)
        {
            let problem = format!("has two fields with the number {}", pair[0].number);
            fault = Some(fault.unwrap_or(Fault::Invalid(problem)));
        }
        let names = match name_fields(&mut fields) {
            Ok(names) => names,
            Err(problem) => {
                fault = Some(fault.unwrap_or(Fault::Invalid(problem)));
                Box::default()
            }
        };
        let oneofs = match self.oneofs(declared, &mut fields) {
            Ok(oneofs) => oneofs,
            Err(problem) => {
                fault = Some(fault.unwrap_or(Fault::Invalid(problem)));
                Box::default()
            }
        };
        if it.map_entry && !is_entry(&fields) {
            let problem = "is no entry of a map".to_owned();
            fault = Some(fault.unwrap_or(Fault::Invalid(problem)));
        }
        let places = (0..).zip(&fields);
        let required = places.filter(|(_, field)| field.cardinality == Cardinality::Required);
        let required = required.map(|(at, _)| at).collect();
        MessageType {
            name: declared.full_name.as_str().into(),
            mapping: mapping(&declared.full_name),
            required,
            fields: fields.into(),
            names,
            oneofs,
            comment: self.comment(declared.file, &declared.path),
            unusable: fault.map(|fault| match fault {
                Fault::Missing(name) => Unusable::Missing(name),
                Fault::Invalid(problem) => Unusable::Invalid {
                    name: declared.full_name.clone(),
                    problem,
                },
            }),
        }
    }

    fn field(
        &mut self,
        scope: &str,
        it: &descriptor::Field<'_>,
        around: Features,
        in_entry: bool,
        comment: Option<Box<str>>,
    ) -> Result<Field, Fault> {
        if !is_identifier(it.name) || it.name.len() > MAX_NAME_BYTES {
            return Err(Fault::Invalid(
                "has a field whose name can't be one".to_owned(),
            ));
        }
        let invalid =
            |problem: &str| Fault::Invalid(format!("has the field {}, which {problem}", it.name));
        if it.number == 0 || it.number > MAX_NUMBER {
            return Err(invalid("has no number"));
        }
        let features = around.with(it.features);
        let Some(mut kind) = self.kind(scope, it)? else {
            return Err(invalid("has no type"));
        };
        let entry = |message: u32| self.index.messages[message as usize].it.map_entry;
        let mut is_map = false;
        if let Kind::Message(message) = kind {
            is_map = it.label == LABEL_REPEATED && entry(message);
            if features.delimited && !in_entry && !is_map {
                kind = Kind::Group(message);
            }
            if entry(message) && !is_map {
                return Err(invalid("has the type of an entry and is no map"));
            }
        }
        let is_message = kind.message().is_some();
        let cardinality = match it.label {
            LABEL_REPEATED if is_map => Cardinality::Map,
            LABEL_REPEATED if kind.is_packable() && it.packed.unwrap_or(features.packed) => {
                Cardinality::Packed
            }
            LABEL_REPEATED => Cardinality::Repeated,
            LABEL_REQUIRED => Cardinality::Required,
            _ if features.presence == Presence::Required && it.oneof.is_none() => {
                Cardinality::Required
            }
            _ if is_message || it.oneof.is_some() || it.proto3_optional => Cardinality::Explicit,
            _ if features.presence == Presence::Implicit => Cardinality::Implicit,
            _ => Cardinality::Explicit,
        };
        let json_name = match it.json_name {
            "" => lower_camel(it.name),
            given if given.len() > MAX_NAME_BYTES => lower_camel(it.name),
            given => given.to_owned(),
        };
        let oneof = it
            .oneof
            .filter(|_| !it.proto3_optional && cardinality.is_singular());
        Ok(Field {
            number: it.number,
            kind,
            cardinality,
            oneof: oneof.map(|at| u32::try_from(at).unwrap_or(u32::MAX)),
            name: it.name.into(),
            json_name: json_name.into(),
            comment,
            rules: (!it.rules.is_empty()).then(|| it.rules.into()),
            behaviors: it.behaviors,
            deprecated: it.deprecated,
            extension: false,
        })
    }

    /// `None` if it is none of the language's, or not what the type's name stands for.
    fn kind(&mut self, scope: &str, it: &descriptor::Field<'_>) -> Result<Option<Kind>, Fault> {
        Ok(Some(match it.kind {
            1 => Kind::Double,
            2 => Kind::Float,
            3 => Kind::Int64,
            4 => Kind::Uint64,
            5 => Kind::Int32,
            6 => Kind::Fixed64,
            7 => Kind::Fixed32,
            8 => Kind::Bool,
            9 => Kind::String,
            12 => Kind::Bytes,
            13 => Kind::Uint32,
            15 => Kind::Sfixed32,
            16 => Kind::Sfixed64,
            17 => Kind::Sint32,
            18 => Kind::Sint64,
            // Descriptors that nobody linked leave out which of them a name stands for.
            0 | TYPE_GROUP | TYPE_MESSAGE | 14 if !it.type_name.is_empty() => {
                match (self.resolve(scope, it.type_name)?, it.kind) {
                    (TypeRef::Message(at), 0 | TYPE_MESSAGE) => Kind::Message(at),
                    (TypeRef::Message(at), TYPE_GROUP) => Kind::Group(at),
                    (TypeRef::Enum(at), 0 | 14) => Kind::Enum(at),
                    _ => return Ok(None),
                }
            }
            _ => return Ok(None),
        }))
    }

    /// The oneofs that are some; gives their members their places.
    fn oneofs(
        &self,
        declared: &Declared<descriptor::Message<'_>>,
        fields: &mut [Field],
    ) -> Result<Box<[Oneof]>, String> {
        let all = &declared.it.oneofs;
        let mut members = vec![Vec::new(); all.len()];
        for (at, field) in (0..).zip(&*fields) {
            if let Some(oneof) = field.oneof {
                let of = members.get_mut(oneof as usize);
                of.ok_or_else(|| format!("has the field {} of no oneof", field.name))?
                    .push(at);
            }
        }
        let mut oneofs = Vec::new();
        for ((number, it), members) in (0..).zip(all).zip(members) {
            // One of `optional` in proto3 has no members left.
            if members.is_empty() {
                continue;
            }
            let place = u32::try_from(oneofs.len()).unwrap_or(u32::MAX);
            for &member in &members {
                fields[member as usize].oneof = Some(place);
            }
            let path = [&declared.path[..], &[8, number]].concat();
            oneofs.push(Oneof {
                name: it.name.into(),
                members: members.into(),
                required: it.required,
                comment: self.comment(declared.file, &path),
            });
        }
        Ok(oneofs.into())
    }

    fn methods(&mut self, problems: &mut Problems) -> Vec<Method> {
        let index = self.index;
        let mut methods = Vec::new();
        for service in &index.services {
            for (at, it) in (0..).zip(&service.it.methods) {
                if !is_identifier(it.name) || it.name.len() > MAX_NAME_BYTES {
                    let problem = "has a method whose name can't be one, so it is left out";
                    problems.add(&service.full_name, problem.to_owned());
                    continue;
                }
                // So that reflection asks for them, too.
                let mut full = |name: &str| match self.resolve(&service.full_name, name) {
                    Ok(TypeRef::Message(at)) => index.messages[at as usize].full_name.clone(),
                    _ => {
                        let name = name.strip_prefix('.').unwrap_or(name);
                        name[..name.floor_char_boundary(MAX_NAME_BYTES)].to_owned()
                    }
                };
                let (input, output) = (full(it.input), full(it.output));
                let path = [&service.path[..], &[2, at]].concat();
                methods.push(Method {
                    full_name: format!("{}/{}", service.full_name, it.name),
                    input,
                    output,
                    client_streaming: it.client_streaming,
                    server_streaming: it.server_streaming,
                    idempotent: matches!(it.idempotency_level, 1 | 2),
                    read_only: it.idempotency_level == 1,
                    deprecated: it.deprecated,
                    description: self.comment(service.file, &path).unwrap_or_default().into(),
                });
            }
        }
        methods
    }
}
