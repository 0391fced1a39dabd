//! A tool service by hand, frame for frame: it allows as many streams as the test says
//! (SETTINGS_MAX_CONCURRENT_STREAMS), changes that under way, and answers calls at once.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
};

const PREFACE_BYTES: usize = 24;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// `:status: 200`, and `content-type` as a literal (RFC 7541, 6.1 and 6.2.2).
const HEAD: &[u8] = b"\x88\x0f\x10\x10application/grpc";
const TRAILERS: &[u8] = b"\x00\x0bgrpc-status\x010";

/// The service, for as long as the test runs.
pub struct Allowing {
    pub address: SocketAddr,
    limit: watch::Sender<u32>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    connections: AtomicUsize,
    calls: AtomicUsize,
    closes: AtomicBool,
}

impl Allowing {
    /// So many streams on each connection.
    pub async fn start(limit: u32) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let limit = watch::Sender::new(limit);
        let shared = Arc::new(Shared::default());
        let (limits, serving) = (limit.subscribe(), Arc::clone(&shared));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                serving.connections.fetch_add(1, Ordering::SeqCst);
                stream.set_nodelay(true).expect("an open socket");
                tokio::spawn(serve(stream, limits.clone(), Arc::clone(&serving)));
            }
        });
        Self {
            address,
            limit,
            shared,
        }
    }

    /// From now on, on all connections.
    pub fn allow(&self, limit: u32) {
        self.limit.send_replace(limit);
    }

    /// From now on connections are closed as soon as they have answered a ping.
    pub fn close_new_ones(&self) {
        self.shared.closes.store(true, Ordering::SeqCst);
    }

    /// How many connections there have been.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// How many calls came.
    pub fn calls(&self) -> usize {
        self.shared.calls.load(Ordering::SeqCst)
    }
}

fn frame(kind: u8, flags: u8, stream: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short frame");
    let mut frame = length.to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream);
    frame.extend(payload);
    frame
}

fn settings(limit: u32) -> Vec<u8> {
    const MAX_CONCURRENT_STREAMS: u8 = 3;
    let [a, b, c, d] = limit.to_be_bytes();
    let payload = [0, MAX_CONCURRENT_STREAMS, a, b, c, d];
    frame(SETTINGS, 0, [0; 4], &payload)
}

async fn serve(stream: TcpStream, mut limits: watch::Receiver<u32>, shared: Arc<Shared>) {
    let (mut reads, mut writes) = stream.into_split();
    let first = settings(*limits.borrow_and_update());
    if writes.write_all(&first).await.is_err() {
        return;
    }
    let (frames, mut came) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut preface = [0; PREFACE_BYTES];
        reads.read_exact(&mut preface).await?;
        loop {
            let mut header = [0; 9];
            reads.read_exact(&mut header).await?;
            let [a, b, c, kind, flags, stream @ ..] = header;
            let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
            reads.read_exact(&mut payload).await?;
            if frames.send((kind, flags, stream, payload)).is_err() {
                return std::io::Result::Ok(());
            }
        }
    });
    loop {
        let answer = tokio::select! {
            changed = limits.changed() => match changed {
                Ok(()) => settings(*limits.borrow_and_update()),
                Err(_) => return,
            },
            frame = came.recv() => match frame {
                Some(frame) => answer_to(frame, &shared),
                None => return,
            },
        };
        let closes = answer.get(3) == Some(&PING) && shared.closes.load(Ordering::SeqCst);
        if writes.write_all(&answer).await.is_err() || closes {
            return;
        }
    }
}

fn answer_to(
    (kind, flags, stream, payload): (u8, u8, [u8; 4], Vec<u8>),
    shared: &Shared,
) -> Vec<u8> {
    match kind {
        SETTINGS if flags & ACK == 0 => frame(SETTINGS, ACK, [0; 4], b""),
        PING if flags & ACK == 0 => frame(PING, ACK, [0; 4], &payload),
        DATA if flags & END_STREAM != 0 => {
            shared.calls.fetch_add(1, Ordering::SeqCst);
            let head = frame(HEADERS, END_HEADERS, stream, HEAD);
            let message = frame(DATA, 0, stream, &[0; 5]);
            let flags = END_HEADERS | END_STREAM;
            [head, message, frame(HEADERS, flags, stream, TRAILERS)].concat()
        }
        _ => Vec::new(),
    }
}
