//! What is sent for a call, made of its arguments, and the memory for it: what arrived is
//! held with its request, so only what is more than that.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;

use crate::core::{
    buffered::{Buffered, Held},
    call::{Arguments, ToolCall},
    error::{CallError, Effect, Reason},
    fanout::Tool,
    reservation::UNCOPIED_BYTES,
};

/// What one value of a text may need while it is read, checked and written anew: a node of a
/// tree whose list was just doubled, another of the tree that a schema is checked with, and
/// eleven bytes of an encoded `ListValue`. The member of an object counts as two.
const BYTES_PER_VALUE: usize = 128;

/// What `tool` makes of the arguments. If it panics, that is the call's failure alone.
pub(super) fn prepare(
    tool: &dyn Tool,
    call: &ToolCall,
    buffered: &Buffered,
) -> Result<Option<Bytes>, CallError> {
    let arrived = match &call.arguments {
        Arguments::Absent => None,
        Arguments::Struct(bytes) | Arguments::Json(bytes) => Some(bytes),
    };
    let held = match &call.arguments {
        Arguments::Json(text) if text.len() >= UNCOPIED_BYTES => {
            let bytes = values(text).saturating_mul(BYTES_PER_VALUE) + text.len();
            Some(hold(bytes, buffered).ok_or_else(|| no_room(text))?)
        }
        _ => None,
    };
    let prepared = catch_unwind(AssertUnwindSafe(|| tool.prepare(call)));
    let payload = prepared.unwrap_or_else(|_| Err(CallError::internal(Effect::NotStarted)))?;
    let is_what_arrived =
        |payload: &Bytes| arrived.is_some_and(|it| it.as_ptr() == payload.as_ptr());
    match payload {
        Some(payload) if payload.len() >= UNCOPIED_BYTES && !is_what_arrived(&payload) => {
            drop(held);
            let held = hold(payload.len(), buffered).ok_or_else(|| no_room(&payload))?;
            Ok(Some(held.keep(payload)))
        }
        payload => Ok(payload),
    }
}

/// How many values the text has at the most.
fn values(text: &[u8]) -> usize {
    let begins = |byte: &&u8| matches!(byte, b',' | b':' | b'[' | b'{');
    1 + text.iter().filter(begins).count()
}

fn hold(bytes: usize, buffered: &Buffered) -> Option<Held> {
    let mut held = buffered.hold(0);
    held.try_grow_leaving_room(bytes).then_some(held)
}

fn no_room(arguments: &[u8]) -> CallError {
    let message = format!(
        "there is no room for arguments of {} bytes: this server holds as many as it may for its \
         callers (limits.max_buffered_bytes)",
        arguments.len()
    );
    CallError::new(Reason::Overloaded, Effect::NotStarted, false, message)
}

#[cfg(test)]
mod tests;
