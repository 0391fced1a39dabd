//! A tool service that counts pings as gRPC's servers do (gRFC A8), in the strictest
//! reading that is known, grpc-java's `KeepAliveEnforcer`; and notes them.

use std::{
    collections::BTreeSet,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::Context,
    time::Duration,
};

use fanfare::net::{Connect, Io};
use futures_util::future::BoxFuture;
use tokio::{
    io::{AsyncWrite, DuplexStream},
    net::TcpListener,
    time::Instant,
};

use super::{
    hooked::{Hook, Hooked},
    service::Service,
};

const PREFACE_BYTES: usize = 24;
const HEADER_BYTES: usize = 9;
/// `too_many_pings`, ENHANCE_YOUR_CALM.
const GOAWAY: &[u8] =
    b"\x00\x00\x16\x07\x00\x00\x00\x00\x00\x7f\xff\xff\xff\x00\x00\x00\x0btoo_many_pings";

/// What a server of gRPC allows by default.
pub const DEFAULTS: Rules = Rules {
    permit: Duration::from_secs(5 * 60),
    permit_without_calls: Duration::from_secs(2 * 3600),
    max_strikes: 2,
};

#[derive(Clone, Copy, Debug)]
pub struct Rules {
    pub permit: Duration,
    pub permit_without_calls: Duration,
    pub max_strikes: u32,
}

/// Stands before a service.
#[derive(Clone)]
pub struct Strict {
    service: Service,
    rules: Rules,
    seen: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    pings: Mutex<Vec<Instant>>,
    settings: AtomicUsize,
    connections: AtomicUsize,
    ended: AtomicUsize,
}

impl Strict {
    pub fn new(service: &Service, rules: Rules) -> Self {
        Self {
            service: service.clone(),
            rules,
            seen: Arc::default(),
        }
    }

    /// When there were pings.
    pub fn pings(&self) -> Vec<Instant> {
        self.seen.pings.lock().expect("them").clone()
    }

    /// How many SETTINGS came, acknowledgements aside.
    pub fn settings(&self) -> usize {
        self.seen.settings.load(Ordering::SeqCst)
    }

    /// How many connections there have been.
    pub fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }

    /// How many connections were ended for too many pings.
    pub fn ended(&self) -> usize {
        self.seen.ended.load(Ordering::SeqCst)
    }

    /// Listens on a port of its own, as long as the test runs.
    pub async fn listen(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let this = self.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).expect("an open socket");
                this.service.serve(this.counted(stream));
            }
        });
        address
    }

    fn counted<T: AsyncWrite + Unpin>(&self, io: T) -> Hooked<T, Counted> {
        let now = Instant::now();
        self.seen.connections.fetch_add(1, Ordering::SeqCst);
        let hook = Counted {
            from_peer: Walk {
                skip: PREFACE_BYTES,
                header: Vec::new(),
            },
            to_peer: Walk::default(),
            calls: BTreeSet::new(),
            epoch: now,
            last_valid: now,
            strikes: 0,
            rules: self.rules,
            seen: Arc::clone(&self.seen),
            over: false,
        };
        Hooked { io, hook }
    }
}

impl Connect for Strict {
    fn connect(&self) -> BoxFuture<'static, io::Result<Box<dyn Io>>> {
        let (ours, theirs): (DuplexStream, _) = tokio::io::duplex(64 << 10);
        self.service.serve(self.counted(theirs));
        Box::pin(async move { Ok(Box::new(ours) as Box<dyn Io>) })
    }
}

/// Finds the headers of frames.
#[derive(Default)]
struct Walk {
    skip: usize,
    header: Vec<u8>,
}

struct Header {
    kind: u8,
    flags: u8,
    stream: u32,
}

impl Walk {
    fn over(&mut self, mut data: &[u8]) -> Vec<Header> {
        let mut headers = Vec::new();
        while !data.is_empty() {
            let skipped = self.skip.min(data.len());
            self.skip -= skipped;
            data = &data[skipped..];
            let count = (HEADER_BYTES - self.header.len()).min(data.len());
            self.header.extend_from_slice(&data[..count]);
            data = &data[count..];
            if let &[a, b, c, kind, flags, ref stream @ ..] = self.header.as_slice()
                && let &[d, e, f, g] = stream
            {
                self.skip = u32::from_be_bytes([0, a, b, c]) as usize;
                let stream = u32::from_be_bytes([d, e, f, g]);
                headers.push(Header {
                    kind,
                    flags,
                    stream,
                });
                self.header.clear();
            }
        }
        headers
    }
}

struct Counted {
    from_peer: Walk,
    to_peer: Walk,
    /// Streams in use.
    calls: BTreeSet<u32>,
    epoch: Instant,
    last_valid: Instant,
    strikes: u32,
    rules: Rules,
    seen: Arc<Counts>,
    over: bool,
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;

impl Counted {
    fn goes_on(&self) -> io::Result<()> {
        if self.over {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        Ok(())
    }

    fn came(&mut self, header: &Header) {
        match header.kind {
            HEADERS => drop(self.calls.insert(header.stream)),
            RST_STREAM => drop(self.calls.remove(&header.stream)),
            SETTINGS if header.flags & ACK == 0 => {
                self.seen.settings.fetch_add(1, Ordering::SeqCst);
            }
            PING if header.flags & ACK == 0 => self.pinged(),
            _ => {}
        }
    }

    fn pinged(&mut self) {
        let now = Instant::now();
        self.seen.pings.lock().expect("them").push(now);
        let permitted = if self.calls.is_empty() {
            self.rules.permit_without_calls
        } else {
            self.rules.permit
        };
        if now >= self.last_valid + permitted {
            self.last_valid = now;
            return;
        }
        self.strikes += 1;
        if self.strikes > self.rules.max_strikes && !self.over {
            self.over = true;
            self.seen.ended.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn sent(&mut self, header: &Header) {
        if matches!(header.kind, DATA | HEADERS) {
            self.last_valid = self.epoch;
            self.strikes = 0;
            if header.flags & END_STREAM != 0 {
                self.calls.remove(&header.stream);
            }
        } else if header.kind == RST_STREAM {
            self.calls.remove(&header.stream);
        }
    }
}

impl<T: AsyncWrite + Unpin> Hook<T> for Counted {
    fn was_read(&mut self, io: &mut T, context: &mut Context<'_>, bytes: &[u8]) -> io::Result<()> {
        for header in self.from_peer.over(bytes) {
            self.came(&header);
        }
        if self.over {
            // Few bytes, for which there is room.
            let _ = Pin::new(io).poll_write(context, GOAWAY)?;
        }
        self.goes_on()
    }

    fn may_write(&mut self) -> io::Result<()> {
        self.goes_on()
    }

    fn was_written(&mut self, bytes: &[u8]) {
        for header in self.to_peer.over(bytes) {
            self.sent(&header);
        }
    }
}
