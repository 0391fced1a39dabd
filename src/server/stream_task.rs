//! The task of an HTTP/2 stream, with a deadline for sending the response.
//!
//! hyper waits for the peer's flow-control window without bound, and does not poll the
//! body meanwhile, so the body can't time out by itself. Dropping the task works: h2
//! discards what is queued for the stream and resets it, unless END_STREAM is queued
//! already (see [`response_body`](super::response_body)).

use std::{
    cell::Cell,
    pin::Pin,
    task::{Context, Poll, ready},
};

use hyper::rt::Executor;
use tokio::time::{Instant, Sleep, sleep_until};

thread_local! {
    /// Of the task that is being polled.
    static SEND_DEADLINE: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Has the stream of the current task reset at `deadline` unless its response is sent
/// by then.
pub(super) fn set_send_deadline(deadline: Instant) {
    SEND_DEADLINE.set(Some(deadline));
}

/// Spawns the tasks of streams.
#[derive(Clone, Debug)]
pub(super) struct StreamExecutor;

impl<F> Executor<F> for StreamExecutor
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        // Boxed, because tokio moves a task several times before it runs.
        tokio::spawn(StreamTask {
            stream: Box::pin(stream),
            deadline: None,
            timer: None,
        });
    }
}

struct StreamTask<F> {
    stream: Pin<Box<F>>,
    deadline: Option<Instant>,
    /// Created only if the response can't be sent at once.
    timer: Option<Pin<Box<Sleep>>>,
}

impl<F: Future<Output = ()>> Future for StreamTask<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        SEND_DEADLINE.set(this.deadline);
        let done = this.stream.as_mut().poll(context);
        this.deadline = SEND_DEADLINE.take();
        let (Poll::Pending, Some(at)) = (done, this.deadline) else {
            return done;
        };
        let timer = this.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
        ready!(timer.as_mut().poll(context));
        tracing::debug!("a response was not read in time");
        Poll::Ready(())
    }
}
