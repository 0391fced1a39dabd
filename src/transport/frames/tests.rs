//! Streams of frames, cut anywhere and read in buffers of any size.

use proptest::{collection::vec, prelude::*};
use tokio::io::AsyncReadExt as _;

use super::*;

/// Gives its chunks one by one, then ends.
struct Chunks(Vec<Vec<u8>>);

impl AsyncRead for Chunks {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(chunk) = self.0.first_mut() else {
            return Poll::Ready(Ok(()));
        };
        let count = min(chunk.len(), buffer.remaining());
        buffer.put_slice(&chunk[..count]);
        chunk.drain(..count);
        if chunk.is_empty() {
            self.0.remove(0);
        }
        Poll::Ready(Ok(()))
    }
}

fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags, 0, 0, 0, 1]);
    frame.extend(payload);
    frame
}

fn cut(bytes: &[u8], lengths: &[usize]) -> Vec<Vec<u8>> {
    let (mut left, mut chunks) = (bytes, Vec::new());
    for &length in lengths.iter().cycle() {
        if left.is_empty() {
            break;
        }
        let (chunk, rest) = left.split_at(length.min(left.len()));
        chunks.push(chunk.to_vec());
        left = rest;
    }
    chunks
}

async fn read_all<T: AsyncRead + Unpin>(mut io: T, room: usize) -> Vec<u8> {
    let (mut all, mut buffer) = (Vec::new(), vec![0; room]);
    loop {
        match io.read(&mut buffer).await {
            // There may be a GOAWAY among the frames.
            Ok(0) | Err(_) => return all,
            Ok(count) => all.extend_from_slice(&buffer[..count]),
        }
    }
}

fn is_idle(frame: &[u8]) -> bool {
    frame[..4] == [0; 4] && frame[4] & 1 == 0
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn everything_but_empty_data_passes_in_any_pieces(
        frames in vec((0..8_u8, 0..2_u8, vec(any::<u8>(), 0..40)), 0..30),
        lengths in vec(1..50_usize, 1..5),
        room in 1..200_usize,
        is_client in any::<bool>(),
    ) {
        let frames: Vec<_> = frames.iter().map(|(kind, flags, payload)| frame(*kind, *flags, payload)).collect();
        let preface = if is_client { vec![7; PREFACE_BYTES] } else { Vec::new() };
        let sent = [preface.clone(), frames.concat()].concat();
        let chunks = Chunks(cut(&sent, &lengths));
        let (io, peer) = if is_client { FrameObserver::of_client(chunks) } else { FrameObserver::of_server(chunks) };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let passed_on = runtime.block_on(read_all(io, room));
        let kept: Vec<_> = frames.iter().filter(|frame| !is_idle(frame)).cloned().collect();
        prop_assert_eq!(passed_on, [preface, kept.concat()].concat());
        let answers = kept.iter().filter(|frame| frame[3] <= 1).count();
        prop_assert_eq!(peer.answers() as usize, answers);
    }

    #[test]
    fn the_header_list_size_is_recorded_from_any_pieces(
        others in vec((any::<u16>(), any::<u32>()), 0..9),
        value in 0..u32::MAX,
        lengths in vec(1..50_usize, 1..5),
    ) {
        let mut entries: Vec<_> = others.into_iter().filter(|(id, _)| *id != 6).collect();
        entries.push((6, value));
        let payload = entries.iter().flat_map(|(id, value)| {
            [id.to_be_bytes().to_vec(), value.to_be_bytes().to_vec()].concat()
        });
        let sent = frame(4, 0, &payload.collect::<Vec<_>>());
        let (io, peer) = FrameObserver::of_server(Chunks(cut(&sent, &lengths)));
        prop_assert_eq!(peer.max_header_list(), None);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(read_all(io, 64));
        prop_assert_eq!(peer.max_header_list(), Some(value));
    }
}

#[tokio::test]
async fn a_partial_header_is_passed_on_at_the_end() {
    let sent = [frame(6, 0, &[0; 8]), vec![0, 0, 8, 6]].concat();
    let (io, peer) = FrameObserver::of_server(Chunks(vec![sent.clone()]));
    assert_eq!(read_all(io, 100).await, sent);
    assert_eq!((peer.reads(), peer.answers()), (1, 0));
}

fn go_away(code: u32, debug_data: &[u8]) -> Vec<u8> {
    let mut payload = vec![0, 0, 0, 1];
    payload.extend(code.to_be_bytes());
    payload.extend(debug_data);
    frame(7, 0, &payload)
}

/// How reading of these chunks ends.
async fn end_of(chunks: Vec<Vec<u8>>) -> Result<(), String> {
    let (mut frames, _) = FrameObserver::of_server(Chunks(chunks));
    let mut buffer = [0; 64];
    loop {
        match frames.read(&mut buffer).await {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
}

#[tokio::test]
async fn a_connection_that_ends_after_a_goaway_ends_for_its_reason() {
    let too_many = [frame(6, 1, &[0; 8]), go_away(11, b"too_many_pings")].concat();
    for lengths in [&[1][..], &[1000], &[9, 8, 3]] {
        let end = end_of(cut(&too_many, lengths)).await;
        let reason = "the peer closed it with ENHANCE_YOUR_CALM: too_many_pings";
        assert_eq!(end, Err(reason.to_owned()));
    }
    let bare = end_of(vec![go_away(2, b"")]).await;
    assert_eq!(
        bare,
        Err("the peer closed it with INTERNAL_ERROR".to_owned())
    );
    // What it says is bounded, and in printable characters.
    let long = end_of(vec![go_away(11, &[b'\n'; 10_000])]).await;
    assert_eq!(long.unwrap_err().matches("\\n").count(), 128);
    assert_eq!(end_of(vec![go_away(0, b"bye")]).await, Ok(()));
    assert_eq!(end_of(vec![frame(7, 0, &[0; 7])]).await, Ok(()));
}

#[tokio::test]
async fn an_aborted_connection_is_read_no_further() {
    let (mut frames, peer) = FrameObserver::of_server(Chunks(vec![frame(4, 1, b""); 9]));
    let mut buffer = [0; 9];
    frames.read_exact(&mut buffer).await.unwrap();
    assert_eq!(peer.settings_acks(), 1);
    peer.abort("it does not answer".to_owned());
    let error = frames.read(&mut buffer).await.unwrap_err();
    assert_eq!(error.to_string(), "it does not answer");
}
