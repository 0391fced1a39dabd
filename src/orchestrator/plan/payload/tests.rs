//! What is held for arguments that are written anew.

use std::time::Duration;

use futures_util::future::BoxFuture;

use super::*;
use crate::{
    core::{call::Outcome, fanout::Invocation},
    json::tree::Node,
};

/// Sends arguments as they are, but JSON as the `Struct` that it says.
struct Tells;

impl Tool for Tells {
    fn timeout(&self) -> Duration {
        Duration::from_secs(1)
    }

    fn idempotent(&self) -> bool {
        false
    }

    fn prepare(&self, call: &ToolCall) -> Result<Option<Bytes>, CallError> {
        match &call.arguments {
            Arguments::Absent => Ok(None),
            Arguments::Struct(encoded) if encoded == "panic" => panic!("as it was told"),
            Arguments::Struct(encoded) => Ok(Some(encoded.clone())),
            Arguments::Json(text) => {
                let node = Node::from_json(text).map_err(CallError::invalid_arguments)?;
                let encoded = node.encode_struct();
                encoded.map(Some).map_err(CallError::invalid_arguments)
            }
        }
    }

    fn call(&self, _: Invocation) -> BoxFuture<'static, Outcome> {
        unreachable!("nothing is called")
    }
}

fn prepared(arguments: Arguments, buffered: &Buffered) -> Result<Option<Bytes>, CallError> {
    let call = ToolCall {
        id: String::new(),
        name: "tool".to_owned(),
        arguments,
        timeout: None,
    };
    prepare(&Tells, &call, buffered)
}

fn list(elements: usize) -> Arguments {
    let text = format!("{{\"list\":[{}]}}", vec!["1"; elements].join(","));
    Arguments::Json(text.into())
}

#[test]
fn what_is_made_of_a_text_is_held_until_nobody_has_it() {
    let buffered = Buffered::new(1 << 20);
    let payload = prepared(list(1000), &buffered).unwrap().unwrap();
    assert!(payload.len() > 11_000);
    assert_eq!(buffered.held(), payload.len());
    let clone = payload.clone();
    drop(payload);
    assert_eq!(buffered.held(), clone.len());
    drop(clone);
    assert_eq!(buffered.held(), 0);
    // Nor is anything held for what can't be sent.
    let wrong = Arguments::Json(format!("{{\"text\":\"{}\"", "x".repeat(10_000)).into());
    let error = prepared(wrong, &buffered).unwrap_err();
    assert!(matches!(error.reason, Reason::InvalidArguments(_)));
    assert_eq!(buffered.held(), 0);
}

#[test]
fn what_arrived_is_held_with_its_request_and_what_is_small_with_its_call() {
    let buffered = Buffered::new(0);
    let arrived = Bytes::from(vec![7; 100_000]);
    let payload = prepared(Arguments::Struct(arrived.clone()), &buffered);
    assert_eq!(payload.unwrap().unwrap().as_ptr(), arrived.as_ptr());
    assert!(prepared(list(100), &buffered).unwrap().is_some());
    assert_eq!(prepared(Arguments::Absent, &buffered).unwrap(), None);
    assert_eq!(buffered.held(), 0);
}

#[test]
fn a_text_that_there_is_no_room_for_fails_its_call_before_it_is_read() {
    // Enough for what would be sent, but not for reading it.
    let buffered = Buffered::new(500_000);
    for text in [list(10_000), Arguments::Json(vec![b'['; 10_000].into())] {
        let error = prepared(text, &buffered).unwrap_err();
        assert_eq!(error.reason, Reason::Overloaded);
        assert_eq!((error.effect, error.retryable), (Effect::NotStarted, true));
        assert!(error.message.contains("max_buffered_bytes"), "{error:?}");
    }
    // A long string is no more than itself.
    let text = format!("{{\"text\":\"{}\"}}", "x".repeat(40_000));
    let payload = prepared(Arguments::Json(text.into()), &buffered).unwrap();
    assert_eq!(buffered.held(), payload.unwrap().len());
}

#[test]
fn a_panic_is_the_failure_of_its_call() {
    let buffered = Buffered::new(0);
    let error = prepared(Arguments::Struct("panic".into()), &buffered).unwrap_err();
    assert_eq!(error.reason, Reason::Internal);
}
