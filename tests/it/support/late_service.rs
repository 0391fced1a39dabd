//! A tool service whose frames are written by hand: it answers calls that were
//! cancelled, late, and in ways that h2's own server does not.

use std::{io, sync::Arc, time::Duration};

use bytes::{BufMut as _, Bytes, BytesMut};
use fanfare::{
    catalog::Catalog,
    config::Config,
    net::{Connect, Io},
};
use futures_util::future::BoxFuture;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    sync::{mpsc, watch},
    time::timeout,
};

use super::{
    pipes::{self, Client},
    process::PATIENCE,
    sockets::SETTINGS,
};

const PREFACE_BYTES: usize = 24;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PING: u8 = 6;
const ACK: u8 = 1;
pub const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// The service, on one connection.
#[derive(Clone)]
pub struct LateService {
    say: mpsc::UnboundedSender<Bytes>,
    heard: Arc<watch::Sender<Vec<u32>>>,
    pipe: Arc<std::sync::Mutex<Option<DuplexStream>>>,
}

impl LateService {
    pub fn start() -> Self {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let (say, said) = mpsc::unbounded_channel();
        let heard = Arc::new(watch::Sender::new(Vec::new()));
        tokio::spawn(serve(theirs, say.clone(), said, Arc::clone(&heard)));
        Self {
            say,
            heard,
            pipe: Arc::new(Some(ours).into()),
        }
    }

    /// A client of Fanfare whose tool `tool` is here.
    pub async fn client(&self) -> Client {
        let config = "
            [tools.tool]
            service = 'tools'
            [services.tools]
            endpoint = 'http://tools'
            max_connections_per_address = 1
            max_streams_per_connection = 5000
            [limits]
            max_calls_per_request = 2000
        ";
        let config = Config::parse(config).expect("a configuration");
        let catalog = Catalog::with_connect(&config, |_| Arc::new(self.clone()));
        pipes::client(&config, catalog).await
    }

    /// Waits for so many calls, and returns their streams.
    pub async fn calls(&self, count: usize) -> Vec<u32> {
        let mut heard = self.heard.subscribe();
        let heard = timeout(PATIENCE, heard.wait_for(|calls| calls.len() >= count)).await;
        heard.expect("calls").expect("the service").clone()
    }

    /// HEADERS with these fields, after `:status 200`.
    pub fn headers(&self, stream: u32, flags: u8, fields: &[(&str, &str)]) {
        self.frame(
            HEADERS,
            flags | END_HEADERS,
            stream,
            &block(&[0x88], fields),
        );
    }

    /// HEADERS at the end.
    pub fn trailers(&self, stream: u32, fields: &[(&str, &str)]) {
        self.frame(
            HEADERS,
            END_STREAM | END_HEADERS,
            stream,
            &block(&[], fields),
        );
    }

    pub fn data(&self, stream: u32, data: &[u8]) {
        self.frame(DATA, 0, stream, data);
    }

    /// A whole answer.
    pub fn answer(&self, stream: u32) {
        self.headers(stream, 0, &[("content-type", "application/grpc")]);
        self.data(stream, &super::hostile::message(Bytes::new()));
        self.trailers(stream, &[("grpc-status", "0")]);
    }

    fn frame(&self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.say
            .send(frame(kind, flags, stream, payload))
            .expect("the service");
    }
}

impl Connect for LateService {
    fn connect(&self) -> BoxFuture<'static, io::Result<Box<dyn Io>>> {
        let pipe = self.pipe.lock().expect("the pipe").take();
        Box::pin(async {
            let pipe = pipe.ok_or(io::ErrorKind::ConnectionRefused)?;
            Ok(Box::new(pipe) as Box<dyn Io>)
        })
    }
}

/// Literal fields that are not indexed (RFC 7541, 6.2.2), after `begin`.
fn block(begin: &[u8], fields: &[(&str, &str)]) -> Bytes {
    let mut block = BytesMut::from(begin);
    for (name, value) in fields {
        block.put_u8(0);
        for text in [name, value] {
            block.put_u8(u8::try_from(text.len()).expect("a short text"));
            block.put_slice(text.as_bytes());
        }
    }
    block.freeze()
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_uint(payload.len() as u64, 3);
    frame.put_u8(kind);
    frame.put_u8(flags);
    frame.put_u32(stream);
    frame.put_slice(payload);
    frame.freeze()
}

async fn serve(
    pipe: DuplexStream,
    say: mpsc::UnboundedSender<Bytes>,
    mut said: mpsc::UnboundedReceiver<Bytes>,
    heard: Arc<watch::Sender<Vec<u32>>>,
) {
    let (mut read, mut write) = tokio::io::split(pipe);
    tokio::spawn(async move {
        while let Some(bytes) = said.recv().await {
            if write.write_all(&bytes).await.is_err() {
                return;
            }
        }
    });
    let _ = say.send(Bytes::from_static(SETTINGS));
    let mut preface = [0; PREFACE_BYTES];
    if read.read_exact(&mut preface).await.is_err() {
        return;
    }
    let mut header = [0; 9];
    while read.read_exact(&mut header).await.is_ok() {
        let [a, b, c, kind, flags, stream @ ..] = header;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        if read.read_exact(&mut payload).await.is_err() {
            return;
        }
        let _ = match kind {
            HEADERS => {
                let stream = u32::from_be_bytes(stream);
                heard.send_modify(|calls| calls.push(stream));
                Ok(())
            }
            4 if flags & ACK == 0 => say.send(frame(4, ACK, 0, &[])),
            PING if flags & ACK == 0 => say.send(frame(PING, ACK, 0, &payload)),
            _ => Ok(()),
        };
    }
}

/// How long h2 remembers by default what it has reset; by the system's clock, whatever
/// tokio's says.
pub const FORGOTTEN_BY_DEFAULT: Duration = Duration::from_millis(1100);
