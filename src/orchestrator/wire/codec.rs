//! The codec of the generated services: tonic's codec for prost, but with buffers of
//! the size of the message. One that grows by doubling takes up to twice that until the
//! response is sent; and requests mostly arrive in one piece, which needs no buffer.
//! Undecodable messages are refused with a status of ours.

use std::{cell::Cell, marker::PhantomData};

use bytes::Buf as _;
use prost::Message;
use tonic::{
    Status,
    codec::{self, BufferSettings, DecodeBuf, EncodeBuf},
};

use super::status::malformed;

/// The initial buffer of an RPC. Each idle stream would hold tonic's default of 8 KiB.
const BUFFER_BYTES: usize = 512;
/// By how much a buffer grows while a message is inflated: tonic's default.
const GROWTH_BYTES: usize = 8 << 10;
/// How much is buffered before it is sent: tonic's default.
pub(crate) const YIELD_BYTES: usize = 32 << 10;

/// The codec of the generated services.
#[derive(Clone, Debug)]
pub struct Codec<T, U>(PhantomData<(T, U)>);

/// Decodes a `U`.
#[derive(Debug)]
pub struct Decoder<U> {
    is_new: Cell<bool>,
    message: PhantomData<U>,
}

/// Encodes a `T`.
#[derive(Clone, Debug)]
pub struct Encoder<T>(PhantomData<T>);

impl<T, U> Default for Codec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> codec::Codec for Codec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = Encoder<T>;
    type Decoder = Decoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        Encoder(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        Decoder {
            is_new: Cell::new(true),
            message: PhantomData,
        }
    }
}

impl<U: Message + Default> codec::Decoder for Decoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        // prost decodes `Bytes` several times as fast as a `DecodeBuf`.
        let message = buffer.copy_to_bytes(buffer.remaining());
        let decoded = U::decode(message).map_err(|error| malformed(&error.to_string()))?;
        Ok(Some(decoded))
    }

    /// tonic's first call is for the initial buffer: if that is empty, a message that
    /// arrives in one unshared piece becomes the buffer and is not copied. Later calls
    /// are for the growth while inflating.
    fn buffer_settings(&self) -> BufferSettings {
        let size = if self.is_new.replace(false) {
            0
        } else {
            GROWTH_BYTES
        };
        BufferSettings::new(size, YIELD_BYTES)
    }
}

impl<T: Message> codec::Encoder for Encoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, message: T, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.reserve(message.encoded_len());
        message.encode_raw(buffer);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER_BYTES, YIELD_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::{Pin, pin},
        task::{Context, Poll},
    };

    use bytes::{BufMut as _, Bytes};
    use futures_util::FutureExt as _;
    use http::StatusCode;
    use http_body::{Body, Frame};
    use tokio_stream::StreamExt as _;
    use tonic::codec::{Codec as _, CompressionEncoding, Streaming};

    use super::*;
    use crate::{pb::CallToolResponse, transport::gzip::deflate};

    struct InOnePiece(Option<Bytes>);

    impl Body for InOnePiece {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
        }
    }

    fn response() -> CallToolResponse {
        CallToolResponse {
            observation: Some(Bytes::from(vec![7; 100_000])),
        }
    }

    fn framed(flag: u8, message: &[u8]) -> Bytes {
        let mut framed = vec![flag];
        framed.put_u32(message.len() as u32);
        framed.extend_from_slice(message);
        framed.into()
    }

    fn decoded(body: Bytes) -> CallToolResponse {
        let decoder = Codec::<(), CallToolResponse>::default().decoder();
        let body = InOnePiece(Some(body));
        let gzip = Some(CompressionEncoding::Gzip);
        let messages = Streaming::new_response(decoder, body, StatusCode::OK, gzip, None);
        let next = pin!(messages).next().now_or_never();
        next.expect("at once").expect("a message").expect("decodes")
    }

    #[test]
    fn a_message_in_one_piece_is_not_copied() {
        let body = framed(0, &response().encode_to_vec());
        let place = body.as_ptr_range();
        let observation = decoded(body).observation.unwrap();
        assert_eq!(observation.len(), 100_000);
        assert!(place.contains(&observation.as_ptr()));
    }

    #[test]
    fn shared_and_compressed_messages_are_decoded() {
        let message = response().encode_to_vec();
        let shared = framed(0, &message);
        assert_eq!(decoded(shared.clone()), response());
        assert_eq!(shared[5..], message);
        let compressed = deflate(&message).unwrap();
        assert_eq!(decoded(framed(1, &compressed)), response());
    }
}
