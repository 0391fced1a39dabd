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
        match io.read(&mut buffer).await.unwrap() {
            0 => return all,
            count => all.extend_from_slice(&buffer[..count]),
        }
    }
}

fn is_idle(frame: &[u8]) -> bool {
    frame[..4] == [0; 4] && frame[4] & 1 == 0
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn everything_but_empty_data_passes_however_it_is_cut(
        frames in vec((0..8_u8, 0..2_u8, vec(any::<u8>(), 0..40)), 0..30),
        lengths in vec(1..50_usize, 1..5),
        room in 1..200_usize,
        is_client in any::<bool>(),
    ) {
        let frames: Vec<_> = frames.iter().map(|(kind, flags, payload)| frame(*kind, *flags, payload)).collect();
        let preface = if is_client { vec![7; PREFACE_BYTES] } else { Vec::new() };
        let sent = [preface.clone(), frames.concat()].concat();
        let chunks = Chunks(cut(&sent, &lengths));
        let (io, heard) = if is_client { Frames::of_client(chunks) } else { Frames::of_server(chunks) };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let passed_on = runtime.block_on(read_all(io, room));
        let kept: Vec<_> = frames.iter().filter(|frame| !is_idle(frame)).cloned().collect();
        prop_assert_eq!(passed_on, [preface, kept.concat()].concat());
        let answers = kept.iter().filter(|frame| frame[3] <= 1).count();
        prop_assert_eq!(heard.answers() as usize, answers);
    }

    #[test]
    fn the_header_list_size_is_noted_however_it_is_cut(
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
        let (io, heard) = Frames::of_server(Chunks(cut(&sent, &lengths)));
        prop_assert_eq!(heard.max_header_list(), None);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(read_all(io, 64));
        prop_assert_eq!(heard.max_header_list(), Some(value));
    }
}

#[tokio::test]
async fn what_is_cut_off_in_a_header_is_passed_on_at_the_end() {
    let sent = [frame(6, 0, &[0; 8]), vec![0, 0, 8, 6]].concat();
    let (io, heard) = Frames::of_server(Chunks(vec![sent.clone()]));
    assert_eq!(read_all(io, 100).await, sent);
    assert_eq!((heard.reads(), heard.answers()), (1, 0));
}
