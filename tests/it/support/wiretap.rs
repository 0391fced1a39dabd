//! What a server sends, frame by frame: a wrapper below an HTTP/2 client that
//! keeps the header of every frame that it reads (RFC 9113, 4.1).

use std::{
    io,
    sync::{Arc, Mutex},
    task::Context,
};

use super::hooked::{Hook, Hooked};

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
        let hook = self.clone();
        Hooked { io, hook }
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

/// What is read goes on the tape.
pub type Taped<T> = Hooked<T, Tape>;

impl<T> Hook<T> for Tape {
    fn was_read(&mut self, _: &mut T, _: &mut Context<'_>, bytes: &[u8]) -> io::Result<()> {
        self.0.lock().expect("the bytes").extend_from_slice(bytes);
        Ok(())
    }
}
