//! A `CallToolRequest` on the wire.

use bytes::{BufMut as _, Bytes, BytesMut};
use prost::encoding::{self, WireType, encode_key, encode_varint, string, uint32};

use crate::{
    core::{call::ToolCall, reservation::UNCOPIED_BYTES},
    tool::grpc::request::PREFIX_BYTES,
};

/// A `CallToolRequest` in its frame: in one piece, or with large arguments in a
/// second. It is written field by field: the generated message owns its strings.
pub(super) fn framed(
    call: &ToolCall,
    name: &str,
    arguments: Option<&Bytes>,
    attempt: u32,
) -> (Bytes, Option<Bytes>) {
    const ID: u32 = 1;
    const NAME: u32 = 2;
    const ARGUMENTS: u32 = 3;
    const ATTEMPT: u32 = 4;
    let length = string::encoded_len(ID, &call.id)
        + encoding::key_len(NAME)
        + encoding::encoded_len_varint(name.len() as u64)
        + name.len()
        + uint32::encoded_len(ATTEMPT, &attempt)
        + arguments.map_or(0, |arguments| {
            encoding::bytes::encoded_len(ARGUMENTS, arguments)
        });
    // One more DATA frame is cheaper then than a copy.
    let apart = arguments.filter(|arguments| arguments.len() >= UNCOPIED_BYTES);
    let copied = length - apart.map_or(0, Bytes::len);
    let mut head = BytesMut::with_capacity(PREFIX_BYTES + copied);
    head.put_u8(0);
    // The limit on requests is far below 4 GiB.
    head.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    string::encode(ID, &call.id, &mut head);
    encode_key(NAME, WireType::LengthDelimited, &mut head);
    encode_varint(name.len() as u64, &mut head);
    head.put_slice(name.as_bytes());
    uint32::encode(ATTEMPT, &attempt, &mut head);
    // Last, so that they can go apart: the order of fields does not matter.
    if let Some(arguments) = arguments {
        encode_key(ARGUMENTS, WireType::LengthDelimited, &mut head);
        encode_varint(arguments.len() as u64, &mut head);
        if apart.is_none() {
            head.put_slice(arguments);
        }
    }
    (head.freeze(), apart.cloned())
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::{core::call::Arguments, pb::CallToolRequest};

    #[test]
    fn a_message_is_what_the_generated_code_reads_in_one_piece_or_two() {
        let lengths = [0, 1, 200, UNCOPIED_BYTES - 1, UNCOPIED_BYTES, 100_000];
        let arguments = lengths.map(|length| Some(Bytes::from(vec![7; length])));
        for arguments in [None].into_iter().chain(arguments) {
            for (id, attempt) in [("", 0), ("an id", 1), ("\u{e9}", u32::MAX)] {
                let call = ToolCall {
                    id: id.to_owned(),
                    name: "tool".to_owned(),
                    arguments: Arguments::Absent,
                    timeout: None,
                };
                let (head, rest) = framed(&call, &call.name, arguments.as_ref(), attempt);
                let length = arguments.as_ref().map_or(0, Bytes::len);
                assert_eq!(rest.is_some(), length >= UNCOPIED_BYTES);
                let whole = [head, rest.unwrap_or_default()].concat();
                let (prefix, message) = whole.split_at(PREFIX_BYTES);
                assert_eq!(prefix[0], 0);
                assert_eq!(prefix[1..], (message.len() as u32).to_be_bytes());
                let read = CallToolRequest::decode(message).unwrap();
                assert_eq!((read.id, read.name), (call.id, call.name));
                assert_eq!((read.arguments, read.attempt), (arguments.clone(), attempt));
            }
        }
    }
}
