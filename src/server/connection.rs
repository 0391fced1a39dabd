//! Serves one HTTP/2 connection with safe settings, from its first byte to its
//! end by age, drain or the peer.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep, timeout},
};

use super::{edge::FromPeer, stream_task::StreamTasks};
use crate::{
    config,
    core::drain::{Drain, DrainController},
    transport::{frames::Frames, writes::writes_to_io},
};

/// The preface and the header of the SETTINGS frame that must follow it (RFC
/// 9113, 3.4). From then on HTTP/2 keepalive finds a peer that went silent.
const OPENING_BYTES: usize = 24 + 9;
/// Batches are large messages: in frames of HTTP/2's default 16 KiB they take
/// four times the system calls.
const MAX_FRAME_BYTES: u32 = 64 << 10;
/// Up to so many times the headers that a request may have are read, to be refused
/// in gRPC's way; beyond that h2 answers with 431, and four times that ends the
/// connection.
const HEADER_LIST_MARGIN: u32 = 4;
/// How much of a stream waits in h2 for the socket. More waits where it came from.
const SEND_BUFFER_BYTES: usize = 64 << 10;
/// Malformed streams that a peer may send before the connection ends
/// (RUSTSEC-2024-0003). tonic's server turns this off.
const MAX_LOCAL_ERROR_RESETS: usize = 1024;

/// How much longer than the longest request a connection lasts that takes no others:
/// what is left on it then is not read.
const OVERTIME: Duration = Duration::from_secs(30);

/// Serves `io` until it ends, and ends its open-ended streams before. No request on it
/// takes more than `max_request_timeout`.
pub(super) async fn serve<T>(
    io: T,
    edge: FromPeer,
    settings: &config::Server,
    max_request_timeout: Duration,
    drain: &Drain,
    open_ended: &DrainController,
) where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let opening = Opening {
        io,
        missing: OPENING_BYTES,
        timeout: Box::pin(sleep(settings.first_byte_timeout)),
        drained: drain.refusing(),
    };
    let (io, heard) = Frames::of_client(opening);
    let work = edge.work();
    let mut builder = http2::Builder::new(StreamTasks);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(settings.max_streams_per_connection)
        .initial_stream_window_size(settings.stream_window_bytes)
        .initial_connection_window_size(settings.connection_window_bytes)
        .max_header_list_size(settings.max_header_list_bytes * HEADER_LIST_MARGIN)
        .max_frame_size(MAX_FRAME_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        // Response-Headers of gRPC have none, and servers of gRPC send none.
        .auto_date_header(false)
        .keep_alive_interval(settings.keepalive_interval)
        .keep_alive_timeout(settings.keepalive_timeout)
        // Streams that a peer may reset before they are served; after that it is
        // told to calm down (rapid reset, CVE-2023-44487). It may have so many
        // calls at a time, and an agent that changes its mind cancels all of them:
        // with h2's 20, the connection would be lost for the calls of others.
        .max_pending_accept_reset_streams(settings.max_streams_per_connection as usize)
        .max_local_error_reset_streams(MAX_LOCAL_ERROR_RESETS);
    let mut connection = Box::pin(builder.serve_connection(TokioIo::new(io), edge));

    let early_end = tokio::select! {
        result = &mut connection => Some(result),
        () = sleep(with_jitter(settings.max_connection_age)) => None,
        () = drain.refusing() => None,
    };
    let result = match early_end {
        Some(result) => result,
        None => {
            connection.as_mut().graceful_shutdown();
            open_ended.refuse();
            let given_up = async {
                drain.refusing().await;
                work.is_over(&heard).await;
                tracing::debug!("closed a connection whose peer says nothing");
                Ok(())
            };
            let end = async {
                tokio::select! {
                    result = connection => result,
                    result = given_up => result,
                }
            };
            let end = timeout(max_request_timeout + OVERTIME, end);
            end.await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = result {
        tracing::debug!(?error, "a connection broke");
    }
}

/// Plus or minus a tenth, so that connections that began together do not all end
/// together (gRFC A9).
fn with_jitter(age: Duration) -> Duration {
    age.mul_f64(0.9 + 0.2 * fastrand::f64())
}

/// A connection that must begin to speak HTTP/2 soon: hyper waits for the
/// preface without bound, even while it shuts down.
struct Opening<T> {
    io: T,
    missing: usize,
    timeout: Pin<Box<Sleep>>,
    drained: futures_util::future::BoxFuture<'static, ()>,
}

impl<T: AsyncRead + Unpin> AsyncRead for Opening<T> {
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
                let error = io::Error::new(io::ErrorKind::TimedOut, "no HTTP/2 preface came");
                return Poll::Ready(Err(error));
            }
        }
        read
    }
}

writes_to_io!(Opening);
