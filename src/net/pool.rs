//! How many connections an address gets, and which of them takes a call: arithmetic on
//! how full they are. The connections themselves are in `address_pool.rs`.
//!
//! A connection is filled up to the bound on its streams before the next one gets
//! any: the calls of a batch then leave in one write, and a connection that the
//! load does not need becomes idle and is closed. While another connection is being made,
//! one takes up to twice the bound, so that no call waits for the new one; otherwise up
//! to what the peer allows.

/// How full an open connection is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    /// Calls in flight.
    pub(super) calls: usize,
    /// How many streams the peer allows. It may be 0 and grow again.
    pub(super) limit: usize,
    pub(super) is_open: bool,
    /// The peer was pinged and has not answered yet.
    pub(super) is_suspect: bool,
}

impl Load {
    /// Whether it takes a call because it has less than `bound`.
    fn has_room(&self, bound: usize) -> bool {
        self.is_open && self.calls < bound.min(self.limit)
    }
}

/// The first connection with less than `bound` calls; one with an unanswered ping only if
/// `suspects`.
pub(super) fn with_room(
    mut loads: impl Iterator<Item = Load>,
    bound: usize,
    suspects: bool,
) -> Option<usize> {
    loads.position(|load| load.has_room(bound) && (suspects || !load.is_suspect))
}

/// The least loaded connection that may take a call although all have reached the bound.
pub(super) fn beyond_bound(
    loads: impl Iterator<Item = Load>,
    bound: usize,
    others_coming: bool,
    suspects: bool,
) -> Option<usize> {
    let bound = if others_coming {
        bound.saturating_mul(2)
    } else {
        usize::MAX
    };
    least_loaded(loads, |load| {
        load.has_room(bound) && (suspects || !load.is_suspect)
    })
}

/// The connection on which a call waits least for a stream. Those that allow no stream at
/// all are left out.
pub(super) fn shortest_queue(loads: impl Iterator<Item = Load>) -> Option<usize> {
    least_loaded(loads, |load| load.is_open && load.limit > 0)
}

fn least_loaded(loads: impl Iterator<Item = Load>, takes: impl Fn(&Load) -> bool) -> Option<usize> {
    loads
        .enumerate()
        .filter(|(_, load)| takes(load))
        .min_by_key(|(_, load)| (load.is_suspect, load.calls))
        .map(|(index, _)| index)
}

/// By how many calls, with one more to come, the connections exceed `per_connection`
/// each.
pub(super) fn excess(loads: impl Iterator<Item = Load>, per_connection: usize) -> usize {
    let (mut calls, mut room) = (1, 0);
    for load in loads.filter(|load| load.is_open) {
        calls += load.calls;
        room += per_connection.min(load.limit);
    }
    calls.saturating_sub(room)
}

/// Whether that excess is too much for the connections being made, and another one would
/// help. It would not if the peer allows no streams.
pub(super) fn needs_another(excess: usize, coming: usize, per_connection: usize) -> bool {
    per_connection > 0 && excess > coming * per_connection
}

/// Whether a worker that has `own` connections may have another one, when other workers
/// have `taken`, and `reserved` of them have none yet. As long as there may be as many
/// connections as workers, each of them gets one, whatever the others have.
pub(super) fn may_grow(own: usize, taken: usize, reserved: usize, max_connections: usize) -> bool {
    let reserved = if own == 0 { 0 } else { reserved };
    own + taken + reserved < max_connections
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    const BOUND: usize = 100;

    fn loads(loads: &[(usize, usize)]) -> impl Iterator<Item = Load> + Clone {
        loads.iter().map(|&(calls, limit)| Load {
            calls,
            limit,
            is_open: true,
            is_suspect: false,
        })
    }

    #[test]
    fn connections_are_filled_one_after_another() {
        let all = loads(&[(100, 1000), (99, 1000), (0, 1000)]);
        assert_eq!(with_room(all, BOUND, false), Some(1));
        // The peer's own limit counts, and at 0 it takes nothing.
        let all = loads(&[(10, 10), (0, 0), (9, 10)]);
        assert_eq!(with_room(all, BOUND, false), Some(2));
        assert_eq!(with_room(loads(&[(100, 1000)]), BOUND, false), None);
        let closed = loads(&[(0, 10)]).map(|load| Load {
            is_open: false,
            ..load
        });
        assert_eq!(with_room(closed.clone(), BOUND, true), None);
        assert_eq!(shortest_queue(closed.clone()), None);
        assert_eq!(excess(closed, BOUND), 1);
    }

    #[test]
    fn the_suspect_get_calls_when_there_is_nobody_else() {
        let all = || {
            let loads = loads(&[(0, 100), (50, 100)]).enumerate();
            loads.map(|(index, load)| Load {
                is_suspect: index == 0,
                ..load
            })
        };
        assert_eq!(with_room(all(), BOUND, false), Some(1));
        assert_eq!(with_room(all(), 10, false), None);
        assert_eq!(with_room(all(), 10, true), Some(0));
        assert_eq!(beyond_bound(all(), 10, false, true), Some(1));
        assert_eq!(beyond_bound(all(), 10, true, false), None);
        assert_eq!(shortest_queue(all()), Some(1));
        // A suspect connection is no reason to open another.
        assert_eq!(excess(all(), 10), 31);
        assert_eq!(excess(all().take(1), 10), 0);
    }

    #[test]
    fn no_connection_is_wanted_beside_those_that_allow_no_stream() {
        assert!(!needs_another(excess(loads(&[(0, 0)]), 0), 0, 0));
        assert!(!needs_another(1000, 0, 0));
    }

    #[test]
    fn beyond_the_bound_the_least_loaded_takes_what_the_peer_allows() {
        let all = || loads(&[(300, 1000), (250, 1000), (200, 200)]);
        assert_eq!(beyond_bound(all(), BOUND, false, false), Some(1));
        assert_eq!(beyond_bound(all(), BOUND, true, false), None);
        let one = loads(&[(199, 1000)]);
        assert_eq!(beyond_bound(one, BOUND, true, false), Some(0));
        let full = || loads(&[(12, 10), (11, 10), (0, 0)]);
        assert_eq!(beyond_bound(full(), BOUND, false, false), None);
        assert_eq!(shortest_queue(full()), Some(1));
        assert_eq!(shortest_queue(loads(&[(0, 0)])), None);
    }

    #[test]
    fn growth_follows_the_demand() {
        // Without a connection the first call dials.
        assert!(needs_another(excess(loads(&[]), BOUND), 0, BOUND));
        assert!(!needs_another(excess(loads(&[]), BOUND), 1, BOUND));
        // The first call beyond the bound.
        assert_eq!(excess(loads(&[(99, 1000)]), BOUND), 0);
        assert_eq!(excess(loads(&[(100, 1000)]), BOUND), 1);
        assert_eq!(excess(loads(&[(10, 10), (10, 10)]), BOUND), 1);
    }

    #[test]
    fn ten_thousand_calls_at_once_dial_a_hundred_times() {
        let mut coming = 0;
        for waiting in 0..10_000 {
            if needs_another(waiting + excess(loads(&[]), BOUND), coming, BOUND) {
                coming += 1;
            }
        }
        assert_eq!(coming, 100);
    }

    proptest! {
        /// In whatever order workers open and close connections.
        #[test]
        fn each_worker_gets_a_connection_and_all_keep_to_the_most(
            workers in 1..6_usize,
            max in 1..12_usize,
            steps in vec((0..6_usize, any::<bool>()), 0..80),
        ) {
            let mut has = vec![0_usize; workers];
            for (worker, opens) in steps {
                let worker = worker % workers;
                let own = has[worker];
                let others = || has.iter().enumerate().filter(|(i, _)| *i != worker);
                let taken: usize = others().map(|(_, count)| count).sum();
                let reserved = others().filter(|(_, count)| **count == 0).count();
                let may = may_grow(own, taken, reserved, max);
                prop_assert!(may || own > 0 || max < workers);
                match opens {
                    true => has[worker] += usize::from(may),
                    false => has[worker] = own.saturating_sub(1),
                }
                prop_assert!(has.iter().sum::<usize>() <= max);
            }
            // Beside one of its own for each, anybody may have the rest.
            let rest = max.saturating_sub(workers);
            prop_assert!(rest == 0 || may_grow(rest, 0, workers - 1, max));
            prop_assert!(!may_grow(rest + 1, 0, workers - 1, max));
        }

        #[test]
        fn nobody_is_asked_for_more_than_it_allows(
            all in vec((0..300_usize, 0..300_usize), 0..6),
            coming in any::<bool>(),
        ) {
            let taken = with_room(loads(&all), BOUND, true)
                .or_else(|| beyond_bound(loads(&all), BOUND, coming, true));
            if let Some(index) = taken {
                prop_assert!(all[index].0 < all[index].1);
            } else if !coming {
                prop_assert!(all.iter().all(|(calls, limit)| calls >= limit));
            }
        }
    }
}
