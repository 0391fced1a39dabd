//! Pools out of `.proto` sources, and short ways to use them.

use bytes::Bytes;
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};
use serde_json::Value as Json;

use crate::{
    json::{decode_value, tree::Node},
    protobuf::{Message, Pool, Unreadable},
    tool::fanfare::payload,
};

struct Sources(Vec<(String, String)>);

impl FileResolver for Sources {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        match self.0.iter().find(|(known, _)| known == name) {
            Some((_, source)) => File::from_source(name, source),
            None => Err(protox::Error::file_not_found(name)),
        }
    }
}

/// The encoded descriptor set of these files and their imports, with comments.
pub(crate) fn compiled(files: &[(&str, &str)]) -> Bytes {
    let owned = files
        .iter()
        .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
    let mut resolver = ChainFileResolver::new();
    resolver.add(Sources(owned.collect()));
    resolver.add(GoogleFileResolver::new());
    let mut compiler = protox::Compiler::with_file_resolver(resolver);
    compiler.include_imports(true).include_source_info(true);
    let names = files.iter().map(|(name, _)| name);
    compiler.open_files(names).expect("sources that compile");
    compiler.encode_file_descriptor_set().into()
}

/// A pool without problems, of one file.
pub(crate) fn pool(source: &str) -> Pool {
    let set = compiled(&[("test.proto", source)]);
    let (pool, problems) = Pool::from_set(&set).expect("a set");
    assert_eq!(problems, []);
    pool
}

/// The message `test.NAME` of a source whose package is `test`.
pub(crate) fn message(source: &str, name: &str) -> Message {
    pool(source)
        .message(&format!("test.{name}"))
        .expect("a message")
}

/// Encodes a JSON text.
pub(crate) fn encode(message: &Message, json: &str) -> Bytes {
    let node = Node::from_json(json.as_bytes()).expect(json);
    message.encode(&node).expect(json)
}

/// Why a JSON text is refused: paths and descriptions.
pub(crate) fn refused(message: &Message, json: &str) -> Vec<(String, String)> {
    let node = Node::from_json(json.as_bytes()).expect(json);
    let violations = message.encode(&node).expect_err(json);
    let pairs = violations.into_iter();
    pairs.map(|it| (it.field, it.description)).collect()
}

/// Decodes what others can decode as well.
pub(crate) fn decode(message: &Message, wire: &[u8]) -> Result<Json, Unreadable> {
    let value = message.decode(wire, 1 << 20)?;
    payload::check(&value).expect("an observation");
    Ok(decode_value(&value).expect("a value"))
}

/// A JSON text, to the wire and back.
pub(crate) fn both_ways(message: &Message, json: &str) -> Json {
    let wire = encode(message, json);
    decode(message, &wire).expect("what was just encoded")
}

/// As an encoded `google.protobuf.Struct` that holds this.
pub(crate) fn of_struct(json: &Json) -> Bytes {
    crate::json::encode_struct(json.as_object().expect("an object"))
}

/// Encodes fields with prost, to have messages that were not made here.
pub(crate) fn encoded(message: &impl prost::Message) -> Vec<u8> {
    message.encode_to_vec()
}
