//! Callers that tonic's client can't be: bare HTTP/2, to see codes as they are on
//! the wire and without a timer on this side; and a channel over any byte stream.

use std::{
    io,
    net::SocketAddr,
    sync::Mutex,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use fanfare::server::Server;
use futures_util::{FutureExt as _, future::BoxFuture};
use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream},
    net::TcpStream,
    sync::{oneshot, watch},
};
use tonic::{
    Code,
    transport::{Channel, Endpoint},
};

use super::hooked::{Hook, Hooked};

/// A pipe to `server`.
pub fn pipe_to(server: &Server) -> DuplexStream {
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    tokio::spawn(server.serve_connection(theirs));
    ours
}

/// tonic's client side over one byte stream.
pub async fn channel_over(io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Channel {
    let io = Mutex::new(Some(io));
    Endpoint::from_static("http://fanfare")
        .connect_with_connector(tower::service_fn(move |_| {
            let io = io.lock().expect("the stream").take();
            async {
                io.map(TokioIo::new)
                    .ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected))
            }
        }))
        .await
        .expect("a connection")
}

/// A TCP connection to a server on this machine.
pub async fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).await.expect("to connect");
    stream.set_nodelay(true).expect("no delay");
    stream
}

/// One HTTP/2 connection.
#[derive(Clone)]
pub struct Bare(h2::client::SendRequest<Bytes>);

/// What came back on one stream.
#[derive(Debug)]
pub struct Answer {
    pub code: Code,
    /// What came before the trailers, still framed.
    body: Bytes,
}

impl Answer {
    /// The one message.
    pub fn decode<T: Message + Default>(mut self) -> T {
        assert_eq!((self.code, self.body.get_u8()), (Code::Ok, 0));
        assert_eq!(self.body.get_u32() as usize, self.body.len());
        T::decode(self.body).expect("a message")
    }
}

impl Bare {
    pub async fn over(io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        let (sender, connection) = h2::client::handshake(io).await.expect("a connection");
        tokio::spawn(connection);
        Self(sender)
    }

    /// Sends the encoded `message` to `path`; for `None` headers alone, and no end
    /// of the request. All of it is queued when this returns.
    pub fn call(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
        message: Option<Vec<u8>>,
    ) -> BoxFuture<'static, Result<Answer, h2::Error>> {
        let mut request = http::Request::post(format!("http://fanfare{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(()).expect("a request");
        let sent = self.0.send_request(request, false);
        let sent = sent.and_then(|(response, mut body)| {
            if let Some(message) = message {
                body.send_data(framed(&message), true)?;
            }
            Ok((response, body))
        });
        async {
            let (response, body) = sent?;
            let answer = read(response).await;
            // Dropped before, it would reset a request that has no end.
            drop(body);
            answer
        }
        .boxed()
    }
}

async fn read(response: h2::client::ResponseFuture) -> Result<Answer, h2::Error> {
    let (head, mut body) = response.await?.into_parts();
    let mut data = BytesMut::new();
    while let Some(bytes) = body.data().await {
        let bytes = bytes?;
        body.flow_control().release_capacity(bytes.len())?;
        data.extend_from_slice(&bytes);
    }
    let trailers = body.trailers().await?.unwrap_or(head.headers);
    let status = tonic::Status::from_header_map(&trailers).expect("a grpc-status");
    Ok(Answer {
        code: status.code(),
        body: data.freeze(),
    })
}

fn framed(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).expect("a length"));
    frame.put_slice(message);
    frame.freeze()
}

/// Of its stream nothing is read until it is opened.
pub struct Gated {
    opened: Option<BoxFuture<'static, ()>>,
    written: watch::Sender<usize>,
}

/// Opens the stream; dropping it does as well.
pub struct Gate {
    open: oneshot::Sender<()>,
    written: watch::Receiver<usize>,
}

/// Shuts `io` behind a gate.
pub fn gated<T>(io: T) -> (Hooked<T, Gated>, Gate) {
    let (open, opened) = oneshot::channel();
    let (write, written) = watch::channel(0);
    let hook = Gated {
        opened: Some(opened.map(|_| ()).boxed()),
        written: write,
    };
    (Hooked { io, hook }, Gate { open, written })
}

impl Gate {
    /// Lets in what has come and what comes.
    pub fn open(self) {
        let _ = self.open.send(());
    }

    /// What was written so far does not count for [`written`](Self::written).
    pub fn forget_written(&mut self) {
        self.written.borrow_and_update();
    }

    /// Waits until something is written.
    pub async fn written(&mut self) {
        self.written.changed().await.expect("an open connection");
    }
}

impl<T> Hook<T> for Gated {
    fn poll_may_read(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if let Some(opened) = &mut self.opened {
            ready!(opened.poll_unpin(context));
            self.opened = None;
        }
        Poll::Ready(())
    }

    fn was_written(&mut self, bytes: &[u8]) {
        self.written.send_modify(|written| *written += bytes.len());
    }
}
