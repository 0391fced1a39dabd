//! An HTTP/2 connection whose frames are written by hand: a caller that sends what, and
//! when, no library would.

use bytes::{BufMut as _, Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf, split},
    sync::watch,
    time::timeout,
};

use super::{
    process::PATIENCE,
    wiretap::{Frame, Tape, Taped},
};
use fanfare::net::Io;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;
const FRAME_BYTES: usize = 16 << 10;
/// Of the connection, once for all.
const WINDOW: u32 = 1 << 30;

/// The connection. It reads all that comes, and answers none of it.
pub struct ByHand {
    write: WriteHalf<Taped<Box<dyn Io>>>,
    tape: Tape,
    /// How many bytes have come; `None` after the end.
    come: watch::Receiver<Option<usize>>,
    next: u32,
}

impl ByHand {
    pub async fn over(io: Box<dyn Io>) -> Self {
        let tape = Tape::default();
        let (read, write) = split(tape.of(io));
        let (count, come) = watch::channel(Some(0));
        tokio::spawn(read_all(read, count));
        let mut this = Self {
            write,
            tape,
            come,
            next: 1,
        };
        let mut opening = BytesMut::from(&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..]);
        put_frame(&mut opening, SETTINGS, 0, 0, &[]);
        put_frame(&mut opening, SETTINGS, ACK, 0, &[]);
        put_frame(&mut opening, WINDOW_UPDATE, 0, 0, &WINDOW.to_be_bytes());
        this.send(&opening).await;
        this
    }

    /// Whether the peer has ended the connection.
    pub fn has_ended(&self) -> bool {
        self.come.borrow().is_none()
    }

    async fn send(&mut self, bytes: &[u8]) {
        // What does not go out has no answer.
        let _ = self.write.write_all(bytes).await;
    }

    /// Opens a stream with a gRPC request for `path`, of that content type, and with
    /// these headers too.
    pub async fn open(&mut self, path: &str, kind: &str, headers: &[(&str, &str)]) -> u32 {
        let stream = self.next;
        self.next += 2;
        // Static entries for POST and http; the rest literal, never indexed (RFC 7541).
        let mut block = BytesMut::from(&[0x83, 0x86][..]);
        let mut literal = |index: &[u8], name: &str, value: &str| {
            block.put_slice(index);
            if index == [0] {
                put_string(&mut block, name);
            }
            put_string(&mut block, value);
        };
        literal(&[0x04], ":path", path);
        literal(&[0x01], ":authority", "fanfare");
        literal(&[0], "te", "trailers");
        literal(&[0x0f, 0x10], "content-type", kind);
        for (name, value) in headers {
            literal(&[0], name, value);
        }
        let mut frame = BytesMut::new();
        put_frame(&mut frame, HEADERS, END_HEADERS, stream, &block);
        self.send(&frame).await;
        stream
    }

    /// Sends a part of a body, in frames of 16 KiB.
    pub async fn data(&mut self, stream: u32, data: &[u8], end: bool) {
        let mut frames = BytesMut::new();
        let mut parts = data.chunks(FRAME_BYTES).peekable();
        while let Some(part) = parts.next() {
            let last = end && parts.peek().is_none();
            put_frame(&mut frames, DATA, u8::from(last) * END_STREAM, stream, part);
        }
        self.send(&frames).await;
    }

    /// Sends an empty DATA frame that ends nothing.
    pub async fn empty_data(&mut self, stream: u32) {
        let mut frame = BytesMut::new();
        put_frame(&mut frame, DATA, 0, stream, &[]);
        self.send(&frame).await;
    }

    /// Sends PING, and waits for its answer: all before it has been read.
    pub async fn ping(&mut self) {
        let pings = |tape: &Tape| {
            let frames = tape.frames().into_iter();
            frames.filter(|frame| frame.kind == PING).count()
        };
        let before = pings(&self.tape);
        let mut frame = BytesMut::new();
        put_frame(&mut frame, PING, 0, 0, &[0; 8]);
        self.send(&frame).await;
        self.until("PING", |tape| pings(tape) > before).await;
    }

    /// The frames of the stream, once they have ended it.
    pub async fn answer(&mut self, stream: u32) -> Vec<Frame> {
        let ended = |tape: &Tape| {
            let frames = tape.of_stream(stream);
            frames.iter().any(|frame| frame.ends_stream())
        };
        self.until("an answer", ended).await;
        self.tape.of_stream(stream)
    }

    /// All frames so far.
    pub fn frames(&self) -> Vec<Frame> {
        self.tape.frames()
    }

    async fn until(&mut self, what: &str, reached: impl Fn(&Tape) -> bool) {
        let Self { come, tape, .. } = self;
        let waiting = async {
            while !reached(tape) {
                assert!(
                    come.borrow().is_some(),
                    "the connection ended before {what}"
                );
                let _ = come.changed().await;
            }
        };
        timeout(PATIENCE, waiting)
            .await
            .unwrap_or_else(|_| panic!("no {what}"));
    }
}

async fn read_all(mut read: ReadHalf<Taped<Box<dyn Io>>>, count: watch::Sender<Option<usize>>) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(bytes @ 1..) = read.read(&mut buffer).await {
        count.send_modify(|count| *count = count.map(|count| count + bytes));
    }
    count.send_replace(None);
}

/// Of less than 127 bytes, and not Huffman-coded (RFC 7541, 5.2).
fn put_string(block: &mut BytesMut, text: &str) {
    let length = u8::try_from(text.len()).expect("a short text");
    assert!(length < 127, "a short text");
    block.put_u8(length);
    block.put_slice(text.as_bytes());
}

fn put_frame(into: &mut BytesMut, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    into.put_uint(payload.len() as u64, 3);
    into.put_slice(&[kind, flags]);
    into.put_u32(stream);
    into.put_slice(payload);
}

/// A body that claims to have so many bytes, and its first.
pub fn claims(bytes: u32) -> Bytes {
    let mut body = BytesMut::from(&[0][..]);
    body.put_u32(bytes);
    body.freeze()
}
