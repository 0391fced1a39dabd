//! One HTTP/2 connection to a tool service, with settings that neither a burst of
//! small replies nor one hostile reply brings down, and a keepalive that notices
//! when the other side is gone.

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt as _;
use h2::{
    Ping, PingPong,
    client::{Builder, Connection, ResponseFuture, SendRequest},
};
use http::Request;
use tokio::time::{sleep, timeout};

use super::{address::Address, dial::Io, pool::Load};
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
    /// How many streams the peer allows; 0 once the connection has closed.
    limit: AtomicUsize,
    #[allow(dead_code)]
    heard: Arc<Heard>,
}

/// A call on a link, which counts it until this is dropped.
pub(super) struct Call(Arc<State>);

/// A request with its body, in one piece or two.
pub(super) struct Outgoing {
    pub(super) head: Request<()>,
    pub(super) body: Bytes,
    pub(super) rest: Option<Bytes>,
}

/// When to ping a connection that has calls in flight, and how long to wait for
/// the answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keepalive {
    pub(super) interval: Duration,
    pub(super) timeout: Duration,
}

impl Link {
    /// Begins to speak HTTP/2 on `io`, which leads to `address`, and waits until
    /// the peer does as well. A task of its own drives the connection until it ends.
    pub(super) async fn open(
        io: Box<dyn Io>,
        keepalive: Keepalive,
        address: Arc<Address>,
    ) -> Result<Self, String> {
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
        let state = Arc::new(State {
            address,
            calls: AtomicUsize::new(0),
            begun: AtomicUsize::new(0),
            limit: AtomicUsize::new(connection.max_concurrent_send_streams()),
            heard,
        });
        tokio::spawn(drive(connection, pings, Arc::clone(&state), keepalive));
        Ok(Self { sender, state })
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
        }
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
        Call(Arc::clone(&self.state))
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
        &self.0.address
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Ordering::Relaxed);
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

/// Drives a connection until it ends. Dropping it fails the calls on it.
async fn drive(
    mut connection: Connection<Wire, Bytes>,
    pings: Option<PingPong>,
    state: Arc<State>,
    keepalive: Keepalive,
) {
    let driven = poll_fn(|context| {
        let result = connection.poll_unpin(context);
        // SETTINGS may have come.
        let limit = connection.max_concurrent_send_streams();
        state.limit.store(limit, Ordering::Relaxed);
        result
    });
    tokio::select! {
        result = driven => {
            if let Err(error) = result {
                tracing::debug!(%error, "a connection to a tool service broke");
            }
        }
        () = keep_alive(pings, &state.calls, keepalive) => {
            tracing::debug!("a tool service does not answer pings");
        }
    }
    state.limit.store(0, Ordering::Relaxed);
}

/// Pings while there are calls in flight; returns when a ping stays unanswered.
async fn keep_alive(
    pings: Option<PingPong>,
    calls: &AtomicUsize,
    Keepalive {
        interval,
        timeout: limit,
    }: Keepalive,
) {
    let Some(mut pings) = pings else {
        return std::future::pending().await;
    };
    loop {
        sleep(interval).await;
        let has_calls = calls.load(Ordering::Relaxed) > 0;
        if has_calls && timeout(limit, pings.ping(Ping::opaque())).await.is_err() {
            return;
        }
    }
}
