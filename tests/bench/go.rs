//! A yardstick: `go/main.go`, an orchestrator on grpc-go. It is built if `go` is
//! there, with stubs made from the descriptors that Fanfare serves, so that no
//! `protoc` is needed and no generated code is kept.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use fanfare::pb::FILE_DESCRIPTOR_SET;
use prost::Message as _;
use prost_types::{
    FileDescriptorSet,
    compiler::{CodeGeneratorRequest, CodeGeneratorResponse},
};

use crate::Result;

/// The module, whose `go.mod` has the versions of all, and `go.sum` their hashes.
const MODULE: [(&str, &str); 3] = [
    ("go.mod", include_str!("go/go.mod")),
    ("go.sum", include_str!("go/go.sum")),
    ("main.go", include_str!("go/main.go")),
];
/// protoc's plugins, which take on standard input what protoc would give them.
const GENERATORS: [&str; 2] = ["protoc-gen-go", "protoc-gen-go-grpc"];
const PROTOS: &str = "fanfare/v1/";

/// The program, built at the first call; `None`, once said why, if it can't be.
pub(crate) fn program() -> Option<&'static Path> {
    static BUILT: OnceLock<Option<PathBuf>> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        build()
            .inspect_err(|error| println!("go: left out: {error}"))
            .ok()
    });
    built.as_deref()
}

fn build() -> Result<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench-go");
    fs::create_dir_all(&folder)?;
    for (name, text) in MODULE {
        fs::write(folder.join(name), text)?;
    }
    let request = request()?;
    for generator in GENERATORS {
        let output = go(&folder, &["tool", generator], &request)?;
        let response = CodeGeneratorResponse::decode(output.as_slice())?;
        if let Some(error) = response.error {
            return Err(format!("{generator}: {error}").into());
        }
        for file in response.file {
            let path = folder.join(file.name());
            fs::create_dir_all(path.parent().unwrap_or(&folder))?;
            fs::write(path, file.content())?;
        }
    }
    go(
        &folder,
        &["build", "-trimpath", "-o", "orchestrator", "."],
        &[],
    )?;
    Ok(folder.join("orchestrator"))
}

/// For stubs of our files, but not of those that they import.
fn request() -> Result<Vec<u8>> {
    let proto_file = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET)?.file;
    let names = proto_file.iter().map(|file| file.name().to_owned());
    let request = CodeGeneratorRequest {
        file_to_generate: names.filter(|name| name.starts_with(PROTOS)).collect(),
        parameter: Some("paths=source_relative".to_owned()),
        proto_file,
        compiler_version: None,
    };
    Ok(request.encode_to_vec())
}

/// Runs `go` in the module; returns its standard output.
fn go(folder: &Path, arguments: &[&str], input: &[u8]) -> Result<Vec<u8>> {
    let mut child = Command::new("go")
        .args(arguments)
        .current_dir(folder)
        .env("CGO_ENABLED", "0")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("can't start go: {error}"))?;
    // The generators read all before they write.
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input)?;
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        return Err(format!("go {}: {}", arguments.join(" "), output.status).into());
    }
    Ok(output.stdout)
}
