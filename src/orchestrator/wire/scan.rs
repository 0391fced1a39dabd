//! Counts the calls of a request before it is decoded: an empty call is 2 bytes on the
//! wire, but 150 in memory.

use prost::{
    DecodeError,
    encoding::{DecodeContext, WireType, decode_key, skip_field},
};

use super::status::Violations;

/// The tag of `ExecuteToolsRequest.calls`.
const CALLS: u32 = 1;

/// Checks that an `ExecuteToolsRequest` has no more than `max` calls.
///
/// # Errors
/// If it has more. A malformed message passes: decoding it fails, and at the same field.
pub fn check_call_count(message: &[u8], max: usize) -> Result<(), Violations> {
    if has_more_calls(message, max).unwrap_or(false) {
        let mut violations = Violations::default();
        let description =
            format!("must be at most {max} calls (limits.max_calls_per_request), are more");
        violations.add("calls", description);
        return Err(violations);
    }
    Ok(())
}

fn has_more_calls(mut rest: &[u8], max: usize) -> Result<bool, DecodeError> {
    let mut count = 0;
    while !rest.is_empty() {
        let (tag, kind) = decode_key(&mut rest)?;
        if tag == CALLS && kind == WireType::LengthDelimited {
            count += 1;
            if count > max {
                return Ok(true);
            }
        }
        skip_field(kind, tag, &mut rest, DecodeContext::default())?;
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::pb;

    #[test]
    fn calls_are_counted_among_other_fields() {
        let request = |calls| pb::ExecuteToolsRequest {
            calls: vec![
                pb::ToolCall {
                    id: "id".to_owned(),
                    arguments: Some(b"\x0a\x00\x0a\x00".to_vec().into()),
                    ..Default::default()
                };
                calls
            ],
            failure_policy: 1,
            concurrency_limit: 1 << 20,
            aggregate_view: 2,
        };
        for calls in 0..6 {
            let message = request(calls).encode_to_vec();
            let over = check_call_count(&message, 3).is_err();
            assert_eq!(over, calls > 3, "{calls}");
        }
    }

    #[test]
    fn empty_calls_and_calls_between_unknown_fields_count() {
        assert!(check_call_count(&b"\x0a\x00".repeat(3), 3).is_ok());
        assert!(check_call_count(&b"\x0a\x00".repeat(4), 3).is_err());
        // A group, a varint, four bytes and eight.
        let between = b"\x4b\x0a\x00\x4c\xf8\x01\x07\xfd\x01abcd\xf9\x01abcdefgh\x0a\x00";
        assert!(check_call_count(&between.repeat(3), 3).is_ok());
        assert!(check_call_count(&between.repeat(4), 3).is_err());
    }

    #[test]
    fn the_count_agrees_with_decoding() {
        let mut random = fastrand::Rng::with_seed(7);
        let whole = b"\x0a\x02\x0a\x00\x10\x01\x0a\x00\x0a\x03\x1a\x01x\x4b\x4c".repeat(3);
        for _ in 0..20_000 {
            let mut message = whole.clone();
            for _ in 0..random.usize(..4) {
                let at = random.usize(..message.len());
                message[at] = random.u8(..);
            }
            message.truncate(random.usize(..=message.len()));
            let over = check_call_count(&message, 2).is_err();
            if let Ok(request) = pb::ExecuteToolsRequest::decode(&*message) {
                assert_eq!(over, request.calls.len() > 2, "{message:?}");
            }
        }
    }
}
