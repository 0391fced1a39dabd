//! gzip (RFC 1952) as gRPC uses it, for single messages.
//!
//! gzip can inflate a thousandfold, so the size limit is enforced while inflating.

use std::io::{Read as _, Write as _};

use bytes::Bytes;
use flate2::{Compression, bufread::GzDecoder, write::GzEncoder};

/// gzip allows any number of members in sequence, and even an empty one takes some
/// microseconds: a megabyte of these would take a second.
const MAX_MEMBERS: usize = 1024;

/// Why a message was not inflated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InflateError {
    /// It inflates to more than the limit.
    #[error("inflates to more than the limit")]
    TooLarge,
    /// It is not gzip, is truncated, or is followed by other bytes.
    #[error("is not valid gzip")]
    Corrupt,
}

/// The largest gzip of a message of `max_bytes`: incompressible data is stored, with a
/// few bytes per block, a header and a trailer. Anything longer is refused unread.
pub fn max_compressed(max_bytes: usize) -> usize {
    max_bytes
        .saturating_add(max_bytes / 1024)
        .saturating_add(1024)
}

/// Inflates a message of at most `max_bytes`, in a buffer of at most twice its size.
///
/// # Errors
/// If the message is larger, or `compressed` is not one to 1,024 complete gzip members.
pub fn inflate(compressed: &[u8], max_bytes: usize) -> Result<Bytes, InflateError> {
    if compressed.len() > max_compressed(max_bytes) {
        return Err(InflateError::TooLarge);
    }
    let mut message = Vec::with_capacity(compressed.len().min(max_bytes));
    let mut member = GzDecoder::new(compressed);
    for _ in 0..MAX_MEMBERS {
        // One byte more than allowed shows that there is more; and only reading to the
        // end verifies the checksum.
        let room = (max_bytes - message.len()).saturating_add(1) as u64;
        let read = (&mut member).take(room).read_to_end(&mut message);
        read.map_err(|_| InflateError::Corrupt)?;
        if message.len() > max_bytes {
            return Err(InflateError::TooLarge);
        }
        let rest = *member.get_ref();
        if rest.is_empty() {
            message.shrink_to_fit();
            return Ok(message.into());
        }
        member.reset(rest);
    }
    Err(InflateError::Corrupt)
}

/// Compresses `message`; `None` if that makes it no shorter.
pub fn deflate(message: &[u8]) -> Option<Bytes> {
    let shorter = Vec::with_capacity(message.len() / 2);
    let mut encoder = GzEncoder::new(shorter, Compression::default());
    // Writing to a vector never fails.
    encoder.write_all(message).ok()?;
    let mut compressed = encoder.finish().ok()?;
    if compressed.len() >= message.len() {
        return None;
    }
    compressed.shrink_to_fit();
    Some(compressed.into())
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn member(message: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(message).unwrap();
        encoder.finish().unwrap()
    }

    fn refusal(compressed: &[u8], max_bytes: usize) -> InflateError {
        inflate(compressed, max_bytes).expect_err("a refusal")
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_deflated_inflates(seed in vec(any::<u8>(), 0..40), times in 0..200_usize) {
            let message = seed.repeat(times);
            let Some(compressed) = deflate(&message) else {
                prop_assert!(member(&message).len() + 16 >= message.len());
                return Ok(());
            };
            prop_assert!(compressed.len() < message.len());
            prop_assert_eq!(inflate(&compressed, message.len()).unwrap(), message);
        }

        #[test]
        fn nothing_inflates_to_more_than_the_limit(
            seed in vec(any::<u8>(), 0..40),
            times in 0..200_usize,
            changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            max_bytes in 0..5000_usize,
        ) {
            let mut compressed = member(&seed.repeat(times));
            for (index, byte) in changes {
                let index = index.index(compressed.len());
                compressed[index] = byte;
            }
            if let Ok(message) = inflate(&compressed, max_bytes) {
                prop_assert!(message.len() <= max_bytes);
            }
        }
    }

    #[test]
    fn the_limit_is_exact() {
        let message = [7; 1000];
        assert_eq!(inflate(&member(&message), 1000).unwrap(), &message[..]);
        assert_eq!(refusal(&member(&message), 999), InflateError::TooLarge);
        assert_eq!(refusal(&member(&message), 0), InflateError::TooLarge);
        assert_eq!(inflate(&member(b""), 0).unwrap(), &b""[..]);
        assert_eq!(inflate(&member(b"x"), usize::MAX).unwrap(), &b"x"[..]);
    }

    #[test]
    fn incompressible_messages_may_be_as_long_as_the_limit() {
        let mut random = fastrand::Rng::with_seed(1);
        let message: Vec<u8> = std::iter::repeat_with(|| random.u8(..))
            .take(1 << 20)
            .collect();
        let compressed = member(&message);
        assert!(compressed.len() > message.len());
        assert!(inflate(&compressed, message.len()).is_ok());
        assert_eq!(deflate(&message), None);
        assert_eq!(deflate(b"short"), None);
    }

    #[test]
    fn a_bomb_costs_the_limit() {
        let one = member(&[0; 16 << 20]);
        assert_eq!(refusal(&one, 64 << 10), InflateError::TooLarge);
        // 1 MB that inflates to 1 GB.
        let many = member(&[0; 1 << 20]).repeat(1000);
        assert!(many.len() > 1_000_000);
        assert_eq!(refusal(&many, 4 << 20), InflateError::TooLarge);
        // It is refused unread if it is longer than any such message.
        assert_eq!(refusal(&many, 1 << 10), InflateError::TooLarge);
    }

    #[test]
    fn members_are_one_message() {
        let two = [member(b"one, "), member(b""), member(b"two")].concat();
        assert_eq!(inflate(&two, 8).unwrap(), &b"one, two"[..]);
        assert_eq!(refusal(&two, 7), InflateError::TooLarge);
        let many = member(b"").repeat(MAX_MEMBERS);
        assert_eq!(inflate(&many, 1 << 20).unwrap(), &b""[..]);
        let too_many = member(b"").repeat(MAX_MEMBERS + 1);
        assert_eq!(refusal(&too_many, 1 << 20), InflateError::Corrupt);
    }

    #[test]
    fn only_whole_members_are_gzip() {
        let whole = member(b"a message, a message");
        for end in 0..whole.len() {
            assert_eq!(refusal(&whole[..end], 99), InflateError::Corrupt, "{end}");
        }
        for garbage in [&b"x"[..], b"\0", b"\x1f\x8b", b"garbage that is longer"] {
            let followed = [&whole, garbage].concat();
            assert_eq!(refusal(&followed, 99), InflateError::Corrupt);
        }
        let mut checksum = whole;
        let last = checksum.len() - 1;
        checksum[last] ^= 1;
        assert_eq!(refusal(&checksum, 99), InflateError::Corrupt);
        // zlib, which HTTP calls deflate.
        assert_eq!(
            refusal(&[0x78, 0x9c, 3, 0, 0, 0, 0, 1], 99),
            InflateError::Corrupt
        );
    }
}
