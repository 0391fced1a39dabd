//! A tool service that is killed.

use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::task::JoinSet;

use super::{
    amid_others::lost,
    call,
    pipes::Client,
    process::{Process, message},
    results, seen,
};

/// Kills one of the demo tools behind `client` and waits until it is known there:
/// the end of a process is told before the end of its connections, on which a call
/// could still be lost.
pub async fn kill(victim: &mut Process, client: &Client) {
    let mut hanging = JoinSet::new();
    for _ in 0..40 {
        let client = client.clone();
        hanging.spawn(async move { results(&client, vec![call("", "hang")]).await });
    }
    let hang = |line: &Value| message(line) == "call started" && line["tool"] == "hang";
    victim.log().wait_for_all("calls in flight", 1, hang).await;
    victim.signal(Signal::SIGKILL);
    victim.exit_code().await;
    let first = hanging.join_next().await.expect("calls");
    assert_eq!(seen(&first.expect("results")[0]), lost("maybe"));
}
