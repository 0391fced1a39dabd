//! Serves one HTTP/2 connection with safe settings, until it ends by age, by drain or
//! by its peer.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep, timeout},
};

use super::{edge::ConnectionService, stream_task::StreamExecutor};
use crate::{
    config,
    core::drain::{Drain, DrainController},
    transport::{frames::FrameObserver, writes::writes_to_io},
};

/// The preface and the header of the SETTINGS frame that must follow it (RFC 9113,
/// 3.4). From then on, HTTP/2 keepalive detects a silent peer.
const PREFACE_BYTES: usize = 24 + 9;
/// Batches are large messages: in frames of HTTP/2's default 16 KiB they take four
/// times the system calls.
const MAX_FRAME_BYTES: u32 = 64 << 10;
/// h2 accepts this many times the permitted size of headers, so that they can be refused
/// with a gRPC status. Beyond that it answers 431, and beyond four times that it closes
/// the connection.
const HEADER_LIST_MARGIN: u32 = 4;
/// How much of a stream h2 buffers for the socket.
const SEND_BUFFER_BYTES: usize = 64 << 10;
/// Stream errors that a peer may cause before its connection is closed
/// (RUSTSEC-2024-0003). tonic's server turns this limit off.
const MAX_LOCAL_ERROR_RESETS: usize = 1024;

/// How much longer than the longest request a graceful shutdown of the connection may
/// take: peers that still have not read their responses then are cut off.
const SHUTDOWN_MARGIN: Duration = Duration::from_secs(30);

/// Serves `io` until it ends. `long_lived` ends its long-lived streams when it shuts
/// down; no other request takes longer than `max_request_timeout`.
pub(super) async fn serve<T>(
    io: T,
    service: ConnectionService,
    settings: &config::Server,
    max_request_timeout: Duration,
    drain: &Drain,
    long_lived: &DrainController,
) where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let io = PrefaceTimeout {
        io,
        missing: PREFACE_BYTES,
        timeout: Box::pin(sleep(settings.first_byte_timeout)),
        drained: drain.refusing(),
    };
    let (io, frames) = FrameObserver::of_client(io);
    let activity = service.activity();
    let mut builder = http2::Builder::new(StreamExecutor);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(settings.max_streams_per_connection)
        .initial_stream_window_size(settings.stream_window_bytes)
        .initial_connection_window_size(settings.connection_window_bytes)
        .max_header_list_size(settings.max_header_list_bytes * HEADER_LIST_MARGIN)
        .max_frame_size(MAX_FRAME_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        // gRPC's Response-Headers have no date.
        .auto_date_header(false)
        .keep_alive_interval(settings.keepalive_interval)
        .keep_alive_timeout(settings.keepalive_timeout)
        // Streams that a peer may reset before they are served, until it gets
        // ENHANCE_YOUR_CALM (rapid reset, CVE-2023-44487). An agent may cancel all of
        // its calls at once; with h2's default of 20, that would close the connection
        // for the calls of others.
        .max_pending_accept_reset_streams(settings.max_streams_per_connection as usize)
        .max_local_error_reset_streams(MAX_LOCAL_ERROR_RESETS);
    let mut connection = Box::pin(builder.serve_connection(TokioIo::new(io), service));

    let (age, draining) = (with_jitter(settings.max_connection_age), drain.refusing());
    let shutdown = async move {
        tokio::select! {
            () = sleep(age) => {}
            () = draining => {}
        }
    };
    // A set is polled only when it was woken itself, not with each frame.
    let mut shutdown = FuturesUnordered::from_iter([shutdown]);
    let early_end = tokio::select! {
        result = &mut connection => Some(result),
        _ = shutdown.next() => None,
    };
    drop(shutdown);
    let result = match early_end {
        Some(result) => result,
        None => {
            connection.as_mut().graceful_shutdown();
            long_lived.refuse();
            let abandoned = async {
                drain.refusing().await;
                activity.ceased(&frames).await;
                tracing::debug!("closed a connection whose peer is silent");
                Ok(())
            };
            let end = async {
                tokio::select! {
                    result = connection => result,
                    result = abandoned => result,
                }
            };
            let end = timeout(max_request_timeout + SHUTDOWN_MARGIN, end);
            end.await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = result {
        tracing::debug!(?error, "a connection failed");
    }
}

/// Plus or minus a tenth, so that connections that were opened together do not all end
/// together (gRFC A9).
fn with_jitter(age: Duration) -> Duration {
    age.mul_f64(0.9 + 0.2 * fastrand::f64())
}

/// A connection that fails unless the preface arrives in time: hyper waits for it
/// without bound, even while it shuts down.
struct PrefaceTimeout<T> {
    io: T,
    missing: usize,
    timeout: Pin<Box<Sleep>>,
    drained: futures_util::future::BoxFuture<'static, ()>,
}

impl<T: AsyncRead + Unpin> AsyncRead for PrefaceTimeout<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.io).poll_read(context, buffer);
        if self.missing > 0 {
            let count = buffer.filled().len() - before;
            self.missing = self.missing.saturating_sub(count);
            if read.is_pending()
                && (self.timeout.as_mut().poll(context).is_ready()
                    || self.drained.as_mut().poll(context).is_ready())
            {
                let error =
                    io::Error::new(io::ErrorKind::TimedOut, "no HTTP/2 preface was received");
                return Poll::Ready(Err(error));
            }
        }
        read
    }
}

writes_to_io!(PrefaceTimeout);
