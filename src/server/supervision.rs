//! Looks after the workers, and says in the log when one is stuck.

use std::future::pending;

use tokio::time::{MissedTickBehavior, interval};

use crate::core::workers::{Change, PERIOD, Workers};

/// Looks after the workers, if there are any, for as long as it is polled.
pub(super) async fn supervise(workers: Option<&Workers>) {
    let Some(workers) = workers else {
        return pending().await;
    };
    let mut period = interval(PERIOD);
    period.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        period.tick().await;
        for change in workers.look() {
            match change {
                Change::Stuck {
                    worker,
                    connections,
                } => tracing::error!(
                    worker,
                    connections,
                    "a worker is stuck: its connections are not served, and it gets no new ones"
                ),
                Change::Recovered { worker, time } => {
                    let time = time.as_secs();
                    tracing::warn!(worker, time, "a worker was stuck and no longer is");
                }
            }
        }
    }
}
