//! What the demo tools noted in their log: which calls began, and how each ended.

use serde_json::Value;

use super::process::{Process, message};

/// Waits until `count` calls have started; returns their lines.
pub async fn started(tools: &Process, count: usize) -> Vec<Value> {
    lines(tools, "call started", count).await
}

/// Waits until `count` calls of `tool` have started.
pub async fn started_of(tools: &Process, count: usize, tool: &str) {
    let is = |line: &Value| message(line) == "call started" && line["tool"] == tool;
    tools.log().wait_for_all("calls in flight", count, is).await;
}

/// Waits until `count` calls were answered; returns their lines.
pub async fn answered(tools: &Process, count: usize) -> Vec<Value> {
    lines(tools, "call answered", count).await
}

/// Waits until `count` calls were cancelled; returns their lines.
pub async fn cancelled(tools: &Process, count: usize) -> Vec<Value> {
    lines(tools, "call cancelled", count).await
}

/// How many lines of that kind there are so far.
pub fn count(tools: &Process, event: &str) -> usize {
    tools.log().all(|line| message(line) == event).len()
}

async fn lines(tools: &Process, event: &str, count: usize) -> Vec<Value> {
    let is = |line: &Value| message(line) == event;
    tools.log().wait_for_all(event, count, is).await
}
