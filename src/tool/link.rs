//! One HTTP/2 connection to a tool service, with settings that neither a burst of
//! small replies nor one hostile reply brings down, and a keepalive that notices
//! when the other side is gone.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use bytes::Bytes;
use h2::{
    Ping, PingPong,
    client::{Builder, ResponseFuture, SendRequest},
};
use http::Request;
use tokio::time::{sleep, timeout};

use super::dial::Io;

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

/// A connection, to send on. A call keeps a clone until it ends; the connection
/// closes when all are dropped.
#[derive(Clone)]
pub(super) struct Link {
    sender: SendRequest<Bytes>,
    /// Counts the clones: one more than there are calls.
    _clones: Arc<()>,
}

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
    /// Begins to speak HTTP/2 on `io`. A task of its own drives the connection
    /// until it ends.
    pub(super) async fn open(io: Box<dyn Io>, keepalive: Keepalive) -> Result<Self, h2::Error> {
        let (sender, mut connection) = Builder::new()
            .enable_push(false)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .initial_window_size(STREAM_WINDOW_BYTES)
            .max_header_list_size(MAX_HEADER_LIST_BYTES)
            .max_concurrent_reset_streams(MAX_RESET_STREAMS)
            .data_frame_budget(DATA_FRAME_BUDGET)
            .handshake::<_, Bytes>(io)
            .await?;
        let pings = connection.ping_pong();
        let clones = Arc::new(());
        let counted = Arc::downgrade(&clones);
        tokio::spawn(async move {
            // Dropping the connection fails the calls on it.
            tokio::select! {
                result = &mut connection => {
                    if let Err(error) = result {
                        tracing::debug!(%error, "a connection to a tool service broke");
                    }
                }
                () = keep_alive(pings, counted, keepalive) => {
                    tracing::debug!("a tool service does not answer pings");
                }
            }
        });
        Ok(Self {
            sender,
            _clones: clones,
        })
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

/// Pings while there are calls in flight; returns when a ping stays unanswered.
async fn keep_alive(
    pings: Option<PingPong>,
    clones: Weak<()>,
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
        let has_calls = clones.strong_count() > 1;
        if has_calls && timeout(limit, pings.ping(Ping::opaque())).await.is_err() {
            return;
        }
    }
}
