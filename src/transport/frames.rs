//! Observes the HTTP/2 frames that a peer sends, below h2.
//!
//! h2 does not report everything that is needed here, and honest peers can exceed one of
//! its limits per connection. So the frame headers (9 bytes, RFC 9113, 4.1) are parsed as
//! they arrive; most payloads are skipped.
//!
//! - Empty DATA frames without END_STREAM are dropped: they say nothing, and h2 closes a
//!   connection after 100 of them.
//! - `SETTINGS_MAX_HEADER_LIST_SIZE` is recorded, which h2 ignores.
//! - Reads are counted, and so are HEADERS and DATA frames: whether a peer is silent, and
//!   whether it tolerates pings (gRFC A8), depends on them.
//! - The error of a GOAWAY is recorded. h2 forgets it if the connection then ends, and
//!   the calls on it are to fail with that reason, not with a broken pipe.

use std::{
    cmp::min,
    fmt, io,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::Buf as _;
use h2::Reason;
use tokio::io::{AsyncRead, ReadBuf};

use super::writes::writes_to_io;

/// What each field adds to the size of a header list, besides its name and value
/// (RFC 9113, 6.5.2).
pub(crate) const FIELD_BYTES: usize = 32;

const HEADER_BYTES: usize = 9;
/// What a client sends before its first frame (RFC 9113, 3.4).
const PREFACE_BYTES: usize = 24;
/// For readers whose buffer has no room for a frame header.
const SCRATCH_BYTES: usize = 64;
/// What is kept of a GOAWAY: the last stream, the code, and 128 bytes of debug data.
const MAX_GOAWAY_BYTES: usize = 8 + 128;

/// A connection that records the frames of its peer in [`PeerFrames`].
#[derive(Debug)]
pub(crate) struct FrameObserver<T> {
    io: T,
    parser: Parser,
    /// Read and parsed, but too long for the reader's buffer.
    ready: Vec<u8>,
}

/// What was observed of a peer's frames.
#[derive(Debug)]
pub(crate) struct PeerFrames {
    reads: AtomicU32,
    answers: AtomicU32,
    settings_acks: AtomicU32,
    max_header_list: AtomicU32,
    goaway: OnceLock<GoAway>,
    abort_reason: OnceLock<String>,
}

/// A GOAWAY with an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GoAway {
    pub(crate) code: Reason,
    /// Escaped to printable characters.
    pub(crate) debug_data: String,
}

impl PeerFrames {
    /// How many reads returned data, modulo 2^32.
    pub(crate) fn reads(&self) -> u32 {
        self.reads.load(Ordering::Relaxed)
    }

    /// How many HEADERS and DATA frames have arrived, modulo 2^32.
    pub(crate) fn answers(&self) -> u32 {
        self.answers.load(Ordering::Relaxed)
    }

    /// How many of our SETTINGS the peer has acknowledged, modulo 2^32.
    pub(crate) fn settings_acks(&self) -> u32 {
        self.settings_acks.load(Ordering::Relaxed)
    }

    /// The first GOAWAY with an error.
    pub(crate) fn goaway(&self) -> Option<&GoAway> {
        self.goaway.get()
    }

    /// Has the next read fail with `reason`, and so the connection.
    pub(crate) fn abort(&self, reason: String) {
        // The first reason stays.
        let _ = self.abort_reason.set(reason);
    }

    fn goaway_error(&self) -> Option<io::Error> {
        let error = self.goaway.get()?;
        let reason = format!("the peer closed it with {error}");
        Some(io::Error::new(io::ErrorKind::ConnectionAborted, reason))
    }

    /// The peer's `SETTINGS_MAX_HEADER_LIST_SIZE`, if it has sent one (RFC 9113, 6.5.2:
    /// uncompressed names and values, and [`FIELD_BYTES`] for each field).
    pub(crate) fn max_header_list(&self) -> Option<u32> {
        let announced = self.max_header_list.load(Ordering::Relaxed);
        (announced != u32::MAX).then_some(announced)
    }
}

impl<T> FrameObserver<T> {
    /// Observes a server.
    pub(crate) fn of_server(io: T) -> (Self, Arc<PeerFrames>) {
        Self::new(io, 0)
    }

    /// Observes a client.
    pub(crate) fn of_client(io: T) -> (Self, Arc<PeerFrames>) {
        Self::new(io, PREFACE_BYTES)
    }

    fn new(io: T, preface: usize) -> (Self, Arc<PeerFrames>) {
        let frames = Arc::new(PeerFrames {
            reads: AtomicU32::new(0),
            answers: AtomicU32::new(0),
            settings_acks: AtomicU32::new(0),
            max_header_list: AtomicU32::new(u32::MAX),
            goaway: OnceLock::new(),
            abort_reason: OnceLock::new(),
        });
        let observer = Self {
            io,
            parser: Parser {
                payload_bytes: preface,
                payload: Payload::Skipped,
                partial_header: [0; HEADER_BYTES],
                partial_header_bytes: 0,
                frames: Arc::clone(&frames),
            },
            ready: Vec::new(),
        };
        (observer, frames)
    }
}

/// Parses a sequence of frames that arrives in pieces.
#[derive(Debug)]
struct Parser {
    /// What is left of the current frame's payload.
    payload_bytes: usize,
    payload: Payload,
    /// The beginning of a frame header, withheld until the rest has arrived.
    partial_header: [u8; HEADER_BYTES],
    partial_header_bytes: usize,
    frames: Arc<PeerFrames>,
}

/// What has arrived of the current payload.
#[derive(Debug)]
enum Payload {
    Settings(Setting),
    GoAway(Vec<u8>),
    Skipped,
}

/// An entry of a SETTINGS frame: an identifier and a value.
#[derive(Debug, Default)]
struct Setting {
    bytes: [u8; 6],
    filled: usize,
}

impl Parser {
    /// Parses `data`, which begins with the previous partial header, and removes what is
    /// not passed on. Returns the length of the rest.
    fn parse(&mut self, data: &mut [u8]) -> usize {
        self.partial_header_bytes = 0;
        let (mut from, mut to) = (0, 0);
        while from < data.len() {
            let count = if self.payload_bytes > 0 {
                let count = min(self.payload_bytes, data.len() - from);
                self.payload_bytes -= count;
                self.read_payload(&data[from..from + count]);
                count
            } else if let Some(header) = data[from..].first_chunk() {
                if !self.begin_frame(*header) {
                    from += HEADER_BYTES;
                    continue;
                }
                HEADER_BYTES
            } else {
                let rest = &data[from..];
                self.partial_header[..rest.len()].copy_from_slice(rest);
                self.partial_header_bytes = rest.len();
                break;
            };
            if from != to {
                data.copy_within(from..from + count, to);
            }
            from += count;
            to += count;
        }
        to
    }

    /// Begins a frame. Returns whether it is passed on.
    fn begin_frame(&mut self, header: [u8; HEADER_BYTES]) -> bool {
        const DATA: u8 = 0x0;
        const HEADERS: u8 = 0x1;
        const SETTINGS: u8 = 0x4;
        const GOAWAY: u8 = 0x7;
        const END_STREAM: u8 = 0x1;
        const ACK: u8 = 0x1;
        let [a, b, c, kind, flags, ..] = header;
        let length = u32::from_be_bytes([0, a, b, c]);
        self.payload_bytes = length as usize;
        self.payload = Payload::Skipped;
        match kind {
            DATA if length == 0 && flags & END_STREAM == 0 => return false,
            DATA | HEADERS => count(&self.frames.answers),
            SETTINGS if flags & ACK == 0 => self.payload = Payload::Settings(Setting::default()),
            SETTINGS => count(&self.frames.settings_acks),
            GOAWAY => self.payload = Payload::GoAway(Vec::new()),
            _ => {}
        }
        true
    }

    /// Reads the next bytes of a payload, already subtracted from `payload_bytes`.
    fn read_payload(&mut self, payload: &[u8]) {
        const MAX_HEADER_LIST_SIZE: u16 = 0x6;
        match &mut self.payload {
            Payload::Settings(setting) => {
                for &byte in payload {
                    setting.bytes[setting.filled] = byte;
                    setting.filled += 1;
                    if setting.filled == setting.bytes.len() {
                        setting.filled = 0;
                        let [a, b, value @ ..] = setting.bytes;
                        if u16::from_be_bytes([a, b]) == MAX_HEADER_LIST_SIZE {
                            let value = u32::from_be_bytes(value);
                            self.frames.max_header_list.store(value, Ordering::Relaxed);
                        }
                    }
                }
            }
            Payload::GoAway(bytes) => {
                let room = MAX_GOAWAY_BYTES - bytes.len();
                bytes.extend_from_slice(&payload[..min(room, payload.len())]);
                if self.payload_bytes == 0
                    && let Some(error) = GoAway::read(bytes)
                {
                    let _ = self.frames.goaway.set(error);
                }
            }
            Payload::Skipped => {}
        }
    }

    fn partial_header(&self) -> &[u8] {
        &self.partial_header[..self.partial_header_bytes]
    }
}

impl GoAway {
    /// `None` if there is no error (RFC 9113, 6.8).
    fn read(mut payload: &[u8]) -> Option<Self> {
        let _last_stream = payload.try_get_u32().ok()?;
        let code = Reason::from(payload.try_get_u32().ok()?);
        (code != Reason::NO_ERROR).then(|| Self {
            code,
            debug_data: payload.escape_ascii().to_string(),
        })
    }
}

/// `ENHANCE_YOUR_CALM: too_many_pings`.
impl fmt::Display for GoAway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.code, f)?;
        if self.debug_data.is_empty() {
            return Ok(());
        }
        write!(f, ": {}", self.debug_data)
    }
}

/// Adds one. Only the task that reads does so, so this needs no atomic addition.
fn count(counter: &AtomicU32) {
    let count = counter.load(Ordering::Relaxed).wrapping_add(1);
    counter.store(count, Ordering::Relaxed);
}

impl<T: AsyncRead + Unpin> FrameObserver<T> {
    /// Reads into `buffer`, which has room for more than a partial header. Returns how much
    /// was passed on; at the end of the connection, that is the partial header.
    fn fill(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<usize>> {
        let start = buffer.filled().len();
        loop {
            buffer.put_slice(self.parser.partial_header());
            let before = buffer.filled().len();
            let read = Pin::new(&mut self.io).poll_read(context, buffer);
            if !matches!(read, Poll::Ready(Ok(()))) {
                buffer.set_filled(start);
            }
            ready!(read).map_err(|error| self.parser.frames.goaway_error().unwrap_or(error))?;
            if buffer.filled().len() == before {
                if let Some(error) = self.parser.frames.goaway_error() {
                    buffer.set_filled(start);
                    return Poll::Ready(Err(error));
                }
                self.parser.partial_header_bytes = 0;
                return Poll::Ready(Ok(before - start));
            }
            count(&self.parser.frames.reads);
            let passed_on = self.parser.parse(&mut buffer.filled_mut()[start..]);
            buffer.set_filled(start + passed_on);
            if passed_on > 0 {
                return Poll::Ready(Ok(passed_on));
            }
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for FrameObserver<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Some(reason) = this.parser.frames.abort_reason.get() {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, reason.clone())));
        }
        if this.ready.is_empty() {
            if buffer.remaining() > HEADER_BYTES {
                return this.fill(context, buffer).map_ok(drop);
            }
            let mut scratch = [0; SCRATCH_BYTES];
            let mut scratch = ReadBuf::new(&mut scratch);
            ready!(this.fill(context, &mut scratch))?;
            this.ready.extend_from_slice(scratch.filled());
        }
        let count = min(this.ready.len(), buffer.remaining());
        buffer.put_slice(&this.ready[..count]);
        this.ready.drain(..count);
        Poll::Ready(Ok(()))
    }
}

writes_to_io!(FrameObserver);

#[cfg(test)]
mod tests;
