//! One HTTP/2 connection to a remote service. Its settings survive bursts of small replies
//! and hostile ones. `connection/driver.rs` is the task that drives it.

mod driver;

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use h2::{
    Ping, PingPong, RecvStream,
    client::{self, Builder, SendRequest},
};
use http::{Request, Response};
use tokio::{
    sync::{
        Notify,
        mpsc::{UnboundedSender, unbounded_channel},
    },
    time::Instant,
};

pub(super) use self::driver::{Driver, End};
use super::{
    address::Address,
    cancelled::{Cancelled, Exchange, Given},
    linger::Linger,
    liveness::{Keepalive, Liveness, Signals},
    network::Io,
    pool::Load,
};
use crate::transport::frames::{FrameObserver, PeerFrames};

/// The limit on a reply's headers and on its trailers. A tool that exceeds it fails only
/// its own call; at over four times as much, h2 closes the connection under all calls.
const MAX_HEADER_LIST_BYTES: u32 = 256 << 10;
/// How much the service may send before it is read. h2 buffers that, outside of
/// `max_buffered_bytes`. Enough for 800 MB a second at a round trip of 10 ms.
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
/// Enough for a reply of the default size limit to arrive without a pause.
const STREAM_WINDOW_BYTES: u32 = 2 << 20;
/// h2 counts unread DATA frames below 256 bytes against a budget, by default half of the
/// connection's window, and closes the connection beyond it. Here tens of thousands of
/// small replies at a time are normal, and bounded by the calls in flight.
const DATA_FRAME_BUDGET: usize = 256 << 20;
/// For how many reset streams, and for how long, late frames are ignored: a service that
/// was frozen answers when it thaws. h2's defaults are 50 and 1 s. `pacer.rs` keeps a
/// connection below this many.
const MAX_RESET_STREAMS: usize = 4096;
const RESET_STREAM_TIME: Duration = Duration::from_secs(30);
/// How many streams of a connection h2 may reset by itself: for a violation of HTTP/2, or
/// for frames (an answer has three) that arrive after that time. It bounds what is queued
/// for a peer that does not read. Honest services do reach h2's default of 1,024.
const MAX_RESETS_BY_H2: usize = 4 * MAX_RESET_STREAMS;

type Wire = FrameObserver<Box<dyn Io>>;

/// A handle to send calls on. The connection closes once all handles are dropped and its
/// calls have ended.
#[derive(Clone)]
pub(super) struct Connection {
    sender: SendRequest<Bytes>,
    state: Arc<State>,
}

struct State {
    address: Arc<Address>,
    /// Calls in flight.
    calls: AtomicUsize,
    /// How many calls have begun.
    begun: AtomicUsize,
    /// How many streams the peer allows.
    limit: AtomicUsize,
    /// It takes no more calls.
    closed: AtomicBool,
    worn: AtomicBool,
    /// To the task that resets their streams.
    cancelled: UnboundedSender<Given>,
    frames: Arc<PeerFrames>,
    signals: Arc<Signals>,
}

/// A call on a connection; counted until this is dropped. One that was sent and has not
/// ended must be [cancelled](Self::cancel).
pub(super) struct Call {
    state: Arc<State>,
    /// Present from when it is sent until it has ended.
    exchange: Option<Exchange>,
    /// How many reads the connection had seen when the call began.
    reads: u32,
}

/// A request with its body, in one piece or two.
pub(crate) struct Outgoing {
    /// When it was made, and sent.
    pub(crate) made: Instant,
    pub(crate) head: Request<()>,
    pub(crate) body: Bytes,
    pub(crate) rest: Option<Bytes>,
}

impl Connection {
    /// Opens HTTP/2 on `io`, which leads to `address`, and waits for the peer's first
    /// answer. The driver must be awaited; it notifies `changed` of what calls may wait
    /// for.
    pub(super) async fn open(
        io: Box<dyn Io>,
        keepalive: Keepalive,
        address: Arc<Address>,
        changed: Arc<Notify>,
    ) -> Result<(Self, Driver), String> {
        let (io, frames) = FrameObserver::of_server(io);
        let (sender, mut connection) = Builder::new()
            .enable_push(false)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .initial_window_size(STREAM_WINDOW_BYTES)
            .max_header_list_size(MAX_HEADER_LIST_BYTES)
            .max_concurrent_reset_streams(MAX_RESET_STREAMS)
            .reset_stream_duration(RESET_STREAM_TIME)
            .max_local_error_reset_streams(Some(MAX_RESETS_BY_H2))
            .data_frame_budget(DATA_FRAME_BUDGET)
            .handshake::<_, Bytes>(io)
            .await
            .map_err(|error| error.to_string())?;
        let mut pings = connection.ping_pong();
        answered(&mut connection, &mut pings).await?;
        let liveness = Liveness::new(pings, keepalive, Arc::clone(&frames), STREAM_WINDOW_BYTES);
        let (cancelled, arriving) = unbounded_channel();
        let state = Arc::new(State {
            address,
            calls: AtomicUsize::new(0),
            begun: AtomicUsize::new(0),
            limit: AtomicUsize::new(connection.max_concurrent_send_streams()),
            closed: AtomicBool::new(false),
            worn: AtomicBool::new(false),
            cancelled,
            frames,
            signals: Arc::clone(liveness.signals()),
        });
        let driver = Driver {
            connection,
            cancelled: Cancelled::new(arriving, Arc::clone(liveness.signals())),
            liveness,
            draining: None,
            state: Arc::clone(&state),
            changed,
        };
        Ok((Self { sender, state }, driver))
    }

    /// The address that it leads to.
    pub(super) fn address(&self) -> &Arc<Address> {
        &self.state.address
    }

    /// How full it is.
    pub(super) fn load(&self) -> Load {
        Load {
            calls: self.state.calls.load(Ordering::Relaxed),
            limit: self.state.limit.load(Ordering::Relaxed),
            is_open: !self.state.closed.load(Ordering::Relaxed),
            is_suspect: self.state.signals.is_suspected(),
        }
    }

    /// Suspects the peer: it is pinged, and the connection given up without an answer.
    pub(super) fn suspect(&self) {
        self.state.signals.suspect();
    }

    /// The largest header list that the peer accepts, if it has announced one.
    pub(super) fn max_header_list(&self) -> Option<u32> {
        self.state.frames.max_header_list()
    }

    /// How many calls have begun on it.
    pub(super) fn begun(&self) -> usize {
        self.state.begun.load(Ordering::Relaxed)
    }

    /// Whether it takes no more calls because too many have been cancelled.
    pub(super) fn is_worn(&self) -> bool {
        self.state.worn.load(Ordering::Relaxed)
    }

    /// Whether it is the same connection.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.state, &other.state)
    }

    /// Begins a call, which counts from now on.
    pub(super) fn begin(&self) -> Call {
        self.state.calls_begin(1);
        self.state.begun.fetch_add(1, Ordering::Relaxed);
        Call {
            state: Arc::clone(&self.state),
            exchange: None,
            reads: self.state.frames.reads(),
        }
    }

    /// Sends the request of a call.
    ///
    /// # Errors
    /// If the connection has closed or received a GOAWAY. Nothing was sent then.
    pub(super) fn send(&mut self, call: &mut Call, request: Outgoing) -> Result<(), h2::Error> {
        // Beyond the peer's limit on streams, h2 holds the request back until one ends.
        // A handle with such a request can't send another, so each call has its own.
        let Outgoing {
            made,
            head,
            body,
            rest,
        } = request;
        let (response, mut stream) = self.sender.send_request(head, false)?;
        // If the stream ends meanwhile, the response tells how.
        let sent = stream.send_data(body, rest.is_none());
        if let (Ok(()), Some(rest)) = (sent, rest) {
            let _ = stream.send_data(rest, true);
        }
        call.exchange = Some(Exchange {
            stream,
            response: Some(response),
            begun: made,
        });
        Ok(())
    }
}

impl State {
    /// Counts calls, those of the address as well: they are its load.
    fn calls_begin(&self, count: usize) {
        self.calls.fetch_add(count, Ordering::Relaxed);
        self.address.calls_begin(count);
    }

    fn calls_end(&self, count: usize) {
        self.calls.fetch_sub(count, Ordering::Relaxed);
        self.address.calls_end(count);
    }
}

impl Call {
    /// The address that it went to.
    pub(super) fn address(&self) -> &Arc<Address> {
        &self.state.address
    }

    /// Whether nothing at all has arrived since it was sent.
    pub(super) fn is_silent(&self) -> bool {
        self.state.frames.reads() == self.reads
    }

    /// Suspects the peer: it is pinged, and the connection given up without an answer.
    pub(super) fn suspect(&self) {
        self.state.signals.suspect();
    }

    /// The response, of a call that was sent.
    pub(super) async fn response(&mut self) -> Result<Response<RecvStream>, h2::Error> {
        poll_fn(|context| {
            let exchange = self.exchange.as_mut();
            let Some(response) = exchange.and_then(|it| it.response.as_mut()) else {
                return Poll::Pending;
            };
            let result = ready!(Pin::new(response).poll(context));
            if let Some(exchange) = &mut self.exchange {
                exchange.response = None;
            }
            Poll::Ready(result)
        })
        .await
    }

    /// Takes note that its stream has ended, so that there is nothing to reset.
    pub(super) fn is_over(&mut self) {
        self.exchange = None;
    }

    /// Cancels it, unless it is over. Its stream is reset at a pace that the peer
    /// tolerates; until then the call counts, and what `linger` returns is kept.
    pub(super) fn cancel(&mut self, linger: impl FnOnce(Instant) -> Linger) {
        let Some(exchange) = self.exchange.take() else {
            return;
        };
        let now = Instant::now();
        let given = Given {
            exchange,
            cancelled: now,
            linger: linger(now),
        };
        self.state.calls_begin(1);
        if self.state.cancelled.send(given).is_err() {
            // The task is gone, and the connection with it.
            self.state.calls_end(1);
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.state.calls_end(1);
    }
}

/// Waits for the answer to a ping: what accepts connections need not be a tool service,
/// and a service that is shutting down may open the connection and close it before it has
/// read anything, which would leave the fate of the calls unknown. By then the peer's
/// SETTINGS have arrived, too.
async fn answered(
    connection: &mut client::Connection<Wire, Bytes>,
    pings: &mut Option<PingPong>,
) -> Result<(), String> {
    let Some(pings) = pings else { return Ok(()) };
    tokio::select! {
        ended = connection => Err(match ended {
            Err(error) => error.to_string(),
            Ok(()) => "it was closed at once".to_owned(),
        }),
        answer = pings.ping(Ping::opaque()) => answer.map(drop).map_err(|error| error.to_string()),
    }
}
