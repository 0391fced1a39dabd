//! A tool service that answers with what it should not: HTTP/2 as raw as the `h2`
//! crate lets a server speak it, on a real socket.
//!
//! What it does depends on the tool that is called: a call of `hostile` gets the
//! script of the test, one of `sibling` is answered when the test says so, any
//! other at once.

use std::{
    future::{pending, poll_fn},
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::{BufMut as _, Bytes, BytesMut};
use fanfare::pb;
use h2::{
    Reason, RecvStream, SendStream,
    server::{self, SendResponse},
};
use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header::CONTENT_TYPE,
};
use prost::Message as _;
use tokio::{
    io::AsyncWrite as _,
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot, watch},
    task::{AbortHandle, JoinSet},
    time::timeout,
};

use super::{
    hooked::{Hook, Hooked},
    ms,
    process::PATIENCE,
};

/// What is done, in this order, with a call. The stream then stays as it is.
pub type Script = Vec<Step>;

#[derive(Clone, Debug)]
pub enum Step {
    /// A 103 response, after which the real one is still to come.
    Informational,
    Head(Response<()>),
    /// The whole response: END_STREAM comes with its head.
    TrailersOnly(Response<()>),
    Data(Bytes),
    Trailers(HeaderMap),
    EndStream,
    Reset(Reason),
    /// GOAWAY: the calls before this one will be answered, this one was not seen.
    GoAway(Reason),
    /// GOAWAY, after the sight of this call, and the end of the connection.
    Close(Reason),
    /// Bytes in place of a frame.
    Raw(&'static [u8]),
    /// The end of the connection by TCP's RST.
    Cut,
    /// That step again and again, for as long as there is someone to take it.
    Forever(Box<Step>),
}

/// The head of a gRPC response.
pub fn head() -> Response<()> {
    http_head(200, "application/grpc")
}

pub fn http_head(status: u16, content_type: &str) -> Response<()> {
    let mut head = Response::new(());
    *head.status_mut() = StatusCode::from_u16(status).expect("a status");
    let content_type = content_type.parse().expect("a content type");
    head.headers_mut().insert(CONTENT_TYPE, content_type);
    head
}

/// Headers or trailers, as raw as HTTP/2 lets them be.
pub fn fields<const N: usize>(fields: [(&'static str, &[u8]); N]) -> HeaderMap {
    let field = |(name, value)| {
        let value = HeaderValue::from_bytes(value).expect("a header value");
        (HeaderName::from_static(name), value)
    };
    fields.into_iter().map(field).collect()
}

/// A gRPC message, preceded by what `length` says is its length.
pub fn framed(flag: u8, length: usize, message: &[u8]) -> Bytes {
    let mut framed = BytesMut::new();
    framed.put_u8(flag);
    framed.put_u32(u32::try_from(length).expect("a length"));
    framed.extend_from_slice(message);
    framed.freeze()
}

/// A gRPC message with this observation, if there is any.
pub fn message(observation: Bytes) -> Bytes {
    let response = pb::CallToolResponse {
        observation: (!observation.is_empty()).then_some(observation),
    };
    framed(0, response.encoded_len(), &response.encode_to_vec())
}

/// A reply with this message and status OK.
pub fn answer_with(message: Bytes) -> Script {
    vec![
        Step::Head(head()),
        Step::Data(message),
        Step::Trailers(fields([("grpc-status", b"0")])),
    ]
}

/// The service. Ends when dropped.
pub struct Hostile {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    task: AbortHandle,
}

struct Shared {
    script: Script,
    connections: AtomicUsize,
    sibling: watch::Sender<bool>,
    released: watch::Sender<bool>,
}

impl Hostile {
    /// Plays `script` to each call of `hostile`.
    pub async fn start(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            script,
            connections: AtomicUsize::new(0),
            sibling: watch::Sender::new(false),
            released: watch::Sender::new(false),
        });
        let serving = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                serving.connections.fetch_add(1, Ordering::SeqCst);
                connections.spawn(serve(stream, Arc::clone(&serving)));
            }
        });
        Self {
            address,
            shared,
            task: task.abort_handle(),
        }
    }

    /// How many connections there have been.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Waits until a call of `sibling` has come.
    pub async fn has_sibling(&self) {
        let mut sibling = self.shared.sibling.subscribe();
        let come = timeout(PATIENCE, sibling.wait_for(|&come| come)).await;
        come.expect("a sibling").expect("the service");
    }

    /// Lets the calls of `sibling` be answered.
    pub fn release(&self) {
        self.shared.released.send_replace(true);
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What a script does to the connection of its call.
enum Command {
    /// Sends what is to be sent, then says so.
    Flush(oneshot::Sender<()>),
    Raw(Bytes),
    Close(Reason),
    Cut,
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    stream.set_nodelay(true).expect("an open socket");
    let tap = Tap::default();
    let io = Hooked {
        io: stream,
        hook: tap.clone(),
    };
    let Ok(mut connection) = server::handshake(io).await else {
        return;
    };
    let (commands, mut commanded) = mpsc::unbounded_channel();
    let mut calls = JoinSet::new();
    loop {
        tokio::select! {
            call = connection.accept() => {
                let Some(Ok((request, respond))) = call else { return };
                calls.spawn(answer(request, respond, Arc::clone(&shared), commands.clone()));
            }
            Some(command) = commanded.recv() => match command {
                Command::Flush(flushed) => {
                    let flush = poll_fn(|context| Poll::Ready(connection.poll_closed(context)));
                    let _ = flush.await;
                    let _ = flushed.send(());
                }
                Command::Raw(frame) => tap.frames.lock().expect("the frames").push(frame),
                Command::Close(reason) => connection.abrupt_shutdown(reason),
                Command::Cut => {
                    tap.cut.store(true, Ordering::SeqCst);
                    return;
                }
            }
        }
    }
}

async fn answer(
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
    shared: Arc<Shared>,
    commands: mpsc::UnboundedSender<Command>,
) {
    let Ok(call) = receive(request.into_body()).await else {
        return;
    };
    let mut player = Player {
        respond,
        body: None,
        commands,
    };
    let played = match call.name.as_str() {
        "hostile" => player.play_all(&shared.script).await,
        name => {
            if name == "sibling" {
                shared.sibling.send_replace(true);
                let mut released = shared.released.subscribe();
                let _ = released.wait_for(|&released| released).await;
            }
            player.play_all(&answer_with(message(Bytes::new()))).await
        }
    };
    if played.is_ok() {
        // Dropping the stream would reset it.
        pending().await
    }
}

async fn receive(mut body: RecvStream) -> Result<pb::CallToolRequest, h2::Error> {
    let mut framed = BytesMut::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        framed.extend_from_slice(&data);
    }
    Ok(pb::CallToolRequest::decode(&framed[5..]).expect("a request"))
}

/// Plays a script to one call.
struct Player {
    respond: SendResponse<Bytes>,
    body: Option<SendStream<Bytes>>,
    commands: mpsc::UnboundedSender<Command>,
}

impl Player {
    async fn play_all(&mut self, script: &[Step]) -> Result<(), h2::Error> {
        for step in script {
            let Step::Forever(step) = step else {
                // A reset would overtake what is not yet sent.
                self.flush().await;
                self.play(step)?;
                continue;
            };
            loop {
                for _ in 0..50 {
                    self.play(step)?;
                }
                tokio::time::sleep(ms(1)).await;
            }
        }
        Ok(())
    }

    fn play(&mut self, step: &Step) -> Result<(), h2::Error> {
        match step {
            Step::Informational => {
                let hints = http_head(103, "text/plain");
                self.respond.send_informational(hints)?;
            }
            Step::Head(head) => {
                self.body = Some(self.respond.send_response(head.clone(), false)?);
            }
            Step::TrailersOnly(head) => {
                self.respond.send_response(head.clone(), true)?;
            }
            Step::Data(data) => self.body().send_data(data.clone(), false)?,
            Step::Trailers(trailers) => self.body().send_trailers(trailers.clone())?,
            Step::EndStream => self.body().send_data(Bytes::new(), true)?,
            Step::Reset(reason) => match &mut self.body {
                Some(body) => body.send_reset(*reason),
                None => self.respond.send_reset(*reason),
            },
            Step::GoAway(reason) => {
                // A client's streams have odd numbers.
                let last = self.respond.stream_id().as_u32().saturating_sub(2);
                self.command(Command::Raw(go_away(last, *reason)));
            }
            Step::Close(reason) => self.command(Command::Close(*reason)),
            Step::Raw(bytes) => self.command(Command::Raw(Bytes::from_static(bytes))),
            Step::Cut => self.command(Command::Cut),
            Step::Forever(_) => unreachable!("nothing is longer than for ever"),
        }
        Ok(())
    }

    async fn flush(&self) {
        let (flush, flushed) = oneshot::channel();
        self.command(Command::Flush(flush));
        // Unless the connection has ended.
        let _ = flushed.await;
    }

    fn body(&mut self) -> &mut SendStream<Bytes> {
        self.body.as_mut().expect("a head before")
    }

    fn command(&self, command: Command) {
        // The connection may have ended.
        let _ = self.commands.send(command);
    }
}

/// The frame (RFC 9113, 6.8).
fn go_away(last_stream: u32, reason: Reason) -> Bytes {
    const HEADER: [u8; 9] = [0, 0, 8, 7, 0, 0, 0, 0, 0];
    let mut frame = BytesMut::from(&HEADER[..]);
    frame.put_u32(last_stream);
    frame.put_u32(reason.into());
    frame.freeze()
}

/// Puts bytes between the frames that h2 writes.
#[derive(Clone, Default)]
struct Tap {
    frames: Arc<Mutex<Vec<Bytes>>>,
    cut: Arc<AtomicBool>,
}

impl Hook<TcpStream> for Tap {
    /// h2 flushes after whole frames.
    fn poll_may_flush(
        &mut self,
        stream: &mut TcpStream,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let frames = std::mem::take(&mut *self.frames.lock().expect("the frames"));
        for frame in frames {
            // Few bytes, which the socket takes as a whole.
            ready!(Pin::new(&mut *stream).poll_write(context, &frame))?;
        }
        Poll::Ready(Ok(()))
    }

    fn is_dropped(&mut self, stream: &mut TcpStream) {
        if self.cut.load(Ordering::SeqCst) {
            stream.set_zero_linger().expect("an open socket");
        }
    }
}
