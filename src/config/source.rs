//! Where a service's tools come from: what it speaks, and who describes its tools.

use std::{fs::File, path::PathBuf};

use toml::de::DeValue;

use super::{
    form::Form,
    kind::Kind,
    reader::Reader,
    text::{quoted, shown_text},
};
use crate::core::call::ToolName;

const REFLECTION: &str = "reflection";
const DESCRIPTOR_SET: &str = "an encoded FileDescriptorSet";
const MAX_PREFIX: usize = 64;

/// What a service speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// `fanfare.v1.ToolService`.
    #[default]
    Fanfare,
    /// Whatever gRPC services it has: each of their methods may be a tool.
    Grpc,
}

/// Where the descriptors of a gRPC service come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Descriptors {
    /// The service itself (`grpc.reflection.v1.ServerReflection`, or v1alpha).
    #[default]
    Reflection,
    /// A file with an encoded `google.protobuf.FileDescriptorSet`.
    File(PathBuf),
}

/// What a tool makes of the messages of a method that answers with a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// A list of all.
    Collect,
}

/// Which settings of a tool the service that it is of decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FromSource {
    /// `timeout`
    pub timeout: bool,
    /// `idempotent`
    pub idempotent: bool,
}

impl FromSource {
    /// Whether a file that says the same has no such key.
    pub(super) fn leaves_out(self, key: &str) -> bool {
        match key {
            "timeout" => self.timeout,
            "idempotent" => self.idempotent,
            _ => false,
        }
    }
}

pub(super) fn protocol() -> Kind<Protocol> {
    let parse = |value: &DeValue<'_>| match value.as_str()? {
        "fanfare" => Some(Protocol::Fanfare),
        "grpc" => Some(Protocol::Grpc),
        _ => None,
    };
    let form = Form::OneOf(&["fanfare", "grpc"]);
    Kind::new(form, parse, |protocol| {
        quoted(match protocol {
            Protocol::Fanfare => "fanfare",
            Protocol::Grpc => "grpc",
        })
    })
}

pub(super) fn descriptors() -> Kind<Descriptors> {
    let parse = |value: &DeValue<'_>| match value.as_str()? {
        "" => None,
        REFLECTION => Some(Descriptors::Reflection),
        path => Some(Descriptors::File(PathBuf::from(path))),
    };
    Kind::new(descriptors_form(), parse, |descriptors| match descriptors {
        Descriptors::Reflection => quoted(REFLECTION),
        Descriptors::File(path) => quoted(&path.to_string_lossy()),
    })
}

fn descriptors_form() -> Form {
    Form::Or(REFLECTION, Box::new(Form::File(DESCRIPTOR_SET)))
}

/// Notes a file of descriptors that is not there. What is in it may change, and is no
/// matter of the configuration.
pub(super) fn check_descriptors(table: &mut Reader<'_, '_>, descriptors: &Descriptors) {
    let Descriptors::File(path) = descriptors else {
        return;
    };
    if table.is_offline() {
        table.leave_unread("descriptors", path.display());
    } else if let Err(error) = File::open(path) {
        let (expected, got) = (descriptors_form(), shown_text(&path.to_string_lossy()));
        table.refuse(
            "descriptors",
            format_args!("expected {expected} ({error}), got {got}"),
        );
    }
}

/// What names may begin with.
pub(super) fn prefix() -> Kind<String> {
    let parse = |value: &DeValue<'_>| {
        let prefix = value.as_str()?;
        let is_good = prefix.len() <= MAX_PREFIX && ToolName::check(prefix).is_ok();
        (prefix.is_empty() || is_good).then(|| prefix.to_owned())
    };
    Kind::new(Form::NamePrefix(MAX_PREFIX), parse, |prefix| quoted(prefix))
}

pub(super) fn stream() -> Kind<Stream> {
    let parse = |value: &DeValue<'_>| (value.as_str()? == "collect").then_some(Stream::Collect);
    Kind::new(Form::OneOf(&["collect"]), parse, |Stream::Collect| {
        quoted("collect")
    })
}
