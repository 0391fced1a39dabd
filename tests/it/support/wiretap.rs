//! What a server sends, frame by frame: a wrapper below an HTTP/2 client that
//! keeps the header of every frame that it reads (RFC 9113, 4.1).

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;

const END_STREAM: u8 = 1;

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub length: usize,
}

impl Frame {
    pub fn ends_stream(self) -> bool {
        matches!(self.kind, DATA | HEADERS) && self.flags & END_STREAM != 0
    }
}

/// All bytes that were read. Clones are the same.
#[derive(Clone, Default)]
pub struct Tape(Arc<Mutex<Vec<u8>>>);

impl Tape {
    /// `io`, with what is read from it on this tape.
    pub fn of<T>(&self, io: T) -> Taped<T> {
        let tape = self.clone();
        Taped { io, tape }
    }

    /// The frames so far that are whole.
    pub fn frames(&self) -> Vec<Frame> {
        let bytes = self.0.lock().expect("the bytes");
        let mut rest = &bytes[..];
        let mut frames = Vec::new();
        while let [a, b, c, kind, flags, s0, s1, s2, s3, payload @ ..] = rest {
            let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
            if payload.len() < length {
                break;
            }
            frames.push(Frame {
                kind: *kind,
                flags: *flags,
                stream: u32::from_be_bytes([*s0, *s1, *s2, *s3]) & !(1 << 31),
                length,
            });
            rest = &payload[length..];
        }
        frames
    }

    /// Those of one stream.
    pub fn of_stream(&self, stream: u32) -> Vec<Frame> {
        let mut frames = self.frames();
        frames.retain(|frame| frame.stream == stream);
        frames
    }
}

pub struct Taped<T> {
    io: T,
    tape: Tape,
}

impl<T: AsyncRead + Unpin> AsyncRead for Taped<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(context, buffer))?;
        let mut bytes = self.tape.0.lock().expect("the bytes");
        bytes.extend_from_slice(&buffer.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Taped<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}
