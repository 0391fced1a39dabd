//! Which worker gets a new connection: arithmetic on how busy they are.
//!
//! Callers have few connections and keep them for long, and one may carry a thousand times
//! what another does. So neither the kernel's hash of addresses (`SO_REUSEPORT`) nor the
//! number of connections alone spreads the work: what counts is how busy a worker was. A
//! connection that came since then is taken to be as busy as the average one.

use std::time::Duration;

/// Workers whose times differ by less than this part of a period are equally busy, and the
/// number of their connections decides.
const MARGIN: f64 = 0.05;

/// What a worker has to do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    /// How long it was busy in the last period.
    pub(super) busy: Duration,
    /// Its connections.
    pub(super) connections: usize,
    /// Those of them that came after that period.
    pub(super) new: usize,
    /// It does nothing any more.
    pub(super) stuck: bool,
}

/// The worker with the least to do, given what they did in a `period`. Those that are stuck
/// get nothing unless all are.
pub(super) fn least_loaded(loads: &[Load], period: Duration) -> usize {
    let busy: Duration = loads.iter().map(|load| load.busy).sum();
    let old = loads
        .iter()
        .map(|load| load.connections.saturating_sub(load.new));
    let average = busy.as_secs_f64() / old.sum::<usize>().max(1) as f64;
    let expected = |load: &Load| load.busy.as_secs_f64() + average * load.new as f64;
    let all_stuck = loads.iter().all(|load| load.stuck);
    let choices = || {
        let loads = loads.iter().enumerate();
        loads.filter(|(_, load)| all_stuck || !load.stuck)
    };
    let least = choices().map(|(_, load)| expected(load));
    let enough = least.fold(f64::INFINITY, f64::min) + MARGIN * period.as_secs_f64();
    choices()
        .filter(|(_, load)| expected(load) <= enough)
        .min_by_key(|(_, load)| load.connections)
        .map_or(0, |(index, _)| index)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_secs(1);

    fn worker(busy_ms: u64, connections: usize) -> Load {
        Load {
            busy: Duration::from_millis(busy_ms),
            connections,
            new: 0,
            stuck: false,
        }
    }

    /// How many of `count` connections that come at once each worker gets.
    fn spread(mut loads: Vec<Load>, count: usize) -> Vec<usize> {
        for _ in 0..count {
            let index = least_loaded(&loads, PERIOD);
            loads[index].connections += 1;
            loads[index].new += 1;
        }
        loads.iter().map(|load| load.new).collect()
    }

    #[test]
    fn idle_workers_get_the_same_number() {
        assert_eq!(spread(vec![worker(0, 0); 3], 9), [3, 3, 3]);
        // What is next to nothing makes no difference.
        assert_eq!(spread(vec![worker(40, 2), worker(0, 2)], 8), [4, 4]);
        assert_eq!(spread(vec![worker(0, 5), worker(0, 1)], 4), [0, 4]);
    }

    #[test]
    fn the_idle_one_gets_the_new_ones_whatever_it_has() {
        assert_eq!(spread(vec![worker(900, 1), worker(10, 3)], 2), [0, 2]);
        assert_eq!(spread(vec![worker(10, 30), worker(900, 1)], 2), [2, 0]);
    }

    #[test]
    fn many_at_once_do_not_all_go_to_the_one_that_was_idle() {
        let spread = spread(vec![worker(400, 8), worker(0, 0)], 100);
        assert!((46..=54).contains(&spread[0]), "{spread:?}");
    }

    #[test]
    fn the_stuck_get_nothing_while_there_are_others() {
        let stuck = |load| Load {
            stuck: true,
            ..load
        };
        assert_eq!(
            spread(vec![stuck(worker(0, 0)), worker(990, 50)], 5),
            [0, 5]
        );
        assert_eq!(spread(vec![stuck(worker(0, 0)); 2], 4), [2, 2]);
    }
}
