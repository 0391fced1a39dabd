//! Which RPC the current thread is working for, so that a line in the log finds
//! its trace.

use std::fmt::Write as _;

tokio::task_local! {
    static CURRENT: Ids;
}

/// A trace, and a span in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ids {
    /// The trace.
    pub trace_id: [u8; 16],
    /// The span.
    pub span_id: [u8; 8],
    /// Whether the span is recorded.
    pub sampled: bool,
}

impl Ids {
    /// The trace in hexadecimal digits.
    pub fn trace_id(&self) -> String {
        hex(&self.trace_id)
    }

    /// The span in hexadecimal digits.
    pub fn span_id(&self) -> String {
        hex(&self.span_id)
    }
}

/// Runs `future`; what is logged meanwhile belongs to `ids`.
pub async fn correlate<F: Future>(ids: Option<Ids>, future: F) -> F::Output {
    match ids {
        Some(ids) => CURRENT.scope(ids, future).await,
        None => future.await,
    }
}

/// What is being worked for.
pub fn current() -> Option<Ids> {
    CURRENT.try_with(|ids| *ids).ok()
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}
