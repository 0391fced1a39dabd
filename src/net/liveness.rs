//! Whether the peer of a connection is alive: when to probe it, and when to give it up.
//! Part of the task that drives the connection.
//!
//! A probe is a PING, or, where another PING would be too many (`ping.rs`), a SETTINGS
//! frame that changes nothing, which the peer must acknowledge (RFC 9113, 6.5.3) and which
//! no server counts. The peer is probed
//!
//! - if nothing arrived for `keepalive_interval` while calls are in flight; then by a PING
//!   only, since servers that count pings want no more of them. A host that is gone is
//!   found by TCP (`network.rs`);
//! - if it is suspected: calls ran out of time and nothing arrived since they were sent;
//! - if somebody has to know what the peer has received (a round).
//!
//! Anything that arrives is an answer. A suspected peer that sends nothing within
//! [`ANSWER_TIME`] is given up.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use h2::{Ping, PingPong, client::Connection};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, Sleep, sleep_until},
};

use super::ping::{Allowance, Pace};
use crate::transport::frames::PeerFrames;

/// How long a suspected peer has to send anything. Libraries answer pings by themselves
/// within milliseconds, however busy the tools are.
pub(super) const ANSWER_TIME: Duration = Duration::from_secs(1);
/// The least time between two probes by SETTINGS.
const APART: Duration = Duration::from_millis(5);

/// When to ping a connection that has calls in flight, and how long to wait for
/// the answer.
#[derive(Clone, Debug)]
pub(super) struct Keepalive {
    pub(super) interval: Duration,
    pub(super) timeout: Duration,
    /// Shared by all connections to the service.
    pub(super) pace: Arc<Pace>,
}

/// Signals between the users of a connection and the task that drives it.
#[derive(Debug, Default)]
pub(super) struct Signals {
    driver: AtomicWaker,
    suspected: AtomicBool,
    /// The last round that was requested, and the last that was answered.
    wanted: AtomicU32,
    answered: AtomicU32,
    over: AtomicBool,
}

/// Decides when to probe and when to give up.
#[derive(Debug)]
pub(super) struct Liveness {
    keepalive: Keepalive,
    frames: Arc<PeerFrames>,
    signals: Arc<Signals>,
    /// The window size of streams; a SETTINGS frame with it changes nothing.
    window: u32,
    pings: Option<PingPong>,
    allowance: Allowance,
    open: Option<Question>,
    /// No probe by SETTINGS before this time.
    settings_from: Instant,
    /// The last round that a probe was sent for.
    asked: u32,
    silence: Option<Silence>,
    /// A probe is due, but not before this time.
    later: Option<Instant>,
    tick: Instant,
    reads_at_tick: u32,
    timer: Pin<Box<Sleep>>,
}

#[derive(Clone, Copy, Debug)]
enum Question {
    Ping,
    /// The number of acknowledgements that answers it.
    Settings(u32),
}

/// A probe that has not been answered.
#[derive(Clone, Copy, Debug)]
struct Silence {
    reads: u32,
    until: Instant,
    limit: Duration,
}

/// What the driver has to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Poll the connection again, to send a probe.
    Asked,
    /// The peer did not answer within that time.
    Silent(Duration),
}

impl Signals {
    /// Suspects the peer: it is probed.
    pub(super) fn suspect(&self) {
        self.suspected.store(true, Ordering::Relaxed);
        self.driver.wake();
    }

    /// Whether it is suspected and has not answered yet.
    pub(super) fn is_suspected(&self) -> bool {
        self.suspected.load(Ordering::Relaxed)
    }

    /// Begins a round: the peer acknowledges what was sent before this call. Rounds that
    /// begin while another is under way are merged. Returns the round's number, modulo
    /// 2^32.
    pub(super) fn ask(&self) -> u32 {
        let round = self.wanted.fetch_add(1, Ordering::AcqRel).wrapping_add(1);
        self.driver.wake();
        round
    }

    /// Whether that round is over: the peer has received what was sent before, or is gone.
    pub(super) fn is_over(&self, round: u32) -> bool {
        let ahead = round.wrapping_sub(self.answered.load(Ordering::Acquire));
        ahead == 0 || ahead > u32::MAX / 2 || self.over.load(Ordering::Acquire)
    }

    /// The last round that was requested. To be read before the connection is polled, so
    /// that the probe goes out behind what was sent.
    pub(super) fn wanted(&self) -> u32 {
        self.wanted.load(Ordering::Acquire)
    }

    /// The connection has ended.
    pub(super) fn end(&self) {
        self.over.store(true, Ordering::Release);
    }
}

impl Liveness {
    /// For a connection that has just answered its first ping.
    pub(super) fn new(
        pings: Option<PingPong>,
        keepalive: Keepalive,
        frames: Arc<PeerFrames>,
        window: u32,
    ) -> Self {
        let now = Instant::now();
        let tick = now + keepalive.interval * keepalive.pace.slowdown();
        Self {
            signals: Arc::default(),
            reads_at_tick: frames.reads(),
            frames,
            keepalive,
            window,
            pings,
            allowance: Allowance::new(now),
            open: None,
            settings_from: now,
            asked: 0,
            silence: None,
            later: None,
            tick,
            timer: Box::pin(sleep_until(tick)),
        }
    }

    pub(super) fn signals(&self) -> &Arc<Signals> {
        &self.signals
    }

    /// To be called whenever `connection` was polled and is pending, with the round that
    /// had been requested before.
    pub(super) fn poll<T>(
        &mut self,
        connection: &mut Connection<T, Bytes>,
        wanted: u32,
        has_calls: bool,
        context: &mut Context<'_>,
    ) -> Poll<Step>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        self.signals.driver.register(context.waker());
        if self.open.is_some() {
            self.hear(context);
        }
        if self
            .silence
            .is_some_and(|it| it.reads != self.frames.reads())
        {
            self.silence = None;
            self.signals.suspected.store(false, Ordering::Relaxed);
        }
        if self.silence.is_none() && self.signals.is_suspected() {
            self.wait_for_an_answer(Instant::now(), ANSWER_TIME);
            self.later = Some(Instant::now());
        }
        if self.later.is_some() || wanted != self.asked {
            let now = Instant::now();
            if self.later.is_none_or(|later| later <= now) && self.ask(connection, has_calls, now) {
                self.asked = wanted;
                return Poll::Ready(Step::Asked);
            }
        }
        while self.timer.as_mut().poll(context).is_ready() {
            let now = Instant::now();
            if let Some(silence) = self.silence.filter(|it| it.until <= now) {
                return Poll::Ready(Step::Silent(silence.limit));
            }
            if self.later.is_some_and(|later| later <= now) && self.ask(connection, has_calls, now)
            {
                self.asked = wanted;
                return Poll::Ready(Step::Asked);
            }
            let asked = self.tick <= now && self.keep_alive(has_calls, now);
            self.set_timer();
            if asked {
                return Poll::Ready(Step::Asked);
            }
        }
        Poll::Pending
    }

    /// Whether the open probe was answered.
    fn hear(&mut self, context: &mut Context<'_>) {
        let answered = match (self.open, &mut self.pings) {
            (Some(Question::Ping), Some(pings)) => {
                matches!(pings.poll_pong(context), Poll::Ready(Ok(_)))
            }
            (Some(Question::Settings(acks)), _) => self.frames.settings_acks() != acks,
            _ => false,
        };
        if !answered {
            return;
        }
        if matches!(self.open, Some(Question::Ping)) {
            let answers = self.frames.answers();
            self.allowance.answered(answers, Instant::now());
        }
        self.open = None;
        self.signals.answered.store(self.asked, Ordering::Release);
    }

    /// Sends a probe unless one is open. An open one is enough for a suspected peer; for a
    /// round, another follows it. Returns whether there is something to send.
    fn ask<T>(
        &mut self,
        connection: &mut Connection<T, Bytes>,
        has_calls: bool,
        now: Instant,
    ) -> bool
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        self.later = None;
        if self.open.is_some() {
            return false;
        }
        if self.ping(has_calls, now) {
            return true;
        }
        let settings_from = self.settings_from;
        let is_time = settings_from <= now;
        // Fails while earlier SETTINGS are not acknowledged.
        if is_time && connection.set_initial_window_size(self.window).is_ok() {
            self.settings_from = now + APART;
            self.open = Some(Question::Settings(self.frames.settings_acks()));
            return true;
        }
        self.later = Some(if is_time { now + APART } else { settings_from });
        self.set_timer();
        false
    }

    fn ping(&mut self, has_calls: bool, now: Instant) -> bool {
        let Some(pings) = &mut self.pings else {
            return false;
        };
        let (answers, pace) = (self.frames.answers(), &self.keepalive.pace);
        if !self.allowance.allows(answers, has_calls, pace, now)
            || pings.send_ping(Ping::opaque()).is_err()
        {
            return false;
        }
        self.allowance.pinged(now);
        self.open = Some(Question::Ping);
        true
    }

    /// Whether there is something to send.
    fn keep_alive(&mut self, has_calls: bool, now: Instant) -> bool {
        let reads = self.frames.reads();
        let is_quiet = has_calls && self.reads_at_tick == reads && self.silence.is_none();
        self.reads_at_tick = reads;
        self.tick = now + self.keepalive.interval * self.keepalive.pace.slowdown();
        let was_open = self.open.is_some();
        let asked = is_quiet && !was_open && self.ping(has_calls, now);
        if asked || (is_quiet && was_open) {
            self.wait_for_an_answer(now, self.keepalive.timeout);
        }
        asked
    }

    fn wait_for_an_answer(&mut self, now: Instant, limit: Duration) {
        self.silence = Some(Silence {
            reads: self.frames.reads(),
            until: now + limit,
            limit,
        });
        self.set_timer();
    }

    fn set_timer(&mut self) {
        let silence = self.silence.map(|silence| silence.until);
        let times = [Some(self.tick), silence, self.later];
        let next = times.into_iter().flatten().min().unwrap_or(self.tick);
        self.timer.as_mut().reset(next);
    }
}
