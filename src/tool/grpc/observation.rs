//! An observation from the moment that it is there until its request is answered:
//! bytes that are held for as long as anybody has them.

use bytes::Bytes;

use super::failure::Fault;
use crate::core::{
    buffered::{Buffered, Held},
    reservation::CALL_BYTES,
};

/// Keeps `observation`, for which its reply has `held` so much. Without that it is a
/// slice of the connection's read buffer, which must not stay alive with it.
///
/// # Errors
/// If there is no room for it.
pub(crate) fn keep(
    observation: Bytes,
    held: Option<Held>,
    buffered: &Buffered,
) -> Result<Bytes, Fault> {
    let length = observation.len();
    if length <= CALL_BYTES {
        // The place of its call has room for it.
        return Ok(Bytes::copy_from_slice(&observation));
    }
    if let Some(held) = held {
        return Ok(held.keep(observation));
    }
    let mut held = buffered.hold(0);
    if !held.try_grow_leaving_room(length) {
        return Err(Fault::NoMemory { bytes: length });
    }
    Ok(held.keep(Bytes::copy_from_slice(&observation)))
}

/// The same of one that was made of its reply.
///
/// # Errors
/// If there is no room for it.
pub(crate) fn keep_own(observation: Bytes, buffered: &Buffered) -> Result<Bytes, Fault> {
    let bytes = observation.len();
    if bytes <= CALL_BYTES {
        return Ok(observation);
    }
    let mut held = buffered.hold(0);
    if !held.try_grow_leaving_room(bytes) {
        return Err(Fault::NoMemory { bytes });
    }
    Ok(held.keep(observation))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_observation_is_held_as_long_as_anybody_has_it() {
        let buffered = Buffered::new(100_000);
        let whole = Bytes::from(vec![7; 10_000]);
        let kept = keep(whole.slice(..5000), None, &buffered).unwrap();
        assert_eq!((kept.len(), buffered.held()), (5000, 5000));
        let clone = kept.clone();
        drop(kept);
        assert_eq!(buffered.held(), 5000);
        drop(clone);
        assert_eq!(buffered.held(), 0);

        let held = buffered.try_hold(12_000);
        let kept = keep(whole.slice(1..), held, &buffered).unwrap();
        assert_eq!((kept.len(), buffered.held()), (9999, 12_000));
        drop(kept);

        let small = keep(whole.slice(..CALL_BYTES), None, &buffered).unwrap();
        assert_eq!((small.len(), buffered.held()), (CALL_BYTES, 0));
    }

    #[test]
    fn there_is_room_or_the_call_fails() {
        let buffered = Buffered::new(8000);
        let fits = keep(Bytes::from(vec![0; 5000]), None, &buffered).unwrap();
        let fault = keep(Bytes::from(vec![0; 2049]), None, &buffered).unwrap_err();
        assert!(matches!(fault, Fault::NoMemory { bytes: 2049 }));
        drop(fits);
        assert_eq!(buffered.held(), 0);
    }
}
