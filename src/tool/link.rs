//! One HTTP/2 connection to a tool service, with settings that neither a burst of
//! small replies nor one hostile reply brings down, and the task that drives it.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt as _;
use h2::{
    Ping, PingPong, Reason,
    client::{Builder, Connection, ResponseFuture, SendRequest},
};
use http::Request;
use tokio::sync::Notify;

use super::{
    address::Address,
    dial::Io,
    liveness::{Keepalive, Liveness, Signals, Step},
    pool::Load,
};
use crate::frames::{Frames, Heard};

/// A reply's headers and trailers may be this large. A tool that sends more
/// fails its own call only; over four times as much, and h2 closes the
/// connection under all calls on it.
const MAX_HEADER_LIST_BYTES: u32 = 256 << 10;
/// How much the tool service may send that nobody has read yet.
const CONNECTION_WINDOW_BYTES: u32 = 64 << 20;
/// Lets one reply of the default size limit arrive without a pause.
const STREAM_WINDOW_BYTES: u32 = 2 << 20;
/// h2 charges unread DATA frames below 256 bytes against a budget, half of the
/// connection's window by default, and ends the connection beyond it. Tens of
/// thousands of small replies at a time are normal here, and are bounded by the
/// calls in flight.
const DATA_FRAME_BUDGET: usize = 256 << 20;
/// Cancelled calls whose late frames are still to be ignored. A batch that is
/// cancelled resets hundreds at once; h2's default is 50.
const MAX_RESET_STREAMS: usize = 4096;

type Wire = Frames<Box<dyn Io>>;

/// A connection, to send on. It closes when all clones are dropped and the calls on
/// it have ended.
#[derive(Clone)]
pub(super) struct Link {
    sender: SendRequest<Bytes>,
    state: Arc<State>,
}

struct State {
    address: Arc<Address>,
    /// Calls in flight.
    calls: AtomicUsize,
    /// Changes with each call.
    begun: AtomicUsize,
    /// How many streams the peer allows.
    limit: AtomicUsize,
    closed: AtomicBool,
    heard: Arc<Heard>,
    signals: Arc<Signals>,
}

/// A call on a link, which counts it until this is dropped.
pub(super) struct Call {
    state: Arc<State>,
    /// How often something had come by then.
    reads: u32,
}

/// Drives a connection until it ends. Dropping it fails the calls on it.
pub(super) struct Driver {
    connection: Connection<Wire, Bytes>,
    liveness: Liveness,
    state: Arc<State>,
    /// Told of each change of what calls may wait for.
    changed: Arc<Notify>,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The peer did not answer within that time.
    Silent(Duration),
    /// The peer complained of pings.
    TooManyPings,
    Closed,
}

/// A request with its body, in one piece or two.
pub(super) struct Outgoing {
    pub(super) head: Request<()>,
    pub(super) body: Bytes,
    pub(super) rest: Option<Bytes>,
}

impl Link {
    /// Begins to speak HTTP/2 on `io`, which leads to `address`, and waits until
    /// the peer does as well. The driver is to be awaited; it tells `changed` of what
    /// calls may wait for.
    pub(super) async fn open(
        io: Box<dyn Io>,
        keepalive: Keepalive,
        address: Arc<Address>,
        changed: Arc<Notify>,
    ) -> Result<(Self, Driver), String> {
        let (io, heard) = Frames::of_server(io);
        let (sender, mut connection) = Builder::new()
            .enable_push(false)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .initial_window_size(STREAM_WINDOW_BYTES)
            .max_header_list_size(MAX_HEADER_LIST_BYTES)
            .max_concurrent_reset_streams(MAX_RESET_STREAMS)
            .data_frame_budget(DATA_FRAME_BUDGET)
            .handshake::<_, Bytes>(io)
            .await
            .map_err(|error| error.to_string())?;
        let mut pings = connection.ping_pong();
        answered(&mut connection, &mut pings).await?;
        let liveness = Liveness::new(pings, keepalive, Arc::clone(&heard), STREAM_WINDOW_BYTES);
        let state = Arc::new(State {
            address,
            calls: AtomicUsize::new(0),
            begun: AtomicUsize::new(0),
            limit: AtomicUsize::new(connection.max_concurrent_send_streams()),
            closed: AtomicBool::new(false),
            heard,
            signals: Arc::clone(liveness.signals()),
        });
        let driver = Driver {
            connection,
            liveness,
            state: Arc::clone(&state),
            changed,
        };
        Ok((Self { sender, state }, driver))
    }

    /// Where it leads.
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

    /// Has the peer asked whether it is there.
    pub(super) fn suspect(&self) {
        self.state.signals.suspect();
    }

    /// The largest header list that the peer takes, if it has said so.
    pub(super) fn max_header_list(&self) -> Option<u32> {
        self.state.heard.max_header_list()
    }

    /// A number that each call changes.
    pub(super) fn begun(&self) -> usize {
        self.state.begun.load(Ordering::Relaxed)
    }

    /// Whether it is the same connection.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.state, &other.state)
    }

    /// Counts a call, which is about to be sent.
    pub(super) fn begin(&self) -> Call {
        self.state.calls.fetch_add(1, Ordering::Relaxed);
        self.state.begun.fetch_add(1, Ordering::Relaxed);
        Call {
            state: Arc::clone(&self.state),
            reads: self.state.heard.reads(),
        }
    }

    /// Sends a request.
    ///
    /// # Errors
    /// If the connection has closed, or the service asked to leave it. Nothing
    /// was sent then.
    pub(super) fn send(
        &mut self,
        Outgoing { head, body, rest }: Outgoing,
    ) -> Result<ResponseFuture, h2::Error> {
        // Beyond the peer's limit on streams, h2 keeps the request until one
        // ends; a handle with such a request can't send another, so each call
        // has its own.
        let (response, mut stream) = self.sender.send_request(head, false)?;
        // If the stream ends meanwhile, the response says how.
        let sent = stream.send_data(body, rest.is_none());
        if let (Ok(()), Some(rest)) = (sent, rest) {
            let _ = stream.send_data(rest, true);
        }
        Ok(response)
    }
}

impl Call {
    /// Where it went.
    pub(super) fn address(&self) -> &Arc<Address> {
        &self.state.address
    }

    /// Whether nothing at all has come since it was sent.
    pub(super) fn is_silent(&self) -> bool {
        self.state.heard.reads() == self.reads
    }

    /// Has the peer asked whether it is there.
    pub(super) fn suspect(&self) {
        self.state.signals.suspect();
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.state.calls.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Waits for the answer to a ping. What accepts connections need not be a tool
/// service; and one that is shutting down may say hello and close before it has read
/// anything, when nobody can tell what became of the calls. The peer's SETTINGS have
/// come by then, too.
async fn answered(
    connection: &mut Connection<Wire, Bytes>,
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

impl Future for Driver {
    type Output = End;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<End> {
        let this = &mut *self;
        loop {
            let wanted = this.state.signals.wanted();
            if let Poll::Ready(result) = this.connection.poll_unpin(context) {
                if let Err(error) = result {
                    tracing::debug!(%error, "a connection to a tool service broke");
                }
                return Poll::Ready(this.reason());
            }
            this.note_limit();
            let has_calls = this.state.calls.load(Ordering::Relaxed) > 0;
            let step = this
                .liveness
                .poll(&mut this.connection, wanted, has_calls, context);
            match step {
                Poll::Ready(Step::Asked) => {}
                Poll::Ready(Step::Silent(limit)) => {
                    let reason = format!("the service did not answer within {limit:?}");
                    this.state.heard.give_up(reason);
                    // Has the calls fail for this reason.
                    let _ = this.connection.poll_unpin(context);
                    return Poll::Ready(End::Silent(limit));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl Driver {
    /// SETTINGS may have come.
    fn note_limit(&self) {
        let limit = self.connection.max_concurrent_send_streams();
        if self.state.limit.load(Ordering::Relaxed) != limit {
            self.state.limit.store(limit, Ordering::Relaxed);
            self.changed.notify_waiters();
        }
    }

    /// Why it ended.
    fn reason(&self) -> End {
        match self.state.heard.error() {
            Some(error)
                if error.code == Reason::ENHANCE_YOUR_CALM
                    && error.debug_data == "too_many_pings" =>
            {
                End::TooManyPings
            }
            _ => End::Closed,
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.state.closed.store(true, Ordering::Relaxed);
        self.state.signals.end();
        self.changed.notify_waiters();
    }
}
