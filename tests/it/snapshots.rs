use std::sync::Arc;

use fanfare::{
    catalog::snapshot::{Publisher, Snapshot},
    config::Limits,
    pb,
    server::Server,
};
use tonic::Code;

use crate::support::{
    SECOND, call, config, failed, length, ms,
    observed::Observer,
    page::Page,
    pipes::{self, Client},
    request, results, seen,
    tools::{Scripted, catalog},
};

/// Tools that take so many seconds each, and a bound on the calls of a request.
fn snapshot(tools: &[(&'static str, u32)], limits: Limits) -> Snapshot {
    let tools = tools.iter().map(|&(name, seconds)| {
        let tool = Scripted::new(move |invocation| async move {
            invocation.started(ms(0));
            invocation.sent();
            tokio::time::sleep(seconds * SECOND).await;
            Ok(bytes::Bytes::new())
        });
        (name, tool)
    });
    let catalog = catalog(tools);
    Snapshot { limits, catalog }
}

async fn listed(client: &Client) -> Vec<String> {
    let answer = client
        .clone()
        .list_tools(pb::ListToolsRequest::default())
        .await;
    let tools = answer.unwrap().into_inner().tools;
    tools.into_iter().map(|tool| tool.name).collect()
}

#[tokio::test(start_paused = true)]
async fn a_request_keeps_to_the_snapshot_that_it_began_with() {
    let limits = Limits {
        concurrency_limit: 1,
        ..config().limits
    };
    let publisher = Publisher::new(snapshot(&[("kept", 2), ("removed", 2)], limits));
    let server = Arc::new(Server::following(&config(), publisher.snapshots()).await);
    let client = pipes::client_of(&server).await;
    assert_eq!(listed(&client).await, ["kept", "removed"]);

    let running = client.clone();
    let calls = vec![call("", "kept"), call("", "removed"), call("", "kept")];
    let running = tokio::spawn(async move { results(&running, calls).await });
    tokio::time::sleep(SECOND).await;
    let limits = Limits {
        max_calls_per_request: 2,
        ..config().limits
    };
    publisher.replace(snapshot(&[("added", 1), ("kept", 1)], limits));

    // The next one has the new tools, at the same time, and the new limit.
    assert_eq!(listed(&client).await, ["added", "kept"]);
    let both = results(&client, vec![call("", "added"), call("", "kept")]).await;
    for result in &both {
        assert_eq!(length(result.duration), SECOND);
        assert_eq!(result.attempts, 1);
    }
    let gone = results(&client, vec![call("", "removed")]).await;
    let unknown = failed(Code::NotFound, "UNKNOWN_TOOL", "not_started");
    assert_eq!(seen(&gone[0]), unknown);
    let too_many = request(vec![call("", "kept"); 3]);
    let status = client.clone().execute_tools(too_many).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);

    // The one that runs goes on with what it had, also in the calls that start only now.
    let results = running.await.unwrap();
    let ends: Vec<_> = results.iter().map(|it| length(it.duration)).collect();
    assert_eq!(ends, [2 * SECOND, 4 * SECOND, 6 * SECOND]);
}

/// Calls under way with each tool that has this gauge.
fn active(page: &Page) -> Vec<(String, f64)> {
    let all = page.all("fanfare_tool_active_calls", &[]);
    let mut active: Vec<_> = all
        .iter()
        .map(|sample| (sample.labels["gen_ai_tool_name"].clone(), sample.value))
        .collect();
    active.sort_by(|a, b| a.0.cmp(&b.0));
    active
}

/// The tools that some metric names.
fn named(page: &Page) -> Vec<&str> {
    let labels = page.samples.iter().flat_map(|sample| &sample.labels);
    let labels = labels.filter(|(label, _)| *label == "gen_ai_tool_name");
    let mut names: Vec<_> = labels.map(|(_, name)| name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

#[tokio::test(start_paused = true)]
async fn metrics_follow_the_snapshot() {
    let limits = || config().limits;
    let publisher = Publisher::new(snapshot(&[("kept", 2), ("removed", 2)], limits()));
    let snapshots = publisher.snapshots();
    let (server, observer) = Observer::following(&config(), snapshots, &[]).await;
    let server = Arc::new(server);
    let client = pipes::client_of(&server).await;
    results(&client, vec![call("", "removed")]).await;
    assert_eq!(named(&observer.page()), ["kept", "removed"]);

    let running = client.clone();
    let calls = vec![call("", "kept"), call("", "removed")];
    let running = tokio::spawn(async move { results(&running, calls).await });
    tokio::time::sleep(SECOND).await;
    let of = |name: &str, value| (name.to_owned(), value);
    let page = observer.page();
    assert_eq!(active(&page), [of("kept", 1.0), of("removed", 1.0)]);

    publisher.replace(snapshot(&[("added", 1), ("kept", 1)], limits()));
    // The call that runs is with the tool of that name still.
    let page = observer.page();
    assert_eq!(active(&page), [of("added", 0.0), of("kept", 1.0)]);
    assert_eq!(named(&page), ["added", "kept"]);

    let calls = ["added", "kept", "removed"].map(|name| call("", name));
    results(&client, calls.to_vec()).await;
    running.await.unwrap();
    let page = observer.page();
    assert_eq!(active(&page), [of("added", 0.0), of("kept", 0.0)]);
    assert_eq!(named(&page), ["_OTHER", "added", "kept"]);
    let ended = |name| {
        let labels = [("gen_ai_tool_name", name)];
        page.value("gen_ai_execute_tool_duration_seconds_count", &labels)
    };
    assert_eq!(["added", "kept", "_OTHER"].map(ended), [1.0, 2.0, 1.0]);
}
