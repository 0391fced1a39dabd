//! What a call that has ended still takes while its stream waits to be reset: for its
//! tool it goes on until then.

use std::sync::Arc;

use tokio::time::Instant;

use crate::{
    core::fanout::Invocation,
    policy::bulkhead::{Bulkhead, Lingering},
    telemetry::batch::StillActive,
};

/// Given back by dropping it.
#[derive(Debug)]
pub(super) struct Linger {
    _place: Lingering,
    _gauge: Option<StillActive>,
}

impl Linger {
    /// Of a call in that bulkhead, which ends now.
    pub(super) fn of(invocation: &Invocation, bulkhead: &Arc<Bulkhead>, now: Instant) -> Self {
        Self {
            _place: bulkhead.linger(now),
            _gauge: StillActive::of(invocation),
        }
    }
}
