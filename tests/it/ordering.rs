use std::time::Duration;

use bytes::Bytes;
use fanfare::{
    core::{
        aggregate::Aggregate,
        call::{Arguments, Completion, ToolCall},
        error::{CallError, Effect, Limit, Reason, ToolStatus, Violation},
        status::Code,
    },
    orchestrator::wire::{self, Arrival},
};
use proptest::{collection::vec, prelude::*};
use prost::Message as _;
use tokio::time::Instant;

fn tool_call(index: usize, id_bytes: usize) -> ToolCall {
    ToolCall {
        id: format!("{index:0id_bytes$}"),
        name: format!("tool_{index}"),
        arguments: Arguments::Absent,
        timeout: None,
    }
}

fn reason() -> impl Strategy<Value = Reason> {
    let details = (0..4096usize).prop_map(|bytes| Bytes::from(vec![0; bytes]));
    let violation = (".{0,30}", ".{0,200}").prop_map(|(field, how)| Violation::new(field, how));
    prop_oneof![
        Just(Reason::UnknownTool(None)),
        Just(Reason::DeadlineExceeded(Limit::Request)),
        Just(Reason::ToolUnavailable),
        Just(Reason::Cancelled),
        Just(Reason::Internal),
        vec(violation, 0..=16).prop_map(Reason::InvalidArguments),
        (1..=16i32, details).prop_map(|(code, details)| {
            let code = Code::from_number(code);
            Reason::ToolFailed(ToolStatus { code, details })
        }),
    ]
}

fn outcome() -> impl Strategy<Value = Result<Bytes, CallError>> {
    prop_oneof![
        3 => (0..6000usize).prop_map(|bytes| Ok(Bytes::from(vec![0; bytes]))),
        1 => (reason(), ".{0,300}")
            .prop_map(|(reason, text)| Err(CallError::new(reason, Effect::Maybe, false, text))),
    ]
}

fn aggregate(
    calls: &[ToolCall],
    completions: &[Completion],
    order: &[usize],
    max_bytes: usize,
) -> Vec<u8> {
    let mut aggregate = Aggregate::new(calls, max_bytes, true);
    for &index in order {
        aggregate.fill(completions[index].clone());
    }
    let arrival = Arrival::at(completions[0].end);
    let mut response = wire::response(calls, aggregate.finish(), arrival, false);
    // The wall clock is read per response; all else must be equal.
    response.start_time = None;
    response.end_time = None;
    for result in &mut response.results {
        result.start_time = None;
        result.end_time = None;
    }
    response.encode_to_vec()
}

#[test]
fn what_is_wrong_with_calls_gives_way_as_well() {
    const CALLS: usize = 8;
    let calls: Vec<ToolCall> = (0..CALLS).map(|index| tool_call(index, 256)).collect();
    let violations = || vec![Violation::new("x".repeat(64), "y".repeat(160)); 16];
    let end = Instant::now();
    let completions: Vec<Completion> = (0..CALLS)
        .map(|index| Completion {
            index,
            outcome: Err(CallError::invalid_arguments(violations())),
            end,
            queued: Duration::ZERO,
            attempts: 0,
        })
        .collect();
    let order: Vec<usize> = (0..CALLS).collect();
    for max_bytes in [CALLS * 1024, CALLS * 2048, CALLS * 8192] {
        let response = aggregate(&calls, &completions, &order, max_bytes);
        assert!(
            response.len() <= max_bytes,
            "{} of {max_bytes}",
            response.len()
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn any_completion_order_gives_the_same_aggregate_within_its_size(
        (outcomes, order) in vec(outcome(), 1..24).prop_flat_map(|outcomes| {
            let order = Just((0..outcomes.len()).collect::<Vec<_>>()).prop_shuffle();
            (Just(outcomes), order)
        }).no_shrink(),
        id_bytes in 1..256usize,
        room in 0..60_000usize,
    ) {
        let start = Instant::now();
        let calls: Vec<ToolCall> = (0..outcomes.len()).map(|i| tool_call(i, id_bytes)).collect();
        let completions: Vec<Completion> = outcomes
            .into_iter()
            .enumerate()
            .map(|(index, outcome)| Completion {
                index,
                outcome,
                end: start + Duration::from_millis(index as u64),
                queued: Duration::ZERO,
                attempts: 1,
            })
            .collect();
        // The least that the configuration allows, and some more.
        let max_bytes = calls.len() * 1024 + room;
        let in_order: Vec<usize> = (0..calls.len()).collect();

        let expected = aggregate(&calls, &completions, &in_order, max_bytes);
        let response = aggregate(&calls, &completions, &order, max_bytes);

        prop_assert!(response == expected, "the order of completion shows");
        let decoded = fanfare::pb::ExecuteToolsResponse::decode(response.as_slice()).unwrap();
        prop_assert_eq!(decoded.results.len(), calls.len());
        for (index, result) in decoded.results.iter().enumerate() {
            prop_assert_eq!(result.index as usize, index);
            prop_assert_eq!(&result.id, &calls[index].id);
        }
        let full = wire::response(&calls, completions, Arrival::at(start), false).encoded_len();
        let timestamps = 40 * (calls.len() + 1);
        prop_assert!(response.len() + timestamps <= max_bytes || full <= max_bytes);
    }
}
