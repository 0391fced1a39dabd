//! The task of one HTTP/2 stream, which ends when nobody took the answer in time.
//!
//! hyper waits for the peer's window without bound, and while it waits it does not
//! poll the body, which therefore can't give up by itself. Dropping the task does:
//! h2 then forgets what is queued for the stream and resets it. It does so only
//! until the end of the stream was queued as well: see [`answer`](super::answer).

use std::{
    cell::Cell,
    pin::Pin,
    task::{Context, Poll, ready},
};

use hyper::rt::Executor;
use tokio::time::{Instant, Sleep, sleep_until};

thread_local! {
    /// Of the task that is being polled.
    static ENDS: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Ends the stream whose task runs now at that instant, unless its answer has been
/// taken by then.
pub(super) fn ends_at(instant: Instant) {
    ENDS.set(Some(instant));
}

/// Spawns the tasks of streams.
#[derive(Clone, Debug)]
pub(super) struct StreamTasks;

impl<F> Executor<F> for StreamTasks
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        // In a box of its own: tokio moves a task several times before it runs.
        tokio::spawn(StreamTask {
            stream: Box::pin(stream),
            ends_at: None,
            timer: None,
        });
    }
}

struct StreamTask<F> {
    stream: Pin<Box<F>>,
    ends_at: Option<Instant>,
    /// Not before there is something to wait for: most answers are taken at once.
    timer: Option<Pin<Box<Sleep>>>,
}

impl<F: Future<Output = ()>> Future for StreamTask<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        ENDS.set(this.ends_at);
        let done = this.stream.as_mut().poll(context);
        this.ends_at = ENDS.take();
        let (Poll::Pending, Some(at)) = (done, this.ends_at) else {
            return done;
        };
        let timer = this.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
        ready!(timer.as_mut().poll(context));
        tracing::debug!("an answer was not taken in time");
        Poll::Ready(())
    }
}
