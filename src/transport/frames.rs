//! What a peer sends on an HTTP/2 connection, frame by frame, below h2.
//!
//! h2 does not tell its user what this project must know or bounds over the life of
//! a connection what honest peers do. So the headers of the frames that arrive are
//! read on their way (9 bytes each, RFC 9113, 4.1); payloads are skipped.
//!
//! - A DATA frame that is empty and does not end its stream says nothing, but h2
//!   ends a connection after 100 of them. They are left out.
//! - `SETTINGS_MAX_HEADER_LIST_SIZE`, which h2 ignores, is noted.
//! - So is how often anything came, and how many answers did: whether a peer is
//!   silent, and whether it forgives pings (gRFC A8), depends on it.
//! - So is the error with which a server says GOAWAY. h2 forgets it when the connection
//!   then ends: the calls on it are to fail with the reason, not with a broken pipe.

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

/// What a header list counts for each field beside its name and value (RFC 9113,
/// 6.5.2).
pub(crate) const FIELD_BYTES: usize = 32;

const HEADER_BYTES: usize = 9;
/// What a client sends before its first frame (RFC 9113, 3.4).
const PREFACE_BYTES: usize = 24;
/// Enough for what is kept back and some more, if the reader has too little room.
const SCRATCH_BYTES: usize = 64;
/// What is kept of a GOAWAY: the last stream, the code, and the beginning of what else
/// it says.
const MAX_GOAWAY_BYTES: usize = 8 + 128;

/// A connection whose peer's frames are watched.
#[derive(Debug)]
pub(crate) struct Frames<T> {
    io: T,
    walk: Walk,
    /// What was read and did not fit into the reader's buffer.
    ready: Vec<u8>,
}

/// What was noted of a peer.
#[derive(Debug)]
pub(crate) struct Heard {
    reads: AtomicU32,
    answers: AtomicU32,
    settings_acks: AtomicU32,
    max_header_list: AtomicU32,
    error: OnceLock<GoAway>,
    given_up: OnceLock<String>,
}

/// Why a peer leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GoAway {
    pub(crate) code: Reason,
    /// What it adds, in printable characters.
    pub(crate) debug_data: String,
}

impl Heard {
    /// How often something came, modulo 2^32.
    pub(crate) fn reads(&self) -> u32 {
        self.reads.load(Ordering::Relaxed)
    }

    /// How many HEADERS and DATA frames came, modulo 2^32.
    pub(crate) fn answers(&self) -> u32 {
        self.answers.load(Ordering::Relaxed)
    }

    /// How many SETTINGS of ours the peer has acknowledged, modulo 2^32.
    pub(crate) fn settings_acks(&self) -> u32 {
        self.settings_acks.load(Ordering::Relaxed)
    }

    /// The error with which the peer said GOAWAY, the first if there were several.
    pub(crate) fn error(&self) -> Option<&GoAway> {
        self.error.get()
    }

    /// Ends the connection, for this reason: the next read fails with it.
    pub(crate) fn give_up(&self, reason: String) {
        // The first reason stays.
        let _ = self.given_up.set(reason);
    }

    /// Why the connection ended, if the peer said so.
    fn why_ended(&self) -> Option<io::Error> {
        let error = self.error.get()?;
        let reason = format!("the peer closed it with {error}");
        Some(io::Error::new(io::ErrorKind::ConnectionAborted, reason))
    }

    /// The largest header list that the peer takes, if it has said so (RFC 9113,
    /// 6.5.2: names and values, uncompressed, and 32 bytes for each field).
    pub(crate) fn max_header_list(&self) -> Option<u32> {
        let announced = self.max_header_list.load(Ordering::Relaxed);
        (announced != u32::MAX).then_some(announced)
    }
}

impl<T> Frames<T> {
    /// A connection to a server.
    pub(crate) fn of_server(io: T) -> (Self, Arc<Heard>) {
        Self::new(io, 0)
    }

    /// A connection from a client.
    pub(crate) fn of_client(io: T) -> (Self, Arc<Heard>) {
        Self::new(io, PREFACE_BYTES)
    }

    fn new(io: T, preface: usize) -> (Self, Arc<Heard>) {
        let heard = Arc::new(Heard {
            reads: AtomicU32::new(0),
            answers: AtomicU32::new(0),
            settings_acks: AtomicU32::new(0),
            max_header_list: AtomicU32::new(u32::MAX),
            error: OnceLock::new(),
            given_up: OnceLock::new(),
        });
        let frames = Self {
            io,
            walk: Walk {
                payload: preface,
                inside: Inside::Other,
                kept_back: [0; HEADER_BYTES],
                kept_back_bytes: 0,
                heard: Arc::clone(&heard),
            },
            ready: Vec::new(),
        };
        (frames, heard)
    }
}

/// Where in the peer's frames we are.
#[derive(Debug)]
struct Walk {
    /// What is left of the current frame's payload.
    payload: usize,
    inside: Inside,
    /// The beginning of a header whose rest has not come yet.
    kept_back: [u8; HEADER_BYTES],
    kept_back_bytes: usize,
    heard: Arc<Heard>,
}

/// Whose payload is read.
#[derive(Debug)]
enum Inside {
    /// That of SETTINGS: the current entry.
    Settings(Entry),
    /// That of GOAWAY, so far.
    GoAway(Vec<u8>),
    Other,
}

/// An identifier and a value.
#[derive(Debug, Default)]
struct Entry {
    bytes: [u8; 6],
    filled: usize,
}

impl Walk {
    /// Walks over `data`, which begins with what was kept back, and leaves in it what
    /// is to be passed on. Returns how much that is.
    fn over(&mut self, data: &mut [u8]) -> usize {
        self.kept_back_bytes = 0;
        let (mut from, mut to) = (0, 0);
        while from < data.len() {
            let count = if self.payload > 0 {
                let count = min(self.payload, data.len() - from);
                self.payload -= count;
                self.look_at(&data[from..from + count]);
                count
            } else if let Some(header) = data[from..].first_chunk() {
                if !self.begin(*header) {
                    from += HEADER_BYTES;
                    continue;
                }
                HEADER_BYTES
            } else {
                let rest = &data[from..];
                self.kept_back[..rest.len()].copy_from_slice(rest);
                self.kept_back_bytes = rest.len();
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

    /// Begins the frame with that header. Says whether it is to be passed on.
    fn begin(&mut self, header: [u8; HEADER_BYTES]) -> bool {
        const DATA: u8 = 0x0;
        const HEADERS: u8 = 0x1;
        const SETTINGS: u8 = 0x4;
        const GOAWAY: u8 = 0x7;
        const END_STREAM: u8 = 0x1;
        const ACK: u8 = 0x1;
        let [a, b, c, kind, flags, ..] = header;
        let length = u32::from_be_bytes([0, a, b, c]);
        self.payload = length as usize;
        self.inside = Inside::Other;
        match kind {
            DATA if length == 0 && flags & END_STREAM == 0 => return false,
            DATA | HEADERS => count(&self.heard.answers),
            SETTINGS if flags & ACK == 0 => self.inside = Inside::Settings(Entry::default()),
            SETTINGS => count(&self.heard.settings_acks),
            GOAWAY => self.inside = Inside::GoAway(Vec::new()),
            _ => {}
        }
        true
    }

    /// The next bytes of a payload; what is left of it is known.
    fn look_at(&mut self, payload: &[u8]) {
        const MAX_HEADER_LIST_SIZE: u16 = 0x6;
        match &mut self.inside {
            Inside::Settings(entry) => {
                for &byte in payload {
                    entry.bytes[entry.filled] = byte;
                    entry.filled += 1;
                    if entry.filled == entry.bytes.len() {
                        entry.filled = 0;
                        let [a, b, value @ ..] = entry.bytes;
                        if u16::from_be_bytes([a, b]) == MAX_HEADER_LIST_SIZE {
                            let value = u32::from_be_bytes(value);
                            self.heard.max_header_list.store(value, Ordering::Relaxed);
                        }
                    }
                }
            }
            Inside::GoAway(bytes) => {
                let room = MAX_GOAWAY_BYTES - bytes.len();
                bytes.extend_from_slice(&payload[..min(room, payload.len())]);
                if self.payload == 0
                    && let Some(error) = GoAway::read(bytes)
                {
                    let _ = self.heard.error.set(error);
                }
            }
            Inside::Other => {}
        }
    }

    fn kept_back(&self) -> &[u8] {
        &self.kept_back[..self.kept_back_bytes]
    }
}

impl GoAway {
    /// If it is an error (RFC 9113, 6.8).
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

/// Only the task that reads counts.
fn count(counter: &AtomicU32) {
    let count = counter.load(Ordering::Relaxed).wrapping_add(1);
    counter.store(count, Ordering::Relaxed);
}

impl<T: AsyncRead + Unpin> Frames<T> {
    /// Reads into `buffer`, which has room for what was kept back and more. Returns how
    /// much was passed on; at the end of the connection what was kept back is.
    fn pass_on(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<usize>> {
        let start = buffer.filled().len();
        loop {
            buffer.put_slice(self.walk.kept_back());
            let before = buffer.filled().len();
            let read = Pin::new(&mut self.io).poll_read(context, buffer);
            if !matches!(read, Poll::Ready(Ok(()))) {
                buffer.set_filled(start);
            }
            ready!(read).map_err(|error| self.walk.heard.why_ended().unwrap_or(error))?;
            if buffer.filled().len() == before {
                if let Some(error) = self.walk.heard.why_ended() {
                    buffer.set_filled(start);
                    return Poll::Ready(Err(error));
                }
                self.walk.kept_back_bytes = 0;
                return Poll::Ready(Ok(before - start));
            }
            count(&self.walk.heard.reads);
            let passed_on = self.walk.over(&mut buffer.filled_mut()[start..]);
            buffer.set_filled(start + passed_on);
            if passed_on > 0 {
                return Poll::Ready(Ok(passed_on));
            }
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Frames<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Some(reason) = this.walk.heard.given_up.get() {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, reason.clone())));
        }
        if this.ready.is_empty() {
            if buffer.remaining() > HEADER_BYTES {
                return this.pass_on(context, buffer).map_ok(drop);
            }
            let mut scratch = [0; SCRATCH_BYTES];
            let mut scratch = ReadBuf::new(&mut scratch);
            ready!(this.pass_on(context, &mut scratch))?;
            this.ready.extend_from_slice(scratch.filled());
        }
        let count = min(this.ready.len(), buffer.remaining());
        buffer.put_slice(&this.ready[..count]);
        this.ready.drain(..count);
        Poll::Ready(Ok(()))
    }
}

writes_to_io!(Frames);

#[cfg(test)]
mod tests;
