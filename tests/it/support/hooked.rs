//! A stream of bytes with a hook: what is read and written passes through, and the
//! hook sees it, counts it, or holds it up.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What happens around reads and writes; by default, nothing.
pub trait Hook<T>: Unpin {
    /// Nothing is read until this is ready.
    fn poll_may_read(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    /// `bytes` were read. An error ends the stream.
    fn was_read(&mut self, _: &mut T, _: &mut Context<'_>, _bytes: &[u8]) -> io::Result<()> {
        Ok(())
    }

    /// An error ends the stream.
    fn may_write(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn was_written(&mut self, _bytes: &[u8]) {}

    /// Nothing is flushed until this is ready.
    fn poll_may_flush(&mut self, _: &mut T, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// The stream is about to be closed.
    fn is_dropped(&mut self, _: &mut T) {}
}

pub struct Hooked<T, H: Hook<T>> {
    pub io: T,
    pub hook: H,
}

impl<T: AsyncRead + Unpin, H: Hook<T>> AsyncRead for Hooked<T, H> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(this.hook.poll_may_read(context));
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.io).poll_read(context, buffer))?;
        let read = &buffer.filled()[before..];
        Poll::Ready(this.hook.was_read(&mut this.io, context, read))
    }
}

impl<T: AsyncWrite + Unpin, H: Hook<T>> AsyncWrite for Hooked<T, H> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        this.hook.may_write()?;
        let count = ready!(Pin::new(&mut this.io).poll_write(context, data))?;
        this.hook.was_written(&data[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(this.hook.poll_may_flush(&mut this.io, context))?;
        Pin::new(&mut this.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

impl<T, H: Hook<T>> Drop for Hooked<T, H> {
    fn drop(&mut self) {
        self.hook.is_dropped(&mut self.io);
    }
}
