//! The cancelled calls of a connection. Their streams are reset, unless they end first, at
//! a pace that the peer tolerates (`pacer.rs`).
//!
//! Until then they count like other calls: towards the peer's limit on streams, the load
//! of the connection and the concurrency of their tool. What still arrives on them is
//! dropped.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use h2::{Reason, RecvStream, SendStream, client::ResponseFuture};
use tokio::{
    sync::mpsc::UnboundedReceiver,
    time::{Instant, Sleep, sleep_until},
};

use super::{
    linger::Linger,
    liveness::Signals,
    pacer::{Pacer, Turn},
};

/// Beyond this many, streams are reset at once, whatever the peer makes of it.
const MAX_WAITING: usize = 4096;

/// A stream on which a request was sent.
pub(super) struct Exchange {
    pub(super) stream: SendStream<Bytes>,
    /// `None` once it has arrived.
    pub(super) response: Option<ResponseFuture>,
    pub(super) begun: Instant,
}

/// A cancelled call, on its way to the task that resets it.
pub(super) struct Given {
    pub(super) exchange: Exchange,
    pub(super) cancelled: Instant,
    /// What it keeps in use until its stream is reset or has ended.
    pub(super) linger: Linger,
}

/// What is to be done with the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// There is something to send.
    Send,
    /// It can be closed.
    Close,
    /// There is nothing to do.
    Wait,
}

/// The cancelled calls of one connection.
pub(super) struct Cancelled {
    arriving: UnboundedReceiver<Given>,
    waiting: BTreeMap<u64, Waiting>,
    ending: FuturesUnordered<Ending>,
    taken: u64,
    pacer: Pacer,
    /// The round with which the peer acknowledges resets: its number, how many resets, and
    /// when it began.
    round: Option<(u32, usize, Instant)>,
    timer: Option<Pin<Box<Sleep>>>,
    signals: Arc<Signals>,
}

struct Waiting {
    stream: SendStream<Bytes>,
    begun: Instant,
    cancelled: Instant,
    _linger: Linger,
}

impl Cancelled {
    pub(super) fn new(arriving: UnboundedReceiver<Given>, signals: Arc<Signals>) -> Self {
        Self {
            arriving,
            waiting: BTreeMap::new(),
            ending: FuturesUnordered::new(),
            taken: 0,
            pacer: Pacer::new(Instant::now()),
            round: None,
            timer: None,
            signals,
        }
    }

    /// How many are waiting.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether the connection, on which `ended` streams have ended, should take no more
    /// calls.
    pub(super) fn is_worn(&self, ended: usize) -> bool {
        self.taken > 0 && self.pacer.is_worn(self.len(), ended, Instant::now())
    }

    /// Takes in those that have arrived.
    pub(super) fn take(&mut self, context: &mut Context<'_>) {
        while let Poll::Ready(Some(given)) = self.arriving.poll_recv(context) {
            let Exchange {
                stream,
                response,
                begun,
            } = given.exchange;
            let id = self.taken;
            self.taken += 1;
            if let Some(response) = response {
                let response = Reply::Awaited(response);
                self.ending.push(Ending { id, response });
            }
            let waiting = Waiting {
                stream,
                begun,
                cancelled: given.cancelled,
                _linger: given.linger,
            };
            self.waiting.insert(id, waiting);
        }
    }

    /// Resets what may be reset now, given that `ended` streams have ended on the
    /// connection.
    pub(super) fn poll(&mut self, context: &mut Context<'_>, ended: usize) -> Next {
        while let Poll::Ready(Some(id)) = self.ending.poll_next_unpin(context) {
            self.waiting.remove(&id);
        }
        if self.waiting.is_empty() {
            self.timer = None;
            return Next::Wait;
        }
        let now = Instant::now();
        if let Some((round, resets, since)) = self.round
            && self.signals.is_over(round)
        {
            self.round = None;
            self.pacer.acknowledged(resets, now - since, now);
        }
        let mut next = Next::Wait;
        while let Some(entry) = self.waiting.first_entry() {
            let times = (entry.get().begun, entry.get().cancelled);
            let turn = self.pacer.turn(times, ended, now);
            if turn == Turn::Now || self.waiting.len() > MAX_WAITING {
                let Some((_, mut first)) = self.waiting.pop_first() else {
                    break;
                };
                first.stream.send_reset(Reason::CANCEL);
                self.pacer.reset(first.begun, now);
                next = Next::Send;
                continue;
            }
            let at = match turn {
                Turn::At(at) | Turn::Acknowledged(at) => at,
                Turn::Now => now,
            };
            if matches!(turn, Turn::Acknowledged(_)) && self.round.is_none() {
                // The ping that ends the round goes out behind the resets.
                self.round = Some((self.signals.ask(), self.pacer.unacknowledged(), now));
                next = Next::Send;
            }
            if next == Next::Wait && self.wait_until(at, context).is_ready() {
                // The timer has fired already.
                context.waker().wake_by_ref();
            }
            break;
        }
        next
    }

    /// Releases everything when the connection ends. Returns how many calls were waiting;
    /// no others will come.
    pub(super) fn give_up(&mut self) -> usize {
        self.arriving.close();
        let arriving = std::iter::from_fn(|| self.arriving.try_recv().ok()).count();
        arriving + std::mem::take(&mut self.waiting).len()
    }

    fn wait_until(&mut self, at: Instant, context: &mut Context<'_>) -> Poll<()> {
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if timer.deadline() != at {
            timer.as_mut().reset(at);
        }
        timer.as_mut().poll(context)
    }
}

/// Waits for the end of a stream.
struct Ending {
    id: u64,
    response: Reply,
}

enum Reply {
    Awaited(ResponseFuture),
    Begun(RecvStream),
}

impl Future for Ending {
    type Output = u64;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<u64> {
        let this = &mut *self;
        loop {
            match &mut this.response {
                Reply::Awaited(response) => match ready!(Pin::new(response).poll(context)) {
                    Ok(reply) => this.response = Reply::Begun(reply.into_body()),
                    Err(_) => return Poll::Ready(this.id),
                },
                Reply::Begun(body) => match ready!(body.poll_data(context)) {
                    Some(Ok(data)) => {
                        // Fails only for more than was received.
                        let _ = body.flow_control().release_capacity(data.len());
                    }
                    Some(Err(_)) | None => return Poll::Ready(this.id),
                },
            }
        }
    }
}
