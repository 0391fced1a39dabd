//! The HTTP/2 connection to a tool service: made when first needed, shared by all
//! calls, made anew after it broke.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};
use http::Uri;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{sync::oneshot, time::timeout};
use tonic::body::Body;

use super::dial::Connect;
use crate::config;

/// Sends requests over one HTTP/2 connection.
pub(super) type Sender = http2::SendRequest<Body>;

/// A reply's headers and trailers may be this large. A tool that sends more
/// fails its own call only; over four times as much, and h2 closes the
/// connection under all calls on it.
const MAX_HEADER_LIST_BYTES: u32 = 256 << 10;
/// h2 charges small unread DATA frames against half of this: with less, a burst
/// of a few thousand small replies would end the connection.
const CONNECTION_WINDOW_BYTES: u32 = 64 << 20;
/// Lets one reply of the default size limit arrive without a pause.
const STREAM_WINDOW_BYTES: u32 = 2 << 20;
/// Cancelled calls whose late frames are still to be ignored. A batch that is
/// cancelled resets hundreds at once; h2's default is 50.
const MAX_RESET_STREAMS: usize = 4096;

/// A lazily made connection to one tool service.
pub struct Connection {
    service: String,
    origin: Uri,
    connect: Arc<dyn Connect>,
    connect_timeout: Duration,
    keepalive_interval: Duration,
    keepalive_timeout: Duration,
    // std's Mutex: held for a few instructions, never across an await.
    state: Mutex<State>,
    /// The last dial failed: a service that is down is logged once, not once
    /// per call.
    down: AtomicBool,
}

enum State {
    Idle,
    Dialing(Dial),
    /// Dropping the last sender closes the connection once its calls ended.
    Open(Sender),
}

/// A connection in the making, awaited by any number of calls.
type Dial = Shared<BoxFuture<'static, Result<Sender, Arc<str>>>>;

impl Connection {
    /// To the service of that name, over streams that `connect` opens.
    pub fn new(name: &str, connect: Arc<dyn Connect>, service: &config::Service) -> Self {
        Self {
            service: name.to_owned(),
            origin: service.endpoint.clone(),
            connect,
            connect_timeout: service.connect_timeout,
            keepalive_interval: service.keepalive_interval,
            keepalive_timeout: service.keepalive_timeout,
            state: Mutex::new(State::Idle),
            down: AtomicBool::new(false),
        }
    }

    /// The name of the tool service.
    pub(super) fn service(&self) -> &str {
        &self.service
    }

    /// Scheme and authority of the service.
    pub(super) fn origin(&self) -> &Uri {
        &self.origin
    }

    /// Something to send a request with; dials if there is no connection.
    /// Callers that come while it dials share the dial.
    ///
    /// # Errors
    /// With the reason, for the caller to read, if there can be no connection.
    /// Nothing was sent then.
    pub(super) async fn sender(self: &Arc<Self>) -> Result<Sender, Arc<str>> {
        let dial = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            match &*state {
                State::Open(sender) if !sender.is_closed() => return Ok(sender.clone()),
                State::Dialing(dial) => dial.clone(),
                State::Idle | State::Open(_) => {
                    let dial = self.dial();
                    *state = State::Dialing(dial.clone());
                    dial
                }
            }
        };
        dial.await
    }

    /// Starts a dial. It runs in a task of its own: the calls that wait for it
    /// may all be cancelled, and the next one must not find it half-made.
    fn dial(self: &Arc<Self>) -> Dial {
        let (result, dialed) = oneshot::channel();
        let this = Arc::downgrade(self);
        let attempt = self.attempt();
        tokio::spawn(async move {
            let outcome = attempt.await;
            let Some(this) = this.upgrade() else { return };
            let mut state = this.state.lock().unwrap_or_else(PoisonError::into_inner);
            let answer = match outcome {
                Ok(sender) => {
                    *state = State::Open(sender.clone());
                    Ok(sender)
                }
                Err(reason) => {
                    *state = State::Idle;
                    Err(Arc::from(reason))
                }
            };
            drop(state);
            this.log(answer.as_ref().map(drop));
            // Nobody may be waiting any more.
            let _ = result.send(answer);
        });
        let broken = || Err(Arc::from("the dial was given up"));
        async move { dialed.await.unwrap_or_else(|_| broken()) }
            .boxed()
            .shared()
    }

    fn log(&self, dialed: Result<(), &Arc<str>>) {
        let service = self.service.as_str();
        let was_down = self.down.swap(dialed.is_err(), Ordering::Relaxed);
        match dialed {
            Err(reason) if !was_down => tracing::warn!(service, %reason, "can't connect"),
            Ok(()) if was_down => tracing::info!(service, "connected again"),
            _ => tracing::debug!(service, "dialed"),
        }
    }

    fn attempt(&self) -> impl Future<Output = Result<Sender, String>> + use<> {
        let connect = Arc::clone(&self.connect);
        let limit = self.connect_timeout;
        let builder = self.builder();
        async move {
            let opened = async {
                let io = connect.connect().await.map_err(|error| error.to_string())?;
                let (sender, connection) = builder
                    .handshake(TokioIo::new(io))
                    .await
                    .map_err(|error| error.to_string())?;
                tokio::spawn(async move {
                    if let Err(error) = connection.await {
                        tracing::debug!(?error, "a connection to a tool service broke");
                    }
                });
                Ok(sender)
            };
            match timeout(limit, opened).await {
                Ok(result) => result,
                Err(_) => Err(format!("no connection within {limit:?}")),
            }
        }
    }

    fn builder(&self) -> http2::Builder<TokioExecutor> {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .max_header_list_size(MAX_HEADER_LIST_BYTES)
            .max_concurrent_reset_streams(MAX_RESET_STREAMS)
            .keep_alive_interval(self.keepalive_interval)
            .keep_alive_timeout(self.keepalive_timeout);
        builder
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("service", &self.service)
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}
