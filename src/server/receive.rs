//! Receives the one message of a request, before anything else is done for it.
//!
//! tonic would reserve what the message's prefix claims, wait for the rest as long as
//! the request may run, decode whatever number of elements comes, and ignore what
//! follows the message. Here what came is counted as it comes, and is all that is
//! held; and a request reaches its service when it is complete, and only then.

use std::{
    mem::take,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::poll_fn;
use http::{HeaderMap, HeaderName};
use http_body::Body as _;
use tokio::time::{Instant, timeout_at};
use tonic::Status;

use super::{
    arriving::{Arriving, Waiting},
    leftover::Inbound,
    methods::MaxSize,
    services::Complete,
};
use crate::{
    core::buffered::Held,
    orchestrator::wire::status::{
        cancelled, malformed, no_time_left, not_complete, not_one_message, overloaded,
        request_too_large, too_many_streams, unknown_compression,
    },
    transport::gzip::{InflateError, inflate, max_compressed},
};

/// A flag that says whether the message is compressed, and its length (gRPC over
/// HTTP/2, Length-Prefixed-Message).
const PREFIX_BYTES: usize = 5;
/// Frames that are kept as they came until they are put together, once.
const MAX_FRAMES: usize = 64;
pub(super) const ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");

/// Why a request is not served.
#[derive(Debug)]
pub(super) struct Rejection {
    pub(super) status: Status,
    /// In metrics and the log; `None` for what is no request of a method here, or whose
    /// caller left.
    pub(super) reason: Option<&'static str>,
}

impl Rejection {
    pub(super) fn new(reason: &'static str, status: Status) -> Self {
        Self {
            status,
            reason: Some(reason),
        }
    }

    fn malformed(how: &str) -> Self {
        Self::new("invalid", malformed(how))
    }

    fn not_one_message(how: &str) -> Self {
        Self::new("invalid", not_one_message(how))
    }

    pub(super) fn overloaded() -> Self {
        Self::new("buffers_full", overloaded())
    }

    pub(super) fn too_many_streams(max: usize) -> Self {
        Self::new("too_many_streams", too_many_streams(max))
    }
}

/// A request that is complete.
#[derive(Debug)]
pub(super) struct Received {
    /// One message, not compressed.
    pub(super) body: Complete,
    /// What it holds, as long as it lasts.
    pub(super) held: Held,
}

impl Received {
    pub(super) fn message(&self) -> &[u8] {
        &self.body.0[PREFIX_BYTES..]
    }
}

/// By when a request must be complete.
#[derive(Clone, Copy, Debug)]
pub(super) struct Until {
    /// When it arrived.
    pub(super) arrival: Instant,
    /// How long it may take.
    pub(super) timeout: Duration,
    /// When its caller needs no answer any more.
    pub(super) deadline: Instant,
}

/// Receives the message of `body`, which has at most `max`.
pub(super) async fn receive(
    body: &mut Inbound,
    headers: &HeaderMap,
    max: MaxSize,
    arriving: &Arriving,
    until: Until,
) -> Result<Received, Rejection> {
    let gzip = is_gzip(headers)?;
    let mut incoming = Incoming {
        body,
        bytes: Collected::Nothing,
        max,
        gzip,
        waiting: None,
    };
    // What is there already is neither copied nor timed.
    if incoming.poll_once().await? {
        incoming.wait(headers, arriving)?;
        let timed_out = until.arrival + until.timeout;
        let at = timed_out.min(until.deadline);
        let complete = poll_fn(|context| match incoming.poll(context) {
            Ok(Poll::Ready(())) => Poll::Ready(Ok(())),
            Ok(Poll::Pending) => incoming.poll_evicted(context).map(Err),
            Err(rejection) => Poll::Ready(Err(rejection)),
        });
        match timeout_at(at, complete).await {
            Ok(result) => result?,
            Err(_) if at < timed_out => return Err(Rejection::new("expired", no_time_left())),
            Err(_) => {
                let status = not_complete(until.timeout);
                return Err(Rejection::new("expired", status));
            }
        }
    }
    incoming.complete(arriving)
}

/// What `grpc-encoding` says.
fn is_gzip(headers: &HeaderMap) -> Result<bool, Rejection> {
    match headers.get(ENCODING).map(|value| value.as_bytes()) {
        None | Some(b"identity") => Ok(false),
        Some(b"gzip") => Ok(true),
        Some(other) => Err(Rejection::new(
            "invalid",
            unknown_compression(&String::from_utf8_lossy(other)),
        )),
    }
}

/// A request as it comes.
struct Incoming<'a> {
    body: &'a mut Inbound,
    bytes: Collected,
    max: MaxSize,
    gzip: bool,
    /// What is held for a request that does not come at once.
    waiting: Option<Waiting>,
}

/// What has come.
#[derive(Default)]
enum Collected {
    #[default]
    Nothing,
    /// A frame as it came: mostly the whole request.
    Frame(Bytes),
    /// Some that came together, the first with all of the prefix.
    Frames(Vec<Bytes>),
    Copied(Vec<u8>),
}

impl Collected {
    /// The first of the bytes: the prefix, if that has come.
    fn first(&self) -> &[u8] {
        match self {
            Self::Nothing => &[],
            Self::Frame(bytes) => bytes,
            Self::Frames(frames) => &frames[0],
            Self::Copied(bytes) => bytes,
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Frames(frames) => frames.iter().map(Bytes::len).sum(),
            _ => self.first().len(),
        }
    }

    /// A copy that takes no more than it needs.
    fn copied(self) -> Vec<u8> {
        match self {
            Self::Nothing => Vec::new(),
            Self::Frame(frame) => frame.to_vec(),
            Self::Frames(frames) => frames.concat(),
            Self::Copied(bytes) => bytes,
        }
    }
}

impl Incoming<'_> {
    /// Whether there is still something to come.
    async fn poll_once(&mut self) -> Result<bool, Rejection> {
        let polled = poll_fn(|context| Poll::Ready(self.poll(context))).await?;
        Ok(polled.is_pending())
    }

    /// Ready when the request is complete.
    fn poll(&mut self, context: &mut Context<'_>) -> Result<Poll<()>, Rejection> {
        loop {
            let Poll::Ready(frame) = Pin::new(&mut *self.body).poll_frame(context) else {
                return Ok(Poll::Pending);
            };
            match frame {
                None => return Ok(Poll::Ready(())),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.take(data)?;
                    }
                    if self.body.is_end_stream() {
                        return Ok(Poll::Ready(()));
                    }
                }
                // Whoever reset the stream, or lost the connection.
                Some(Err(_)) => {
                    return Err(Rejection {
                        status: cancelled(),
                        reason: None,
                    });
                }
            }
        }
    }

    fn take(&mut self, data: Bytes) -> Result<(), Rejection> {
        if data.is_empty() {
            return Ok(());
        }
        self.bytes = match take(&mut self.bytes) {
            Collected::Nothing if self.waiting.is_none() => Collected::Frame(data),
            Collected::Frame(first) if first.len() >= PREFIX_BYTES => {
                Collected::Frames(vec![first, data])
            }
            Collected::Frames(mut frames) if frames.len() < MAX_FRAMES => {
                frames.push(data);
                Collected::Frames(frames)
            }
            so_far => self.copy(so_far.copied(), &data)?,
        };
        self.check()
    }

    fn copy(&mut self, mut bytes: Vec<u8>, data: &[u8]) -> Result<Collected, Rejection> {
        let more = self.growth(&bytes, bytes.len() + data.len());
        if let Some(waiting) = &mut self.waiting
            && !waiting.try_grow(more)
        {
            return Err(Rejection::overloaded());
        }
        bytes.reserve_exact(bytes.capacity() - bytes.len() + more);
        bytes.extend_from_slice(data);
        Ok(Collected::Copied(bytes))
    }

    /// How much more room there must be for `needed` bytes: twice as much as before,
    /// but no more than was announced.
    fn growth(&self, bytes: &Vec<u8>, needed: usize) -> usize {
        let capacity = bytes.capacity();
        if needed <= capacity {
            return 0;
        }
        let announced = length(bytes).map_or(usize::MAX, |length| PREFIX_BYTES + length);
        let room = (2 * capacity).min(announced).max(needed);
        room - capacity
    }

    /// Checks what is known as soon as it is.
    fn check(&self) -> Result<(), Rejection> {
        let first = self.bytes.first();
        let most = match first.first() {
            Some(0) => self.max.bytes,
            // The length of what it stands for is known when it is inflated.
            Some(1) if self.gzip => max_compressed(self.max.bytes),
            Some(1) => {
                return Err(Rejection::malformed(
                    "the message is compressed, grpc-encoding does not say how",
                ));
            }
            _ => {
                return Err(Rejection::malformed(
                    "the message's flag is neither 0 nor 1",
                ));
            }
        };
        let Some(length) = length(first) else {
            return Ok(());
        };
        if length > most {
            let status = request_too_large(self.max.bytes, self.max.setting);
            return Err(Rejection::new("too_large", status));
        }
        if self.bytes.len() > PREFIX_BYTES + length {
            return Err(Rejection::not_one_message("there is more than one message"));
        }
        Ok(())
    }

    /// Gets ready for what does not come at once. A frame as it came would keep alive
    /// all that was read from the connection with it.
    fn wait(&mut self, headers: &HeaderMap, arriving: &Arriving) -> Result<(), Rejection> {
        let bytes = take(&mut self.bytes).copied();
        let waiting = arriving.try_wait(bytes.capacity(), headers);
        self.waiting = Some(waiting.ok_or_else(Rejection::overloaded)?);
        self.bytes = Collected::Copied(bytes);
        Ok(())
    }

    fn poll_evicted(&mut self, context: &mut Context<'_>) -> Poll<Rejection> {
        match &mut self.waiting {
            Some(waiting) => waiting
                .poll_evicted(context)
                .map(|()| Rejection::overloaded()),
            None => Poll::Pending,
        }
    }

    fn complete(mut self, arriving: &Arriving) -> Result<Received, Rejection> {
        let bytes = match take(&mut self.bytes) {
            Collected::Frame(bytes) => bytes,
            several => several.copied().into(),
        };
        let Some(length) = length(&bytes) else {
            return Err(if bytes.is_empty() {
                Rejection::not_one_message("there is no message")
            } else {
                Rejection::malformed("the message is cut off")
            });
        };
        if bytes.len() < PREFIX_BYTES + length {
            return Err(Rejection::malformed("the message is cut off"));
        }
        let bytes = if bytes[0] == 0 {
            bytes
        } else {
            self.inflated(&bytes[PREFIX_BYTES..])?
        };
        let held = match self.waiting {
            Some(waiting) => waiting.complete(bytes.len()),
            None => arriving.try_hold_complete(bytes.len()),
        };
        Ok(Received {
            body: Complete(bytes),
            held: held.ok_or_else(Rejection::overloaded)?,
        })
    }

    /// The message that `compressed` stands for, as if it had come like that.
    fn inflated(&self, compressed: &[u8]) -> Result<Bytes, Rejection> {
        let message = inflate(compressed, self.max.bytes).map_err(|error| match error {
            InflateError::TooLarge => Rejection::new(
                "too_large",
                request_too_large(self.max.bytes, self.max.setting),
            ),
            InflateError::Corrupt => Rejection::malformed("the message is no gzip"),
        })?;
        let mut bytes = Vec::with_capacity(PREFIX_BYTES + message.len());
        bytes.push(0);
        // No message that may be sent is longer.
        let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&message);
        Ok(bytes.into())
    }
}

/// The length in the prefix, if that has come.
fn length(bytes: &[u8]) -> Option<usize> {
    let [_, length @ ..] = bytes.first_chunk::<PREFIX_BYTES>()?;
    Some(u32::from_be_bytes(*length) as usize)
}
