use proptest::{collection::vec, option, prelude::*};
use tokio::runtime::Builder;

use super::*;

const MOST_CALLS: usize = 8;

fn any_id() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        "[ab]",
        any::<String>(),
        (1000..1100usize).prop_map(|bytes| "i".repeat(bytes)),
    ]
}

fn any_name() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => Just("tool".to_owned()),
        1 => "[a-z<|:]{0,5}",
        1 => any::<String>(),
        1 => (100..200usize).prop_map(|bytes| "n".repeat(bytes)),
    ]
}

fn any_timeout() -> impl Strategy<Value = Option<prost_types::Duration>> {
    let seconds = prop_oneof![-1..2i64, any::<i64>()];
    let nanos = prop_oneof![-1..2i32, any::<i32>()];
    let timeout =
        (seconds, nanos).prop_map(|(seconds, nanos)| prost_types::Duration { seconds, nanos });
    option::of(timeout)
}

fn any_call() -> impl Strategy<Value = pb::ToolCall> {
    let arguments = option::of(vec(any::<u8>(), 0..4));
    (any_id(), any_name(), arguments, any_timeout()).prop_map(|(id, name, arguments, timeout)| {
        pb::ToolCall {
            id,
            name,
            arguments: arguments.map(Into::into),
            timeout,
            ..pb::ToolCall::default()
        }
    })
}

fn any_request() -> impl Strategy<Value = pb::ExecuteToolsRequest> {
    let calls = vec(any_call(), 0..=MOST_CALLS + 1);
    let policy = prop_oneof![8 => 0..3i32, 1 => any::<i32>()];
    let view = prop_oneof![8 => 0..3i32, 1 => any::<i32>()];
    (calls, policy, any::<u32>(), view).prop_map(
        |(calls, failure_policy, concurrency_limit, aggregate_view)| pb::ExecuteToolsRequest {
            calls,
            failure_policy,
            concurrency_limit,
            aggregate_view,
        },
    )
}

/// Whether anything is wrong with all of it.
fn is_refused(request: &pb::ExecuteToolsRequest) -> bool {
    !(1..=MOST_CALLS).contains(&request.calls.len())
        || pb::FailurePolicy::try_from(request.failure_policy).is_err()
        || pb::AggregateView::try_from(request.aggregate_view).is_err()
}

/// How each call ends if no other has a say in it.
fn expected(calls: &[pb::ToolCall]) -> Vec<Seen> {
    let bad_id = |index: usize, id: &str| {
        id.len() > 1024
            || id.chars().any(char::is_control)
            || !id.is_empty() && calls[..index].iter().any(|call| call.id == id)
    };
    let bad_timeout = |timeout: &prost_types::Duration| {
        !(0..=315_576_000_000).contains(&timeout.seconds)
            || !(0..1_000_000_000).contains(&timeout.nanos)
            || (timeout.seconds, timeout.nanos) == (0, 0)
    };
    let expected = |(index, call): (usize, &pb::ToolCall)| {
        if bad_id(index, &call.id) || call.timeout.as_ref().is_some_and(bad_timeout) {
            invalid()
        } else if call.name == "tool" {
            answered()
        } else {
            unknown()
        }
    };
    calls.iter().enumerate().map(expected).collect()
}

async fn check(client: &mut Client, request: pb::ExecuteToolsRequest) -> Result<(), TestCaseError> {
    let answer = client.execute_tools(request.clone()).await;
    if is_refused(&request) {
        prop_assert_eq!(answer.unwrap_err().code(), Code::InvalidArgument);
        return Ok(());
    }
    let results = answer.unwrap().into_inner().results;
    prop_assert_eq!(results.len(), request.calls.len());
    for (index, (result, call)) in results.iter().zip(&request.calls).enumerate() {
        prop_assert_eq!(result.index as usize, index);
        prop_assert!(call.id.starts_with(&result.id));
        prop_assert!(call.name.starts_with(&result.name));
    }
    let outcomes: Vec<_> = results.iter().map(seen).collect();
    let mut expected = expected(&request.calls);
    if request.failure_policy == i32::from(pb::FailurePolicy::CancelRest)
        && let Some(first) = expected.iter().position(|outcome| *outcome != answered())
    {
        // Every call that fails here fails before any begins.
        for (index, outcome) in expected.iter_mut().enumerate() {
            if index != first {
                *outcome = failed(Code::Cancelled, "CANCELLED", "not_started");
            }
        }
    }
    prop_assert_eq!(outcomes, expected, "{:?}", request);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn any_request_is_refused_as_a_whole_or_has_one_result_per_call(
        requests in vec(any_request(), 4),
    ) {
        let runtime = Builder::new_current_thread().enable_all().start_paused(true).build();
        runtime.unwrap().block_on(async {
            let mut config = config();
            config.limits.max_calls_per_request = MOST_CALLS;
            let (mut client, _) = client(&config).await;
            for request in requests {
                check(&mut client, request).await?;
            }
            Ok::<(), TestCaseError>(())
        })?;
    }
}
