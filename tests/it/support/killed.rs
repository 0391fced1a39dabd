//! A tool service that is killed.

use nix::sys::signal::Signal;
use tokio::task::JoinSet;

use super::{call, ledger, lost, pipes::Client, process::Process, results, seen};

/// Kills one of the demo tools behind `client` and waits until it is known there:
/// the end of a process is told before the end of its connections, on which a call
/// could still be lost.
pub async fn kill(victim: &mut Process, client: &Client) {
    let mut hanging = JoinSet::new();
    for _ in 0..40 {
        let client = client.clone();
        hanging.spawn(async move { results(&client, vec![call("", "hang")]).await });
    }
    ledger::started_of(victim, 1, "hang").await;
    victim.signal(Signal::SIGKILL);
    victim.exit_code().await;
    let first = hanging.join_next().await.expect("calls");
    assert_eq!(seen(&first.expect("results")[0]), lost("maybe"));
}
