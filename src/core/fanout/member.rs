//! What the fan-out waits for: calls, its timer, and the signal to stop.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll},
};

use futures_util::future::BoxFuture;
use tokio::time::Sleep;

use crate::core::{
    call::Outcome,
    error::{CallError, Effect},
};

/// One thing to wait for.
pub(super) enum Member {
    /// A call; `None` once it was ended from outside.
    Call(usize, Option<BoxFuture<'static, Outcome>>),
    Timer(Pin<Box<Sleep>>),
    Stop(BoxFuture<'static, ()>),
}

pub(super) enum Event {
    Done(usize, Outcome),
    TimerFired,
    Stop,
}

impl Future for Member {
    type Output = Event;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Event> {
        match &mut *self {
            Self::Call(_, None) => Poll::Pending,
            Self::Call(index, Some(call)) => {
                let index = *index;
                // A panicking call must cost its own result and no other.
                match catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(context))) {
                    Ok(Poll::Pending) => Poll::Pending,
                    Ok(Poll::Ready(outcome)) => Poll::Ready(Event::Done(index, outcome)),
                    Err(_) => {
                        let error = CallError::internal(Effect::Maybe);
                        Poll::Ready(Event::Done(index, Err(error)))
                    }
                }
            }
            Self::Timer(timer) => timer.as_mut().poll(context).map(|()| Event::TimerFired),
            Self::Stop(stop) => stop.as_mut().poll(context).map(|()| Event::Stop),
        }
    }
}
