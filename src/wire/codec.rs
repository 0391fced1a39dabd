//! How messages are encoded: tonic's codec for prost, in a buffer that is as large
//! as the message. One that grows by doubling takes up to twice that, for as long
//! as the answer is not taken.

use std::marker::PhantomData;

use prost::Message;
use tonic::{
    Status,
    codec::{self, BufferSettings, EncodeBuf},
};
use tonic_prost::ProstCodec;

/// What the buffer of an RPC has to begin with. tonic's default of 8 KiB would be
/// held by each idle stream.
const BUFFER_BYTES: usize = 512;
/// How much may be ready before it is sent: tonic's default.
const SEND_AT_BYTES: usize = 32 << 10;

/// The codec of the generated services.
#[derive(Clone, Debug)]
pub struct Codec<T, U>(PhantomData<(T, U)>);

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
    type Decoder = <ProstCodec<T, U> as codec::Codec>::Decoder;

    fn encoder(&mut self) -> Self::Encoder {
        Encoder(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<T, U>::raw_decoder(BufferSettings::default())
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
        BufferSettings::new(BUFFER_BYTES, SEND_AT_BYTES)
    }
}
