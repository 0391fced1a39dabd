//! The body of a response, held until its last byte is handed to the transport.
//!
//! h2 queues what exceeds the peer's flow-control window; the memory of a chunk is
//! released when h2 has written or dropped it. Once END_STREAM is queued, nothing can
//! reset the stream any more, so the trailers are withheld until the data has left,
//! unless there is little of it.

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
        reservation::{Reservation, UnsentReservation},
    },
    orchestrator::wire::status::overloaded,
};

/// How many bytes of finished responses may be queued on a connection, where its peer
/// can keep them as long as the connection lasts: 64 small ones, which then need not
/// wait for the peer.
const MAX_BACKLOG_BYTES: usize = 64 << 10;
/// What the smallest response costs while it is queued.
const MIN_RESPONSE_BYTES: usize = 1 << 10;
/// Up to this size, a response is sent even over the memory budget: health checks must
/// not fail there.
const SMALL_BYTES: usize = 4 << 10;

/// The body of a response.
pub(super) struct ResponseBody {
    inner: Body,
    unsent: UnsentReservation,
    buffered: Buffered,
    backlog: FinishedBacklog,
    /// The chunks before the withheld trailers, if any.
    queued: Option<Arc<Queued>>,
    /// The hold of tonic's encode buffer, which lives as long as the body: that of the
    /// latest message.
    buffer: Option<Arc<Held>>,
    trailers: Option<HeaderMap>,
    ended: bool,
}

/// How many bytes a connection has queued of responses whose trailers are queued, too.
#[derive(Clone, Debug, Default)]
pub(super) struct FinishedBacklog(Arc<AtomicUsize>);

struct BacklogShare {
    backlog: FinishedBacklog,
    bytes: usize,
}

/// What is queued of a response whose trailers are withheld.
#[derive(Default)]
struct Queued {
    chunks: AtomicUsize,
    body: AtomicWaker,
}

/// Data of a response, with what it holds until it is dropped.
pub(super) struct Chunk {
    bytes: Bytes,
    _reservation: Option<Reservation>,
    _held: Option<Arc<Held>>,
    _share: Option<BacklogShare>,
    queued: Option<Arc<Queued>>,
}

impl ResponseBody {
    /// Wraps `inner`, whose service adds its reservations to `unsent`.
    pub(super) fn new(
        inner: Body,
        unsent: UnsentReservation,
        buffered: Buffered,
        backlog: FinishedBacklog,
    ) -> Self {
        Self {
            inner,
            unsent,
            buffered,
            backlog,
            queued: None,
            buffer: None,
            trailers: None,
            ended: false,
        }
    }

    /// `None` if there is no memory for it.
    fn chunk(&mut self, bytes: Bytes) -> Option<Chunk> {
        let mut reservation = self.unsent.take();
        // The encoded bytes take the place of the messages, which are gone.
        let reserved = reservation.as_ref().map_or(0, Reservation::bytes);
        let more = bytes.len().saturating_sub(reserved);
        let must = reservation.is_some() || bytes.len() <= SMALL_BYTES;
        self.buffer = match more {
            0 => None,
            more if must => Some(Arc::new(self.buffered.hold(more))),
            more => Some(Arc::new(self.buffered.try_hold(more)?)),
        };
        let share = self.backlog.try_add(bytes.len());
        if let (Some(_), Some(reservation)) = (&share, &mut reservation) {
            // The bytes are all that is left of the request.
            reservation.shrink_to(bytes.len().max(MIN_RESPONSE_BYTES));
        }
        let queued = share.is_none().then(|| {
            let queued = self.queued.get_or_insert_default();
            queued.chunks.fetch_add(1, Ordering::Relaxed);
            Arc::clone(queued)
        });
        Some(Chunk {
            bytes,
            _reservation: reservation,
            _held: self.buffer.clone(),
            _share: share,
            queued,
        })
    }

    fn poll_trailers(&mut self, context: &mut Context<'_>) -> Poll<Option<HeaderMap>> {
        if let (Some(_), Some(queued)) = (&self.trailers, &self.queued) {
            ready!(queued.poll_sent(context));
        }
        Poll::Ready(self.trailers.take())
    }
}

impl http_body::Body for ResponseBody {
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
        if this.trailers.is_none() {
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
                        this.trailers = Some(trailers);
                    }
                },
                Err(frame) => this.trailers = frame.into_trailers().ok(),
            }
        }
        let trailers = ready!(this.poll_trailers(context));
        this.ended = true;
        Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.ended || (self.trailers.is_none() && self.inner.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl FinishedBacklog {
    /// Whether a response shares it with the connection and the caller of this.
    pub(super) fn is_shared(&self) -> bool {
        Arc::strong_count(&self.0) > 2
    }

    fn try_add(&self, bytes: usize) -> Option<BacklogShare> {
        let bytes = bytes.max(MIN_RESPONSE_BYTES);
        let fits = |now: usize| Some(now + bytes).filter(|&then| then <= MAX_BACKLOG_BYTES);
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        self.0.fetch_update(set, fetch, fits).ok()?;
        let backlog = self.clone();
        Some(BacklogShare { backlog, bytes })
    }
}

impl Drop for BacklogShare {
    fn drop(&mut self) {
        self.backlog.0.fetch_sub(self.bytes, Ordering::Relaxed);
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
