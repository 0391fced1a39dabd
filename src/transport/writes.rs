//! `AsyncWrite` for wrappers that only change what is read.

/// Delegates `AsyncWrite` of `$wrapper<T>` to its field `io`.
macro_rules! writes_to_io {
    ($wrapper:ident) => {
        const _: () = {
            use std::{
                io::{IoSlice, Result},
                pin::Pin,
                task::{Context, Poll},
            };
            use tokio::io::AsyncWrite;

            impl<T: AsyncWrite + Unpin> AsyncWrite for $wrapper<T> {
                fn poll_write(
                    mut self: Pin<&mut Self>,
                    context: &mut Context<'_>,
                    data: &[u8],
                ) -> Poll<Result<usize>> {
                    Pin::new(&mut self.io).poll_write(context, data)
                }

                fn poll_flush(
                    mut self: Pin<&mut Self>,
                    context: &mut Context<'_>,
                ) -> Poll<Result<()>> {
                    Pin::new(&mut self.io).poll_flush(context)
                }

                fn poll_shutdown(
                    mut self: Pin<&mut Self>,
                    context: &mut Context<'_>,
                ) -> Poll<Result<()>> {
                    Pin::new(&mut self.io).poll_shutdown(context)
                }

                fn poll_write_vectored(
                    mut self: Pin<&mut Self>,
                    context: &mut Context<'_>,
                    slices: &[IoSlice<'_>],
                ) -> Poll<Result<usize>> {
                    Pin::new(&mut self.io).poll_write_vectored(context, slices)
                }

                fn is_write_vectored(&self) -> bool {
                    self.io.is_write_vectored()
                }
            }
        };
    };
}

pub(crate) use writes_to_io;
