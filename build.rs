//! Compiles `proto/` with cargo alone: no `protoc` on the machine.
//!
//! The published contract types a call's arguments and observation as `Struct`
//! and `Value`. Inside, the same fields are generated as `bytes::Bytes`, which
//! look the same on the wire (both are length-delimited), so that Fanfare passes
//! them on without decoding them. The original descriptors serve reflection.

use std::{env, error::Error, fs, path::Path};

use prost::Message as _;
use prost_types::{
    DescriptorProto, FileDescriptorSet,
    field_descriptor_proto::{Label, Type},
};
use protox::file::{ChainFileResolver, GoogleFileResolver, IncludeFileResolver};

/// `error_details.proto` is not imported by ours: reflection serves it, so that
/// grpcurl can print the details of an error.
const PROTOS: [&str; 4] = [
    "fanfare/v1/orchestrator.proto",
    "fanfare/v1/tool.proto",
    "fanfare/v1/types.proto",
    "google/rpc/error_details.proto",
];
/// Text that is as good as a model's: it is checked with the rest of its call.
const MODELS_TEXT: &str = "arguments_json";
/// What the descriptors of other services may leave out.
const WELL_KNOWN: [&str; 13] = [
    "google/protobuf/any.proto",
    "google/protobuf/api.proto",
    "google/protobuf/descriptor.proto",
    "google/protobuf/duration.proto",
    "google/protobuf/empty.proto",
    "google/protobuf/field_mask.proto",
    "google/protobuf/source_context.proto",
    "google/protobuf/struct.proto",
    "google/protobuf/timestamp.proto",
    "google/protobuf/type.proto",
    "google/protobuf/wrappers.proto",
    "google/rpc/error_details.proto",
    "google/rpc/status.proto",
];
const OPAQUE_TYPES: [&str; 2] = [".google.protobuf.Struct", ".google.protobuf.Value"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");

    let published = compile(&PROTOS, true)?;
    let out_dir = env::var("OUT_DIR")?;
    fs::write(
        Path::new(&out_dir).join("well_known.bin"),
        compile(&WELL_KNOWN, false)?.encode_to_vec(),
    )?;
    fs::write(
        Path::new(&out_dir).join("descriptors.bin"),
        published.encode_to_vec(),
    )?;

    let mut generated = published;
    for file in &mut generated.file {
        if file.package() == "fanfare.v1" {
            file.message_type.iter_mut().for_each(make_payloads_opaque);
        }
    }
    tonic_prost_build::configure()
        .bytes(".fanfare.v1")
        .extern_path(".google.rpc", "::tonic_types::pb")
        .build_transport(false)
        .codec_path("crate::orchestrator::wire::codec::Codec")
        .compile_fds(generated)?;
    Ok(())
}

/// These files with their imports. Those of the contract lie beside it, so that others
/// compile it, too.
fn compile(protos: &[&str], comments: bool) -> Result<FileDescriptorSet, Box<dyn Error>> {
    let mut resolver = ChainFileResolver::new();
    resolver.add(IncludeFileResolver::new("proto".into()));
    resolver.add(GoogleFileResolver::new());

    let mut compiler = protox::Compiler::with_file_resolver(resolver);
    compiler.include_imports(true).include_source_info(comments);
    compiler.open_files(protos)?;
    Ok(FileDescriptorSet::decode(
        compiler.encode_file_descriptor_set().as_slice(),
    )?)
}

fn make_payloads_opaque(message: &mut DescriptorProto) {
    for field in &mut message.field {
        if field.name() == MODELS_TEXT {
            field.set_type(Type::Bytes);
        }
        if OPAQUE_TYPES.contains(&field.type_name()) {
            // Presence must survive the change of type: absent stays absent.
            if field.oneof_index.is_none() && field.label() == Label::Optional {
                field.proto3_optional = Some(true);
                field.oneof_index = Some(i32::try_from(message.oneof_decl.len()).unwrap_or(0));
                message.oneof_decl.push(prost_types::OneofDescriptorProto {
                    name: Some(format!("_{}", field.name())),
                    options: None,
                });
            }
            field.set_type(Type::Bytes);
            field.type_name = None;
        }
    }
}
