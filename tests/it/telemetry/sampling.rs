use super::passed_on::{SAMPLED, TRACE, UNSAMPLED, from, told};
use crate::support::{
    SECOND, call, config,
    observed::Observed,
    request,
    spans::flat,
    tools::{Scripted, catalog},
};

/// How many spans are exported of a request, whether the tool is told that it is
/// sampled, and whether the trace is the caller's.
async fn sampled(sampler: &str, argument: &str, parent: Option<&str>) -> (usize, bool, bool) {
    let variables = [
        ("OTEL_TRACES_SAMPLER", sampler),
        ("OTEL_TRACES_SAMPLER_ARG", argument),
    ];
    let headers = parent.map(from);
    let headers = headers.as_ref().map_or(&[][..], |headers| &headers[..]);
    let (context, seen) = told(&variables, headers).await;
    let (trace, span, flags) = context.parent();
    assert!(["00", "01"].contains(&flags) && span.len() == 16, "{flags}");
    let spans = seen.trees.iter().flat_map(|tree| tree.all()).count();
    tokio::time::pause();
    (spans, flags == "01", trace == TRACE)
}

const ALL: usize = 3;

#[tokio::test(start_paused = true)]
async fn the_ratio_is_of_traces_that_begin_here() {
    let ratio = "parentbased_traceidratio";
    assert_eq!(sampled(ratio, "0", None).await, (0, false, false));
    assert_eq!(sampled(ratio, "1", None).await, (ALL, true, false));
    // The caller has decided for the others.
    assert_eq!(sampled(ratio, "0", Some(SAMPLED)).await, (ALL, true, true));
    assert_eq!(sampled(ratio, "1", Some(UNSAMPLED)).await, (0, false, true));
}

#[tokio::test(start_paused = true)]
async fn a_sampler_that_looks_at_no_parent_overrules_the_caller() {
    let on = sampled("always_on", "", Some(UNSAMPLED)).await;
    assert_eq!(on, (ALL, true, true));
    let off = sampled("always_off", "", Some(SAMPLED)).await;
    assert_eq!(off, (0, false, true));
}

#[tokio::test(start_paused = true)]
async fn a_trace_is_kept_whole_or_not_at_all() {
    let catalog = catalog([("one", Scripted::answers_after(SECOND))]);
    let variables = [
        ("OTEL_TRACES_SAMPLER", "traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "0.5"),
        // No batch is full before the clock, which a real socket can't follow, goes on.
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "2048"),
    ];
    let mut observed = Observed::of(&config(), catalog, &variables).await;

    for _ in 0..400 {
        let calls = vec![call("", "one"); 2];
        observed.client.execute_tools(request(calls)).await.unwrap();
    }

    let seen = observed.end().await;
    // The odds of fewer or more are less than one in 10^20.
    assert!(
        (100..=300).contains(&seen.trees.len()),
        "{}",
        seen.trees.len()
    );
    assert!(seen.trees.iter().all(|tree| tree.children.len() == 2));
    // Others that sample this half of all traces sample the same: the SDK's sampler, in all
    // languages, compares the id's lower 63 bits with the ratio.
    for span in flat(&seen.received.traces) {
        let low = span.trace_id.last_chunk::<8>().expect("an id");
        assert!(
            u64::from_be_bytes(*low) >> 1 < 1 << 62,
            "{:?}",
            span.trace_id
        );
    }
}
