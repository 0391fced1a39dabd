//! Which trace the code that runs belongs to, for the lines that it logs. It is
//! told by whoever polls a future on behalf of an RPC, and forgotten between.

use futures_util::future::Either;
use tokio::task::futures::TaskLocalFuture;

tokio::task_local! {
    static IDS: Ids;
}

/// A span, as W3C Trace Context names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ids {
    /// The trace: the caller's, or begun here.
    pub trace_id: [u8; 16],
    /// The span that does the work.
    pub span_id: [u8; 8],
    /// Whether the trace is recorded.
    pub sampled: bool,
}

/// Runs `future` as part of the span `ids`, if there is one. Tasks that it spawns
/// are not part of it, unless they are wrapped too.
pub fn correlate<F: Future>(ids: Option<Ids>, future: F) -> Either<TaskLocalFuture<Ids, F>, F> {
    match ids {
        Some(ids) => Either::Left(IDS.scope(ids, future)),
        None => Either::Right(future),
    }
}

/// Runs `action` as part of the span `ids`, if there is one.
pub fn within<T>(ids: Option<Ids>, action: impl FnOnce() -> T) -> T {
    match ids {
        Some(ids) => IDS.sync_scope(ids, action),
        None => action(),
    }
}

/// The span that the code which asks is part of.
pub fn current() -> Option<Ids> {
    IDS.try_with(|ids| *ids).ok()
}

impl Ids {
    /// 32 hexadecimal digits.
    pub fn trace_id(&self) -> String {
        format!("{:032x}", u128::from_be_bytes(self.trace_id))
    }

    /// 16 hexadecimal digits.
    pub fn span_id(&self) -> String {
        format!("{:016x}", u64::from_be_bytes(self.span_id))
    }

    /// Two hexadecimal digits.
    pub(super) fn trace_flags(&self) -> &'static str {
        if self.sampled { "01" } else { "00" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(number: u8) -> Ids {
        Ids {
            trace_id: [number; 16],
            span_id: [number; 8],
            sampled: true,
        }
    }

    #[tokio::test]
    async fn ids_are_those_of_the_future_that_is_polled() {
        let work = |number| async move {
            for _ in 0..3 {
                assert_eq!(current(), Some(ids(number)));
                tokio::task::yield_now().await;
            }
        };
        assert_eq!(current(), None);
        let inner = correlate(Some(ids(3)), work(3));
        let nested = correlate(Some(ids(2)), async {
            inner.await;
            work(2).await;
        });
        tokio::join!(correlate(Some(ids(1)), work(1)), nested);
        assert_eq!(current(), None);
    }
}
