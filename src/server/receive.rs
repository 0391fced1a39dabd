//! Receives the message of a unary request before its service is called.
//!
//! tonic would reserve whatever length the prefix claims, wait for the rest as long as
//! the request may run, decode any number of elements, and ignore what follows the
//! message. Here only bytes that have arrived are held, and they are counted; and a
//! service gets complete requests only.

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
    methods::MaxSize,
    receive_budget::{IncompleteHold, ReceiveBudget},
    request_body::RequestBody,
};
use crate::{
    core::buffered::Held,
    orchestrator::wire::status::{
        cancelled, malformed, no_time_left, not_complete, not_one_message, overloaded,
        request_too_large, too_many_streams, unknown_compression,
    },
    transport::gzip::{InflateError, inflate, max_compressed},
};

/// The compressed flag and the message length (gRPC over HTTP/2,
/// Length-Prefixed-Message).
pub(super) const PREFIX_BYTES: usize = 5;
/// How many DATA frames are kept before they are concatenated.
const MAX_FRAMES: usize = 64;
pub(super) const ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");

/// Why a request is not served.
#[derive(Debug)]
pub(super) struct Rejection {
    pub(super) status: Status,
    /// For metrics and the log; `None` if there is no such method or the caller
    /// cancelled.
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

/// A complete request.
#[derive(Debug)]
pub(super) struct Received {
    /// One uncompressed message, with its prefix.
    pub(super) body: Bytes,
    pub(super) held: Held,
}

impl Received {
    pub(super) fn message(&self) -> &[u8] {
        &self.body[PREFIX_BYTES..]
    }
}

/// By when a request must be complete.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReceiveDeadline {
    pub(super) arrival: Instant,
    /// `server.receive_timeout`.
    pub(super) timeout: Duration,
    /// That of the RPC.
    pub(super) deadline: Instant,
}

/// Receives the message of `body`, of at most `max`.
pub(super) async fn receive(
    body: &mut RequestBody,
    headers: &HeaderMap,
    max: MaxSize,
    budget: &ReceiveBudget,
    until: ReceiveDeadline,
) -> Result<Received, Rejection> {
    let gzip = is_gzip(headers)?;
    let mut receiver = Receiver {
        body,
        bytes: Collected::Nothing,
        max,
        gzip,
        held: None,
    };
    // A request that is complete already is neither copied nor timed.
    if receiver.poll_once().await? {
        receiver.hold_incomplete(headers, budget)?;
        let timed_out = until.arrival + until.timeout;
        let at = timed_out.min(until.deadline);
        let complete = poll_fn(|context| match receiver.poll(context) {
            Ok(Poll::Ready(())) => Poll::Ready(Ok(())),
            Ok(Poll::Pending) => receiver.poll_evicted(context).map(Err),
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
    receiver.complete(budget)
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

struct Receiver<'a> {
    body: &'a mut RequestBody,
    bytes: Collected,
    max: MaxSize,
    gzip: bool,
    /// Of a request that did not arrive at once.
    held: Option<IncompleteHold>,
}

/// The bytes that have arrived.
#[derive(Default)]
enum Collected {
    #[default]
    Nothing,
    /// One DATA frame, usually the whole request.
    Frame(Bytes),
    /// Frames that arrived together, the first with the whole prefix.
    Frames(Vec<Bytes>),
    Copied(Vec<u8>),
}

impl Collected {
    /// The leading bytes, with the prefix if that has arrived.
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

    /// A copy without spare capacity.
    fn copied(self) -> Vec<u8> {
        match self {
            Self::Nothing => Vec::new(),
            Self::Frame(frame) => frame.to_vec(),
            Self::Frames(frames) => frames.concat(),
            Self::Copied(bytes) => bytes,
        }
    }
}

impl Receiver<'_> {
    /// Whether the request is still incomplete.
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
                // The stream was reset, or the connection was lost.
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
            Collected::Nothing if self.held.is_none() => Collected::Frame(data),
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
        if let Some(held) = &mut self.held
            && !held.try_grow(more)
        {
            return Err(Rejection::overloaded());
        }
        bytes.reserve_exact(bytes.capacity() - bytes.len() + more);
        bytes.extend_from_slice(data);
        Ok(Collected::Copied(bytes))
    }

    /// By how much the capacity must grow for `needed` bytes: it doubles, up to the
    /// length that the prefix announces.
    fn growth(&self, bytes: &Vec<u8>, needed: usize) -> usize {
        let capacity = bytes.capacity();
        if needed <= capacity {
            return 0;
        }
        let announced = length(bytes).map_or(usize::MAX, |length| PREFIX_BYTES + length);
        (2 * capacity).min(announced).max(needed) - capacity
    }

    /// Checks what the bytes so far allow to check.
    fn check(&self) -> Result<(), Rejection> {
        let first = self.bytes.first();
        let most = match first.first() {
            Some(0) => self.max.bytes,
            // The inflated length is not known yet.
            Some(1) if self.gzip => max_compressed(self.max.bytes),
            Some(1) => {
                return Err(Rejection::malformed(
                    "the message is compressed, but grpc-encoding does not say how",
                ));
            }
            _ => {
                return Err(Rejection::malformed(
                    "the compressed flag is neither 0 nor 1",
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

    /// Copies what has arrived, since a frame keeps alive the whole buffer that was read
    /// from the connection, and holds it with the rest of the stream.
    fn hold_incomplete(
        &mut self,
        headers: &HeaderMap,
        budget: &ReceiveBudget,
    ) -> Result<(), Rejection> {
        let bytes = take(&mut self.bytes).copied();
        let held = budget.try_hold_incomplete(bytes.capacity(), headers);
        self.held = Some(held.ok_or_else(Rejection::overloaded)?);
        self.bytes = Collected::Copied(bytes);
        Ok(())
    }

    fn poll_evicted(&mut self, context: &mut Context<'_>) -> Poll<Rejection> {
        match &mut self.held {
            Some(held) => held.poll_evicted(context).map(|()| Rejection::overloaded()),
            None => Poll::Pending,
        }
    }

    fn complete(mut self, budget: &ReceiveBudget) -> Result<Received, Rejection> {
        let bytes = match take(&mut self.bytes) {
            Collected::Frame(bytes) => bytes,
            bytes => bytes.copied().into(),
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
        let held = match self.held {
            Some(held) => held.complete(bytes.len()),
            None => budget.try_hold_complete(bytes.len()),
        };
        Ok(Received {
            body: bytes,
            held: held.ok_or_else(Rejection::overloaded)?,
        })
    }

    /// The inflated message, with the prefix of an uncompressed one.
    fn inflated(&self, compressed: &[u8]) -> Result<Bytes, Rejection> {
        let message = inflate(compressed, self.max.bytes).map_err(|error| match error {
            InflateError::TooLarge => Rejection::new(
                "too_large",
                request_too_large(self.max.bytes, self.max.setting),
            ),
            InflateError::Corrupt => Rejection::malformed("the message is not valid gzip"),
        })?;
        let mut bytes = Vec::with_capacity(PREFIX_BYTES + message.len());
        bytes.push(0);
        // The limit on requests is lower.
        let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&message);
        Ok(bytes.into())
    }
}

/// The message length, if the prefix has arrived.
fn length(bytes: &[u8]) -> Option<usize> {
    let [_, length @ ..] = bytes.first_chunk::<PREFIX_BYTES>()?;
    Some(u32::from_be_bytes(*length) as usize)
}
