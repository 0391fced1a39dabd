//! The streaming RPC: a task runs the calls and puts each completion into an
//! outbox, from which the response takes what the caller is ready to read.
//!
//! The task does not wait for the reader, or a slow reader would stall the tools
//! and their timers. The outbox holds at most one message per call and one more;
//! calls whose completion waits in it still count as in flight. Dropping the response
//! aborts the task and with it the calls.
//!
//! A stream ends well only with its aggregate: a task that breaks off, even by
//! panicking, ends it in INTERNAL.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use opentelemetry::context::FutureExt as _;
use tokio::{
    task::AbortHandle,
    time::{Instant, Sleep, sleep_until, timeout, timeout_at},
};
use tokio_stream::Stream;
use tonic::Status;

use super::{
    run::Run,
    wire::status::{internal, read_too_slowly},
};
use crate::{
    core::reservation::{Reservation, UnsentReservation},
    pb::{self, stream_execute_tools_response::Event, tool_execution_result::Outcome},
};

/// This many messages leave one by one, as they come. After that, small ones are
/// gathered: h2 peers charge what unread DATA frames lack to [`GATHER_BYTES`]
/// against a budget, and close the connection of a caller that does not read when
/// it is used up. The least budget, 25,600 bytes, lasts for this many.
const PROMPT_MESSAGES: usize = 128;
/// DATA frames of this size are free of that charge.
const GATHER_BYTES: usize = 256;
/// The longest that a message waits for others to be gathered with.
const GATHER_TIMEOUT: Duration = Duration::from_millis(20);

/// How long messages wait after others have left, so that a burst leaves in few
/// writes; what comes by itself does not wait, nor does the end.
const BURST_TIMEOUT: Duration = Duration::from_millis(1);
/// How long the head of the response waits for the first message, to leave with
/// it: a write to the socket costs as much as a call.
const HEAD_TIMEOUT: Duration = Duration::from_millis(2);

/// The messages of one stream that the caller has not taken yet.
#[derive(Default)]
struct Outbox {
    messages: VecDeque<Message>,
    bytes: usize,
    /// Nothing follows after `messages`; `Some` error if that is not the end
    /// that was promised.
    end: Option<Result<(), Status>>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

struct Message {
    message: pb::StreamExecuteToolsResponse,
    bytes: usize,
    reservation: Reservation,
}

#[derive(Clone, Default)]
struct SharedOutbox(Arc<Mutex<Outbox>>);

impl SharedOutbox {
    fn lock(&self) -> MutexGuard<'_, Outbox> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, event: Event, reservation: Reservation) {
        let bytes = least_bytes(&event);
        let message = pb::StreamExecuteToolsResponse { event: Some(event) };
        let mut outbox = self.lock();
        outbox.bytes += bytes;
        outbox.messages.push_back(Message {
            message,
            bytes,
            reservation,
        });
        outbox.wake_reader();
    }

    fn end(&self, end: Result<(), Status>) {
        let mut outbox = self.lock();
        if outbox.end.is_none() {
            outbox.end = Some(end);
            outbox.wake_reader();
        }
    }

    /// Completes when there is something to take.
    async fn filled(&self) {
        std::future::poll_fn(|context| {
            let mut outbox = self.lock();
            if outbox.messages.is_empty() && outbox.end.is_none() {
                outbox.reader = Some(context.waker().clone());
                return Poll::Pending;
            }
            Poll::Ready(())
        })
        .await;
    }

    /// Completes when the reader has taken everything.
    async fn emptied(&self) {
        std::future::poll_fn(|context| {
            let mut outbox = self.lock();
            if outbox.messages.is_empty() {
                return Poll::Ready(());
            }
            outbox.writer = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// A lower bound of the event's encoded size, which is all that gathering needs;
/// the true one would be computed once more when it is encoded.
fn least_bytes(event: &Event) -> usize {
    match event {
        Event::Completion(result) => {
            let outcome = match &result.outcome {
                Some(Outcome::Observation(observation)) => observation.len(),
                Some(Outcome::Error(error)) => error.message.len(),
                None => 0,
            };
            result.id.len() + result.name.len() + outcome
        }
        Event::Aggregate(_) => GATHER_BYTES,
    }
}

impl Outbox {
    fn wake_reader(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

/// Starts the task that drives `run`; returns its messages, with the first if
/// that comes at once.
///
/// `unsent` gets the reservations of what it yields.
pub async fn start(run: Run, unsent: UnsentReservation) -> CompletionStream {
    let outbox = SharedOutbox::default();
    let work = produce(run, outbox.clone());
    let task = tokio::spawn(work.with_current_context());
    let stream = CompletionStream {
        outbox,
        unsent,
        task: task.abort_handle(),
        taken: 0,
        gathering: None,
        flushing: false,
        flushed: Instant::now() - BURST_TIMEOUT,
    };
    // Late is as good as now: the head says nothing that a caller waits for.
    let _ = timeout(HEAD_TIMEOUT, stream.outbox.filled()).await;
    stream
}

async fn produce(mut run: Run, outbox: SharedOutbox) {
    // Runs when this task panics as well.
    let guard = EndGuard(outbox);
    let outbox = &guard.0;
    while let Some(completion) = run.next().await {
        let (result, reservation) = run.result(completion);
        outbox.push(Event::Completion(result), reservation);
    }
    let deadline = run.deadline();
    let (aggregate, reservation) = run.finish().await;
    outbox.push(Event::Aggregate(aggregate), reservation);
    outbox.end(Ok(()));
    if timeout_at(deadline.at, outbox.emptied()).await.is_err() {
        let mut outbox = outbox.lock();
        outbox.messages.clear();
        outbox.end = Some(Err(read_too_slowly()));
        outbox.wake_reader();
    }
}

/// Ends the stream in INTERNAL unless it has ended before.
struct EndGuard(SharedOutbox);

impl Drop for EndGuard {
    fn drop(&mut self) {
        self.0.end(Err(internal()));
    }
}

/// The messages of one `StreamExecuteTools`.
pub struct CompletionStream {
    outbox: SharedOutbox,
    unsent: UnsentReservation,
    task: AbortHandle,
    taken: usize,
    /// Set while small messages wait for others to leave with.
    gathering: Option<Pin<Box<Sleep>>>,
    /// What was gathered leaves together.
    flushing: bool,
    /// When everything there was had been taken.
    flushed: Instant,
}

impl Stream for CompletionStream {
    type Item = Result<pb::StreamExecuteToolsResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let mut outbox = this.outbox.lock();
        if !this.flushing && outbox.end.is_none() && !outbox.messages.is_empty() {
            let timer = this.gathering.get_or_insert_with(|| {
                let until = if this.taken >= PROMPT_MESSAGES {
                    Instant::now() + GATHER_TIMEOUT
                } else {
                    this.flushed + BURST_TIMEOUT
                };
                Box::pin(sleep_until(until))
            });
            let enough = this.taken >= PROMPT_MESSAGES && outbox.bytes >= GATHER_BYTES;
            let early = Instant::now() < timer.deadline();
            if !enough && early && timer.as_mut().poll(context).is_pending() {
                outbox.reader = Some(context.waker().clone());
                return Poll::Pending;
            }
        }
        if let Some(Message {
            message,
            bytes,
            reservation,
        }) = outbox.messages.pop_front()
        {
            outbox.bytes -= bytes;
            this.unsent.add(reservation);
            this.taken += 1;
            this.flushing = true;
            if outbox.messages.is_empty() {
                this.flushing = false;
                this.gathering = None;
                this.flushed = Instant::now();
                if let Some(writer) = outbox.writer.take() {
                    writer.wake();
                }
            }
            return Poll::Ready(Some(Ok(message)));
        }
        match &mut outbox.end {
            Some(end) => Poll::Ready(std::mem::replace(end, Ok(())).err().map(Err)),
            None => {
                outbox.reader = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for CompletionStream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl std::fmt::Debug for CompletionStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CompletionStream").finish_non_exhaustive()
    }
}
