//! The task of one HTTP/2 stream, which ends when nobody took the answer in time.
//!
//! hyper waits for the peer's window without bound, and while it waits it does not
//! poll the body, which therefore can't give up by itself. Dropping the task does:
//! h2 then forgets what is queued for the stream and resets it. It does so only
//! until the end of the stream was queued as well: see [`answer`](super::answer).

use std::{
    cell::Cell,
    pin::{Pin, pin},
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
        tokio::spawn(async move {
            let mut stream = pin!(stream);
            let mut end = End::default();
            std::future::poll_fn(|context| end.poll(stream.as_mut(), context)).await;
        });
    }
}

#[derive(Default)]
struct End {
    at: Option<Instant>,
    /// Not before there is something to wait for: most answers are taken at once.
    timer: Option<Pin<Box<Sleep>>>,
}

impl End {
    fn poll(
        &mut self,
        stream: Pin<&mut impl Future<Output = ()>>,
        context: &mut Context<'_>,
    ) -> Poll<()> {
        ENDS.set(self.at);
        let done = stream.poll(context);
        self.at = ENDS.take();
        let (Poll::Pending, Some(at)) = (done, self.at) else {
            return done;
        };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
        ready!(timer.as_mut().poll(context));
        tracing::debug!("an answer was not taken in time");
        Poll::Ready(())
    }
}
