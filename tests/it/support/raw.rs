//! HTTP/2 by hand: requests that no gRPC library would send, and answers as they
//! are on the wire.

use std::{net::SocketAddr, sync::Arc};

use bytes::{BufMut as _, Bytes, BytesMut};
use fanfare::{catalog::Catalog, net::Connect as _, server::Server};
use h2::{
    RecvStream, SendStream,
    client::{Builder, ResponseFuture, SendRequest},
};
use http::{HeaderMap, Request, StatusCode};
use prost::Message;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinHandle,
    time::timeout,
};
use tonic::{Code, Status};

use super::{pipes::PipeConnect, process::PATIENCE};

pub const EXECUTE: &str = "/fanfare.v1.OrchestratorService/ExecuteTools";
pub const STREAM: &str = "/fanfare.v1.OrchestratorService/StreamExecuteTools";

/// A server in this process, on a real socket; ends with the test.
pub async fn loopback(config: &fanfare::config::Config, catalog: Catalog) -> SocketAddr {
    let server = Server::orchestrator(config, catalog).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("to bind");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(server.run(listener, std::future::pending()));
    address
}

/// One HTTP/2 connection.
pub struct RawClient {
    pub sender: SendRequest<Bytes>,
    /// Ends when the connection does, with its error if there was one.
    pub connection: JoinHandle<Result<(), h2::Error>>,
    stream_windows: mpsc::UnboundedSender<u32>,
    /// A server at the other end of a pipe ends when it is dropped.
    _server: Option<Arc<Server>>,
}

impl RawClient {
    pub async fn over<T>(io: T, builder: &Builder) -> Self
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, mut connection) = builder.handshake(io).await.expect("a handshake");
        let (stream_windows, mut changes) = mpsc::unbounded_channel();
        let connection = tokio::spawn(async move {
            loop {
                tokio::select! {
                    end = &mut connection => return end,
                    Some(bytes) = changes.recv() => connection.set_initial_window_size(bytes)?,
                }
            }
        });
        Self {
            sender,
            connection,
            stream_windows,
            _server: None,
        }
    }

    pub async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("to connect");
        Self::over(stream, &Builder::new()).await
    }

    /// Over a pipe.
    pub async fn of_server(server: &Arc<Server>) -> Self {
        let pipe = PipeConnect(Arc::clone(server)).connect().await;
        let mut client = Self::over(pipe.expect("a pipe"), &Builder::new()).await;
        client._server = Some(Arc::clone(server));
        client
    }

    /// From here on, how many bytes each stream may send before they are read.
    pub fn set_stream_window(&self, bytes: u32) {
        self.stream_windows.send(bytes).expect("a connection");
    }

    /// Begins a request; its body is to follow unless `end`.
    pub async fn begin(
        &self,
        request: Request<()>,
        end: bool,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        let mut sender = self.sender.clone().ready().await?;
        sender.send_request(request, end)
    }

    /// Sends a request with a body; does not wait for the answer.
    pub async fn send(
        &self,
        request: Request<()>,
        body: impl Into<Bytes>,
    ) -> Result<ResponseFuture, h2::Error> {
        let (response, mut stream) = self.begin(request, false).await?;
        stream.send_data(body.into(), true)?;
        Ok(response)
    }

    /// Sends a request with a body and takes the whole answer, which must come
    /// soon.
    pub async fn ask(
        &self,
        request: Request<()>,
        body: impl Into<Bytes>,
    ) -> Result<Answer, h2::Error> {
        let answer = async { Answer::read(self.send(request, body).await?).await };
        timeout(PATIENCE, answer).await.expect("an answer in time")
    }
}

/// A whole HTTP response.
#[derive(Debug)]
pub struct Answer {
    pub http: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub trailers: HeaderMap,
}

impl Answer {
    pub async fn read(response: ResponseFuture) -> Result<Self, h2::Error> {
        let (head, mut stream) = response.await?.into_parts();
        let mut body = BytesMut::new();
        while let Some(data) = next_data(&mut stream).await? {
            body.extend_from_slice(&data);
        }
        let trailers = stream.trailers().await?.unwrap_or_default();
        Ok(Self {
            http: head.status,
            headers: head.headers,
            body: body.freeze(),
            trailers,
        })
    }

    /// The status of the RPC, from wherever it was sent.
    pub fn status(&self) -> Status {
        assert_eq!(self.http, StatusCode::OK, "{self:?}");
        Status::from_header_map(&self.headers)
            .or_else(|| Status::from_header_map(&self.trailers))
            .unwrap_or_else(|| panic!("no status: {self:?}"))
    }

    pub fn code(&self) -> Code {
        self.status().code()
    }

    /// The messages of the body.
    pub fn messages<M: Message + Default>(&self) -> Vec<M> {
        let mut rest = self.body.clone();
        let mut messages = Vec::new();
        while !rest.is_empty() {
            messages.push(M::decode(take_frame(&mut rest)).expect("a message"));
        }
        messages
    }

    /// How large HTTP/2 counts the headers or trailers with the status
    /// (RFC 9113, 6.5.2).
    pub fn header_list_bytes(&self) -> usize {
        let bytes = |headers: &HeaderMap| -> usize {
            let sizes = headers.iter();
            sizes.map(|(n, v)| n.as_str().len() + v.len() + 32).sum()
        };
        bytes(&self.headers).max(bytes(&self.trailers))
    }
}

/// The next bytes of a body; the sender may send as many again.
pub async fn next_data(stream: &mut RecvStream) -> Result<Option<Bytes>, h2::Error> {
    let Some(data) = stream.data().await.transpose()? else {
        return Ok(None);
    };
    stream.flow_control().release_capacity(data.len())?;
    Ok(Some(data))
}

/// A gRPC request of that path, as gRPC libraries send it.
pub fn post(path: &str) -> Request<()> {
    Request::post(format!("http://fanfare{path}"))
        .header("te", "trailers")
        .header("content-type", "application/grpc")
        .body(())
        .expect("a request")
}

/// The same, with one header more.
pub fn post_with(path: &str, name: &'static str, value: impl AsRef<[u8]>) -> Request<()> {
    let mut request = post(path);
    let value = http::HeaderValue::from_bytes(value.as_ref()).expect("a header value");
    request.headers_mut().append(name, value);
    request
}

/// A message as gRPC frames it: a flag, the length, the message.
pub fn framed(message: &impl Message) -> Bytes {
    framed_bytes(&message.encode_to_vec())
}

/// The same for a message that is encoded already, or is none.
pub fn framed_bytes(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(5 + message.len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).expect("a short message"));
    frame.put_slice(message);
    frame.freeze()
}

/// Takes the first message off what [`framed`] made.
fn take_frame(frames: &mut Bytes) -> Bytes {
    let prefix = frames.split_to(5);
    let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]);
    frames.split_to(length as usize)
}
