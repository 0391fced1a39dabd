//! Power of two choices: the next call goes to the less loaded of two addresses drawn at
//! random. That spreads load nearly as evenly as the least loaded of all would, and keeps
//! our replicas from all picking the same address.

/// Draws two of `members`, each an index with its load, and returns the index of the less
/// loaded one; of a single member, its own. `random` is any number.
pub(super) fn less_loaded_of_two(
    mut members: impl Iterator<Item = (usize, usize)> + Clone,
    random: u64,
) -> Option<usize> {
    let count = members.clone().count();
    if count < 2 {
        return members.next().map(|(index, _)| index);
    }
    // Both halves are uniform enough for any count of addresses.
    let (high, low) = ((random >> 32) as usize, (random & 0xffff_ffff) as usize);
    let first = low % count;
    let second = (first + 1 + high % (count - 1)) % count;
    let a = members.clone().nth(first)?;
    let b = members.nth(second)?;
    Some(if b.1 < a.1 { b.0 } else { a.0 })
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn pick(loads: &[usize], random: u64) -> Option<usize> {
        less_loaded_of_two(loads.iter().copied().enumerate(), random)
    }

    #[test]
    fn two_are_compared_whatever_is_drawn() {
        for random in [0, 1, u64::MAX, 1 << 32, 7 << 32 | 3] {
            assert_eq!(pick(&[], random), None);
            assert_eq!(pick(&[9], random), Some(0));
            assert_eq!(pick(&[1, 0], random), Some(1));
            assert_eq!(pick(&[0, 1], random), Some(0));
        }
    }

    #[test]
    fn equal_loads_are_drawn_equally() {
        let mut drawn = [0; 3];
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..30_000 {
            drawn[pick(&[4; 3], random.u64(..)).unwrap()] += 1;
        }
        assert!(drawn.iter().all(|count| (9_000..11_000).contains(count)));
    }

    proptest! {
        #[test]
        fn the_most_loaded_is_never_picked(mut loads in vec(0..100_usize, 2..9), random in any::<u64>()) {
            loads[0] = 100;
            let picked = pick(&loads, random).unwrap();
            prop_assert!((1..loads.len()).contains(&picked));
        }

        /// Calls that never end go where the fewest are.
        #[test]
        fn calls_spread_evenly(members in 2..6_usize, seed in any::<u64>()) {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut loads = vec![0; members];
            for _ in 0..1000 * members {
                let picked = pick(&loads, random.u64(..)).unwrap();
                loads[picked] += 1;
            }
            prop_assert!(loads.iter().all(|load| (980..1020).contains(load)), "{loads:?}");
        }
    }
}
