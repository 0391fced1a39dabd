//! How to reach a tool service: its connection is made when first needed, shared
//! by all calls, and made anew after it broke.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};
use h2::client::ResponseFuture;
use http::{Uri, uri::PathAndQuery};
use tokio::{sync::oneshot, time::timeout};

use super::{
    dial::Connect,
    failure::Fault,
    link::{Keepalive, Link, Outgoing},
};
use crate::config;

const METHOD: &str = "/fanfare.v1.ToolService/CallTool";

/// A lazily made connection to one tool service.
pub struct Connection {
    service: String,
    method_uri: Uri,
    connect: Arc<dyn Connect>,
    connect_timeout: Duration,
    keepalive: Keepalive,
    // std's Mutex: held for a few instructions, never across an await.
    state: Mutex<State>,
    /// The last dial failed: a service that is down is logged once, not once
    /// per call.
    down: AtomicBool,
}

enum State {
    Idle,
    Dialing(Dial),
    Open(Link),
}

/// A connection in the making, awaited by any number of calls.
type Dial = Shared<BoxFuture<'static, Result<Link, Arc<str>>>>;

impl Connection {
    /// To the service of that name, over streams that `connect` opens.
    pub fn new(name: &str, connect: Arc<dyn Connect>, service: &config::Service) -> Self {
        let mut uri = service.endpoint.clone().into_parts();
        uri.path_and_query = Some(PathAndQuery::from_static(METHOD));
        Self {
            service: name.to_owned(),
            // The configuration takes no endpoint without scheme and host.
            method_uri: Uri::from_parts(uri).unwrap_or_else(|_| Uri::from_static(METHOD)),
            connect,
            connect_timeout: service.connect_timeout,
            keepalive: Keepalive {
                interval: service.keepalive_interval,
                timeout: service.keepalive_timeout,
            },
            state: Mutex::new(State::Idle),
            down: AtomicBool::new(false),
        }
    }

    /// What a request is sent to.
    pub(super) fn method_uri(&self) -> Uri {
        self.method_uri.clone()
    }

    /// Sends a request, which `request` makes once there is a connection to send
    /// it on. A connection that turns out to be closed costs nothing: nothing
    /// was sent, and a new one is dialed.
    pub(super) async fn send(
        self: &Arc<Self>,
        request: impl Fn() -> Outgoing,
    ) -> Result<(Link, ResponseFuture), Fault> {
        let no_connection = |reason: &str| Fault::NoConnection {
            service: self.service.clone(),
            reason: reason.to_owned(),
        };
        let link = self.link();
        let mut link = link.await.map_err(|reason| no_connection(&reason))?;
        if let Ok(response) = link.send(request()) {
            return Ok((link, response));
        }
        self.forget_open();
        let link = self.link();
        let mut link = link.await.map_err(|reason| no_connection(&reason))?;
        match link.send(request()) {
            Ok(response) => Ok((link, response)),
            Err(error) => Err(no_connection(&error.to_string())),
        }
    }

    /// A connection; dials if there is none. Calls that come while it dials share
    /// the dial. The error says, for the caller to read, why there is none.
    async fn link(self: &Arc<Self>) -> Result<Link, Arc<str>> {
        let dial = match &mut *self.state() {
            State::Open(link) => return Ok(link.clone()),
            State::Dialing(dial) => dial.clone(),
            idle @ State::Idle => {
                let dial = self.dial();
                *idle = State::Dialing(dial.clone());
                dial
            }
        };
        dial.await
    }

    /// Lets go of a connection that takes no more calls; those on it go on.
    fn forget_open(&self) {
        let mut state = self.state();
        if matches!(*state, State::Open(_)) {
            *state = State::Idle;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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
            let answer = outcome.map_err(Arc::<str>::from);
            *this.state() = match &answer {
                Ok(link) => State::Open(link.clone()),
                Err(_) => State::Idle,
            };
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

    fn attempt(&self) -> impl Future<Output = Result<Link, String>> + use<> {
        let connect = Arc::clone(&self.connect);
        let (limit, keepalive) = (self.connect_timeout, self.keepalive);
        async move {
            let opened = async {
                let io = connect.connect().await.map_err(|error| error.to_string())?;
                let link = Link::open(io, keepalive).await;
                link.map_err(|error| error.to_string())
            };
            match timeout(limit, opened).await {
                Ok(result) => result,
                Err(_) => Err(format!("no connection within {limit:?}")),
            }
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("service", &self.service)
            .field("method_uri", &self.method_uri)
            .finish_non_exhaustive()
    }
}
