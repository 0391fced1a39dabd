//! A tool's reply that is a stream of messages, read to its end.

use bytes::{Buf as _, Bytes, BytesMut};
use h2::RecvStream;
use http::{HeaderMap, Response, StatusCode};

use super::{
    failure::Fault,
    reply::{self, Reply},
    request::{COMPRESSED, PREFIX_BYTES},
};
use crate::core::buffered::Buffered;

/// Reads a stream of at most `max_messages`, each of at most `max_bytes`, and hands each to
/// `take` as it comes. What has come of one is held out of `buffered`. As of a single reply,
/// a gRPC status decides; that messages came before it counts for nothing.
///
/// # Errors
/// If the tool failed, its reply is not what it should be, or there is no room for a message;
/// or with what `take` says.
pub(crate) async fn read(
    reply: Response<RecvStream>,
    max_messages: usize,
    max_bytes: usize,
    buffered: &Buffered,
    mut take: impl FnMut(&[u8]) -> Result<(), Fault> + Send,
) -> Result<(), Fault> {
    let (head, mut body) = reply.into_parts();
    let mut answered = reply::check_status(&head.headers)?;
    if !answered && (head.status != StatusCode::OK || !reply::is_grpc(&head.headers)) {
        let reading = reply::read_page(&head, body, max_bytes, buffered);
        let Reply { message, .. } = Box::pin(reading).await?;
        return take(&message);
    }
    let mut received = BytesMut::new();
    let mut held = buffered.hold(0);
    let mut count = 0;
    while let Some(data) = body.data().await {
        let data = data.map_err(Fault::Transport)?;
        // Fails only for more than was received.
        let _ = body.flow_control().release_capacity(data.len());
        received.extend_from_slice(&data);
        while let Some(message) = next(&mut received, max_bytes)? {
            count += 1;
            if count > max_messages {
                return Err(Fault::TooMany(max_messages));
            }
            give(&message, &head.headers, max_bytes, buffered, &mut take)?;
        }
        let more = received.capacity().saturating_sub(held.bytes());
        if more > 0 && !held.try_grow_leaving_room(more) {
            let bytes = received.len();
            return Err(Fault::NoMemory { bytes });
        }
    }
    let trailers = body.trailers().await.map_err(Fault::Transport)?;
    answered |= reply::check_status(&trailers.unwrap_or_default())?;
    if !received.is_empty() {
        return Err(Fault::Incomplete("its last message ends early"));
    }
    if !answered {
        return Err(Fault::Incomplete("it has no status"));
    }
    Ok(())
}

/// The next framed message, if all of it is there.
fn next(received: &mut BytesMut, max_bytes: usize) -> Result<Option<Bytes>, Fault> {
    if received.len() < PREFIX_BYTES {
        return Ok(None);
    }
    let end = PREFIX_BYTES + reply::length(received);
    let first = &received[..end.min(received.len())];
    match reply::missing_bytes(first, max_bytes)? {
        Some(0) => Ok(Some(received.split_to(end).freeze())),
        _ => Ok(None),
    }
}

fn give(
    framed: &Bytes,
    headers: &HeaderMap,
    max_bytes: usize,
    buffered: &Buffered,
    take: &mut impl FnMut(&[u8]) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let is_compressed = framed[0] == COMPRESSED;
    let mut message = framed.clone();
    message.advance(PREFIX_BYTES);
    if is_compressed {
        let inflated = reply::inflated(&message, headers, max_bytes, buffered)?;
        return take(&inflated.message);
    }
    take(&message)
}
