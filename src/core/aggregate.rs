//! Collects completions in whatever order they come and gives them back in the
//! order of the calls, within the size of one response.
//!
//! If all outcomes together are too large for a response, the largest give way:
//! the fewest calls lose, and which ones does not depend on the order of
//! completion. What gives way is freed at once, so a request holds no more than
//! one response at any time; of a response without observations it holds none.

use std::collections::BinaryHeap;

use bytes::Bytes;

use super::{
    call::{Completion, Outcome, ToolCall},
    error::{CallError, Effect, Reason},
};

/// The most that the fixed fields of a result take, encoded.
const FIXED_BYTES: usize = 160;
/// The most that an outcome takes, encoded, after it gave way.
const SHRUNK_BYTES: usize = 460;
/// The most that the type URLs and labels of an error take, encoded.
const ERROR_BYTES: usize = 260;
/// The most that the time takes after which to try again, encoded.
const RETRY_BYTES: usize = 72;
/// An entry in the metadata of an `ErrorInfo`, without its value.
const SUGGESTION_BYTES: usize = 24;
/// The most that the type URL and labels of violations take, encoded.
const BAD_REQUEST_BYTES: usize = 60;
/// The most that the labels of a violation take, encoded.
const VIOLATION_BYTES: usize = 12;
/// How long a message may be that gave way.
const SHRUNK_MESSAGE_BYTES: usize = 200;

/// The results of a batch, one slot per call.
#[derive(Debug)]
pub struct Aggregate {
    slots: Vec<Option<Completion>>,
    max_response_bytes: usize,
    keeps_observations: bool,
    /// What is left for outcomes beyond their shrunken size.
    room: usize,
    used: usize,
    /// The outcomes that can give way, the largest first.
    largest: BinaryHeap<(usize, usize)>,
}

impl Aggregate {
    /// Empty slots for `calls`, to become a response of at most
    /// `max_response_bytes`. Unless it `keeps_observations`, only that calls have
    /// succeeded is noted of them, which nothing has to give way for.
    pub fn new(calls: &[ToolCall], max_response_bytes: usize, keeps_observations: bool) -> Self {
        let least: usize = calls
            .iter()
            .map(|call| FIXED_BYTES + call.id.len() + call.name.as_str().len() + SHRUNK_BYTES)
            .sum();
        Self {
            slots: calls.iter().map(|_| None).collect(),
            max_response_bytes,
            keeps_observations,
            room: max_response_bytes.saturating_sub(least + FIXED_BYTES),
            used: 0,
            largest: BinaryHeap::new(),
        }
    }

    /// Puts a completion in its slot. Each slot is filled once; a second
    /// completion of the same call would be a bug, and is ignored.
    pub fn fill(&mut self, mut completion: Completion) {
        let index = completion.index;
        let free = self.slots.get(index).is_some_and(Option::is_none);
        debug_assert!(free, "call {index} completed twice, or is none");
        if !free {
            return;
        }
        if !self.keeps_observations
            && let Ok(observation) = &mut completion.outcome
        {
            *observation = Bytes::new();
        }
        let excess = encoded_bytes(&completion.outcome).saturating_sub(SHRUNK_BYTES);
        self.slots[index] = Some(completion);
        if excess > 0 {
            self.used += excess;
            self.largest.push((excess, index));
        }
        while self.used > self.room
            && let Some((excess, index)) = self.largest.pop()
        {
            self.used -= excess;
            self.shrink(index);
        }
    }

    /// The completions in the order of the calls. A call without one would be a bug, and
    /// ends in an internal error.
    pub fn finish(self) -> Vec<Completion> {
        let lost = |index| Completion {
            index,
            outcome: Err(CallError::internal(Effect::Maybe)),
            end: tokio::time::Instant::now(),
            queued: std::time::Duration::ZERO,
            attempts: 0,
        };
        self.slots
            .into_iter()
            .enumerate()
            .map(|(index, slot)| {
                debug_assert!(slot.is_some(), "call {index} has no outcome");
                slot.unwrap_or_else(|| lost(index))
            })
            .collect()
    }

    fn shrink(&mut self, index: usize) {
        let limit = self.max_response_bytes;
        let Some(completion) = &mut self.slots[index] else {
            return;
        };
        match &mut completion.outcome {
            Ok(observation) => {
                let message = format!(
                    "the observation of {} bytes does not fit: all results together may be \
                     {limit} bytes (limits.max_response_bytes)",
                    observation.len()
                );
                completion.outcome = Err(CallError::new(
                    Reason::ResultTooLarge,
                    Effect::Done,
                    false,
                    message,
                ));
            }
            Err(error) => {
                let end = error.message.floor_char_boundary(SHRUNK_MESSAGE_BYTES);
                error.message.truncate(end);
                error.retry_after = None;
                match &mut error.reason {
                    Reason::ToolFailed(status) => status.details.clear(),
                    Reason::InvalidArguments(violations) => violations.clear(),
                    Reason::UnknownTool(meant) => *meant = None,
                    _ => {}
                }
            }
        }
    }
}

/// An upper bound of an outcome's encoded size.
fn encoded_bytes(outcome: &Outcome) -> usize {
    match outcome {
        Ok(observation) => observation.len() + 8,
        Err(error) => {
            let details = match &error.reason {
                Reason::ToolFailed(status) => status.details.len(),
                Reason::InvalidArguments(violations) => {
                    let bytes = violations.iter().map(|violation| {
                        violation.field.len() + violation.description.len() + VIOLATION_BYTES
                    });
                    BAD_REQUEST_BYTES + bytes.sum::<usize>()
                }
                Reason::UnknownTool(Some(meant)) => meant.len() + SUGGESTION_BYTES,
                _ => 0,
            };
            let retry = error.retry_after.map_or(0, |_| RETRY_BYTES);
            ERROR_BYTES + error.message.len() + details + retry
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;
    use crate::core::buffered::Buffered;

    const BYTES: usize = 100_000;

    fn calls(count: usize) -> Vec<ToolCall> {
        let call = ToolCall {
            id: String::new(),
            name: "tool".to_owned(),
            arguments: Default::default(),
            timeout: None,
        };
        vec![call; count]
    }

    fn completion(index: usize, buffered: &Buffered) -> Completion {
        struct Observation(Vec<u8>, #[allow(dead_code)] crate::core::buffered::Held);
        impl AsRef<[u8]> for Observation {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }
        let held = buffered.try_hold(BYTES).unwrap();
        let observation = Observation(vec![0; BYTES], held);
        Completion {
            index,
            outcome: Ok(Bytes::from_owner(observation)),
            end: Instant::now(),
            queued: Duration::ZERO,
            attempts: 1,
        }
    }

    #[test]
    fn what_no_answer_will_carry_is_not_kept() {
        for (keeps, kept, failed) in [(true, 3, 2), (false, 0, 0)] {
            let buffered = Buffered::new(5 * BYTES);
            let mut aggregate = Aggregate::new(&calls(5), 4 * BYTES, keeps);
            for index in 0..5 {
                aggregate.fill(completion(index, &buffered));
            }
            assert_eq!(buffered.held(), kept * BYTES);
            let completions = aggregate.finish();
            let errors = completions.iter().filter(|c| c.outcome.is_err());
            assert_eq!(errors.count(), failed);
        }
    }
}
