//! How the calls of a request are watched. The fan-out and the tools tell an [`Observer`]
//! what happens, in the words of this file; what becomes of it (spans, metrics, lines of
//! a log) they do not know.

use std::{fmt, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use tokio::time::Instant;

use super::{call::Completion, status::Code};

/// Watches the calls of one request, from the moment that they are accepted.
///
/// Of each call it is told, in this order: at most once that it started, of each attempt
/// that it started and that it ended, and exactly once that the call ended. All of it is
/// told on the request's own path, so none of it may wait.
pub trait Observer: fmt::Debug + Send + Sync {
    /// A call, which had been queued until now, is with its tool from here on.
    fn call_started(&self, call: usize);

    /// A call has ended.
    fn call_ended(&self, call: &CallReport<'_>);

    /// All calls have ended, and nothing more will be told.
    fn batch_ended(&self);

    /// An attempt at a call has started. What is returned watches this one attempt, too:
    /// `None` unless something has to be kept for each, as most requests have many.
    fn attempt_started(&self, call: usize, start: Instant) -> Option<Box<dyn AttemptObserver>>;

    /// An attempt has ended.
    fn attempt_ended(&self, attempt: &AttemptReport<'_>);

    /// What the tools are to learn with each attempt that nobody else watches.
    fn context(&self) -> Option<&dyn Context>;

    /// A stream to the tool of a call remains to be reset although the call is about to
    /// end. It is gone when what is returned is dropped.
    fn stream_outlasts_call(&self, call: usize) -> Option<Outlasting>;
}

/// Watches one attempt.
pub trait AttemptObserver: Context + fmt::Debug + Send {
    /// It has ended. The [`Observer`] was told before.
    fn ended(self: Box<Self>, attempt: &AttemptReport<'_>);
}

/// What a tool is to learn of the request that its call belongs to, such as the trace.
pub trait Context: Sync {
    /// Writes it.
    fn inject(&self, carrier: &mut dyn Carrier);
}

/// What carries a [`Context`] to the tool: the headers of a request, for example.
pub trait Carrier {
    /// Sets a field. Returns whether there was room for it.
    fn set(&mut self, name: &'static str, value: &Bytes) -> bool;
}

/// How a call ended.
#[derive(Clone, Copy, Debug)]
pub struct CallReport<'a> {
    /// Which call, and its outcome.
    pub completion: &'a Completion,
    /// Whether it was with its tool.
    pub was_started: bool,
    /// Whether the request was dropped, so that nobody else learns of the outcome.
    pub is_abandoned: bool,
}

/// How an attempt ended.
pub struct AttemptReport<'a> {
    /// Of which call.
    pub call: usize,
    /// The first is 1; those that could not be sent do not count.
    pub number: u32,
    /// Where it was to go.
    pub target: &'a Target,
    /// Where it went, if it was sent.
    pub peer: Option<&'a Peer>,
    /// When it started.
    pub start: Instant,
    /// When it ended.
    pub end: Instant,
    /// Its status, in the words that all protocols for tools are told in.
    pub code: Code,
    /// What went wrong; `None` if the code is [`Code::Ok`].
    pub failure: Option<&'a dyn Fn() -> String>,
}

/// Held while a stream outlasts its call.
pub struct Outlasting(
    #[allow(dead_code, reason = "held until it is dropped")] Box<dyn Send + Sync>,
);

/// A tool service by the name of its endpoint, as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    host: Arc<str>,
    port: u16,
}

/// One of the addresses behind a [`Target`].
#[derive(Debug)]
pub struct Peer {
    target: Target,
    ip: Arc<str>,
    port: u16,
}

impl AttemptReport<'_> {
    /// Where it went, or else was to go.
    pub fn target(&self) -> &Target {
        self.peer.map_or(self.target, |peer| &peer.target)
    }
}

impl Outlasting {
    /// Holds `what`.
    pub fn new(what: impl Send + Sync + 'static) -> Self {
        Self(Box::new(what))
    }
}

impl Target {
    /// The endpoint at that port of `host`.
    pub fn new(host: &str, port: u16) -> Self {
        Self {
            host: Arc::from(host),
            port,
        }
    }

    /// The name or the address of the host.
    pub fn host(&self) -> &Arc<str> {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Peer {
    /// The address `socket` of `target`.
    pub fn new(target: &Target, socket: SocketAddr) -> Self {
        Self {
            target: target.clone(),
            ip: Arc::from(socket.ip().to_string()),
            port: socket.port(),
        }
    }

    /// The address without the port.
    pub fn ip(&self) -> &Arc<str> {
        &self.ip
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl fmt::Debug for AttemptReport<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AttemptReport")
            .field("call", &self.call)
            .field("number", &self.number)
            .field("code", &self.code)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Outlasting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outlasting").finish_non_exhaustive()
    }
}
