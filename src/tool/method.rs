//! A method of any gRPC service as a tool. Arguments are translated into its request while
//! the call is planned, by what is known of its messages (`protobuf`); its answer becomes the
//! observation. One that answers with a stream is collected: a list of all that came, once
//! the stream has ended well.

use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::uri::PathAndQuery;
use prost::encoding::{WireType, encode_key, encode_varint};

use super::{
    attempt::Attempt,
    fanfare::payload,
    grpc::{self, failure::Fault, messages, observation, reply, request::PREFIX_BYTES},
    protocol::Protocol,
};
use crate::{
    core::{
        buffered::{Buffered, Held},
        call::Arguments,
        error::Violation,
        observer::Target,
        reservation::UNCOPIED_BYTES,
    },
    json::tree::Node,
    net::{Answers, InFlight, Upstream},
    policy::Failure,
    protobuf::{Message, Unreadable},
};

/// The most messages of a stream that are collected.
const MAX_COLLECTED: usize = 10_000;

/// A method of a service, as its descriptors had it when it was made.
#[derive(Debug)]
pub(crate) struct Method {
    path: PathAndQuery,
    input: Message,
    output: Message,
    /// Whether it answers with a stream.
    streams: bool,
    upstream: Arc<Upstream>,
    max_result_bytes: usize,
    answers: Answers,
}

/// What a method takes, and what it gives.
#[derive(Clone, Debug)]
pub(crate) struct Messages {
    pub(crate) input: Message,
    pub(crate) output: Message,
    /// Whether it gives any number of them.
    pub(crate) streams: bool,
}

impl Method {
    /// The method `full_name` (`package.Service/Method`) of `upstream`. Observations longer
    /// than `max_result_bytes` fail their call. `None` if there can't be a method of that
    /// name.
    pub(crate) fn new(
        full_name: &str,
        messages: Messages,
        upstream: Arc<Upstream>,
        max_result_bytes: usize,
    ) -> Option<Self> {
        let Messages {
            input,
            output,
            streams,
        } = messages;
        let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '/');
        if !full_name.chars().all(is_part) {
            return None;
        }
        Some(Self {
            path: PathAndQuery::try_from(format!("/{full_name}")).ok()?,
            input,
            output,
            streams,
            upstream,
            max_result_bytes,
            answers: Answers::default(),
        })
    }

    async fn observation(
        &self,
        in_flight: &mut InFlight<'_>,
        buffered: &Buffered,
    ) -> Result<Bytes, Fault> {
        let reply = in_flight.response().await.map_err(Fault::unanswered)?;
        let max_bytes = self.max_result_bytes;
        if !self.streams {
            let reply = reply::read(reply, max_bytes, buffered).await?;
            return observation::keep_own(self.decode(&reply.message, max_bytes)?, buffered);
        }
        let mut list = List::new(max_bytes, buffered);
        let take = |message: &[u8]| list.add(&self.decode(message, max_bytes)?);
        messages::read(reply, MAX_COLLECTED, max_bytes, buffered, take).await?;
        let value = list.into_value();
        payload::check(&value).map_err(Fault::Invalid)?;
        observation::keep_own(value, buffered)
    }

    fn decode(&self, message: &[u8], max_bytes: usize) -> Result<Bytes, Fault> {
        let decoded = self.output.decode(message, max_bytes);
        decoded.map_err(|error| match error {
            Unreadable::TooLarge => Fault::Outgrown,
            Unreadable::Invalid(why) => Fault::NoMessage(self.output.full_name().to_owned(), why),
        })
    }
}

impl Protocol for Method {
    fn prepare(&self, arguments: &Arguments) -> Result<Option<Bytes>, Vec<Violation>> {
        let arguments = match arguments {
            Arguments::Absent => Node::Object(Vec::new()),
            Arguments::Struct(encoded) => Node::from_struct(encoded)?,
            Arguments::Json(text) => Node::from_json(text)?,
        };
        self.input.encode(&arguments).map(Some)
    }

    fn target(&self) -> &Target {
        self.upstream.target()
    }

    async fn attempt(&self, attempt: &mut Attempt<'_>) -> Result<Bytes, Failure> {
        let framed = |attempt: &Attempt<'_>| framed(attempt.payload());
        let (upstream, answers) = (&self.upstream, &self.answers);
        let sending = grpc::send(attempt, upstream, answers, &self.path, framed);
        let mut in_flight = sending.await?;
        let outcome = self.observation(&mut in_flight, attempt.buffered()).await;
        grpc::end(attempt, in_flight, outcome, self.max_result_bytes).await
    }
}

/// A message in its frame: in one piece, or in a second if it is large.
fn framed(message: Option<&Bytes>) -> (Bytes, Option<Bytes>) {
    let length = message.map_or(0, Bytes::len);
    // One more DATA frame is cheaper then than a copy.
    let apart = message.filter(|message| message.len() >= UNCOPIED_BYTES);
    let copied = message.filter(|_| apart.is_none());
    let mut head = BytesMut::with_capacity(PREFIX_BYTES + copied.map_or(0, Bytes::len));
    head.put_u8(0);
    // Requests are far below 4 GiB, and so is what they are translated into.
    head.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    if let Some(message) = copied {
        head.put_slice(message);
    }
    (head.freeze(), apart.cloned())
}

/// Observations of a stream, as the values of an encoded `ListValue`.
struct List {
    values: BytesMut,
    max_bytes: usize,
    held: Held,
}

impl List {
    fn new(max_bytes: usize, buffered: &Buffered) -> Self {
        Self {
            values: BytesMut::new(),
            max_bytes,
            held: buffered.hold(0),
        }
    }

    fn add(&mut self, value: &[u8]) -> Result<(), Fault> {
        const VALUES: u32 = 1;
        encode_key(VALUES, WireType::LengthDelimited, &mut self.values);
        encode_varint(value.len() as u64, &mut self.values);
        self.values.put_slice(value);
        if self.values.len() > self.max_bytes {
            return Err(Fault::Outgrown);
        }
        let more = self.values.capacity().saturating_sub(self.held.bytes());
        if more > 0 && !self.held.try_grow_leaving_room(more) {
            let bytes = self.values.len();
            return Err(Fault::NoMemory { bytes });
        }
        Ok(())
    }

    /// The encoded `Value`.
    fn into_value(self) -> Bytes {
        const LIST_VALUE: u32 = 6;
        let mut value = BytesMut::with_capacity(self.values.len() + 8);
        encode_key(LIST_VALUE, WireType::LengthDelimited, &mut value);
        encode_varint(self.values.len() as u64, &mut value);
        value.put_slice(&self.values);
        value.freeze()
    }
}
