//! The body of an answer, until its last byte was handed on.
//!
//! h2 queues what does not fit through the peer's window. What is queued is held
//! like anything else, and comes back when h2 has written or dropped it. Once the
//! end of a stream is queued, nothing can reset the stream any more; so the end is
//! kept back until the data has left, unless that is little.

use std::{
    io::IoSlice,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use futures_util::task::AtomicWaker;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use tonic::{Status, body::Body};

use crate::{
    core::{
        buffered::{Buffered, Held},
        reservation::{Reservation, Undelivered},
    },
    orchestrator::wire::status::overloaded,
};

/// How much of finished answers may be queued on a connection: its peer can keep
/// that for as long as the connection lasts. 64 small ones, which then cost no wait
/// for the peer.
const LINGERING_BYTES: usize = 64 << 10;
/// What even the smallest answer costs while it is queued.
const LEAST_BYTES: usize = 1 << 10;
/// An answer of this size is given even at the bound: health must not fail there.
const SMALL_BYTES: usize = 4 << 10;

/// The body of an answer.
pub(super) struct Answer {
    inner: Body,
    undelivered: Undelivered,
    buffered: Buffered,
    lingering: Lingering,
    /// The data that the peer could withhold for ever.
    queued: Option<Arc<Queued>>,
    /// tonic encodes into one buffer and keeps it as long as the body: the hold of
    /// what went there last.
    buffer: Option<Arc<Held>>,
    end: Option<HeaderMap>,
    ended: bool,
}

/// What a connection has queued of answers whose end was queued, too.
#[derive(Clone, Debug, Default)]
pub(super) struct Lingering(Arc<AtomicUsize>);

struct Linger {
    all: Lingering,
    bytes: usize,
}

/// What is queued of an answer whose end was kept back.
#[derive(Default)]
struct Queued {
    chunks: AtomicUsize,
    body: AtomicWaker,
}

/// Data of an answer, with what it holds until it is dropped.
pub(super) struct Chunk {
    bytes: Bytes,
    _place: Option<Reservation>,
    _held: Option<Arc<Held>>,
    _linger: Option<Linger>,
    queued: Option<Arc<Queued>>,
}

impl Answer {
    /// The answer `inner`, in the place that is put into `undelivered`.
    pub(super) fn new(
        inner: Body,
        undelivered: Undelivered,
        buffered: Buffered,
        lingering: Lingering,
    ) -> Self {
        Self {
            inner,
            undelivered,
            buffered,
            lingering,
            queued: None,
            buffer: None,
            end: None,
            ended: false,
        }
    }

    /// `None` if there is no room for it.
    fn chunk(&mut self, bytes: Bytes) -> Option<Chunk> {
        let mut place = self.undelivered.take();
        // The messages are gone, of which these bytes are made.
        let in_place = place.as_ref().map_or(0, Reservation::bytes);
        let more = bytes.len().saturating_sub(in_place);
        let must = place.is_some() || bytes.len() <= SMALL_BYTES;
        self.buffer = match more {
            0 => None,
            more if must => Some(Arc::new(self.buffered.hold(more))),
            more => Some(Arc::new(self.buffered.try_hold(more)?)),
        };
        let linger = self.lingering.try_add(bytes.len());
        if let (Some(_), Some(place)) = (&linger, &mut place) {
            // Nothing else of the request outlasts its end.
            place.shrink_to(bytes.len().max(LEAST_BYTES));
        }
        let queued = linger.is_none().then(|| {
            let queued = self.queued.get_or_insert_default();
            queued.chunks.fetch_add(1, Ordering::Relaxed);
            Arc::clone(queued)
        });
        Some(Chunk {
            bytes,
            _place: place,
            _held: self.buffer.clone(),
            _linger: linger,
            queued,
        })
    }

    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<Option<HeaderMap>> {
        if let (Some(_), Some(queued)) = (&self.end, &self.queued) {
            ready!(queued.poll_sent(context));
        }
        Poll::Ready(self.end.take())
    }
}

impl http_body::Body for Answer {
    type Data = Chunk;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Chunk>, Status>>> {
        let this = &mut *self;
        if this.ended {
            return Poll::Ready(None);
        }
        if this.end.is_none() {
            let frame = match ready!(Pin::new(&mut this.inner).poll_frame(context)) {
                Some(Ok(frame)) => frame,
                Some(Err(status)) => return Poll::Ready(Some(Err(status))),
                None => return Poll::Ready(None),
            };
            match frame.into_data() {
                Ok(bytes) => match this.chunk(bytes) {
                    Some(chunk) => return Poll::Ready(Some(Ok(Frame::data(chunk)))),
                    None => {
                        let mut trailers = HeaderMap::new();
                        if let Err(status) = overloaded().add_header(&mut trailers) {
                            return Poll::Ready(Some(Err(status)));
                        }
                        this.end = Some(trailers);
                    }
                },
                Err(frame) => this.end = frame.into_trailers().ok(),
            }
        }
        let trailers = ready!(this.poll_end(context));
        this.ended = true;
        Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.ended || (self.end.is_none() && self.inner.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Lingering {
    /// Whether any answer shares it, beside the connection and who asks.
    pub(super) fn are_some(&self) -> bool {
        Arc::strong_count(&self.0) > 2
    }

    fn try_add(&self, bytes: usize) -> Option<Linger> {
        let bytes = bytes.max(LEAST_BYTES);
        let fits = |now: usize| Some(now + bytes).filter(|&then| then <= LINGERING_BYTES);
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        self.0.fetch_update(set, fetch, fits).ok()?;
        let all = self.clone();
        Some(Linger { all, bytes })
    }
}

impl Drop for Linger {
    fn drop(&mut self) {
        self.all.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Queued {
    fn poll_sent(&self, context: &Context<'_>) -> Poll<()> {
        self.body.register(context.waker());
        match self.chunks.load(Ordering::Acquire) {
            0 => Poll::Ready(()),
            _ => Poll::Pending,
        }
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        if let Some(queued) = &self.queued
            && queued.chunks.fetch_sub(1, Ordering::Release) == 1
        {
            queued.body.wake();
        }
    }
}

impl Buf for Chunk {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        self.bytes.chunks_vectored(slices)
    }
}
