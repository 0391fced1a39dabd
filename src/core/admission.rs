//! Admission control: how many calls this process has in flight, and whether it takes more.
//!
//! A call is in flight from the moment its request is accepted, waiting included,
//! until its outcome was handed on: until then it holds memory.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// Counts the calls in flight and keeps them under a bound.
#[derive(Clone, Debug)]
pub struct Admission {
    in_flight: Arc<AtomicUsize>,
    max: usize,
}

/// The process has as many calls in flight as it may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full {
    /// The bound.
    pub max: usize,
}

/// The right to have some calls in flight; given back by dropping it.
#[derive(Debug)]
pub struct Permit {
    in_flight: Arc<AtomicUsize>,
    calls: usize,
}

impl Admission {
    /// Admits at most `max` calls at a time.
    pub fn new(max: usize) -> Self {
        Self {
            in_flight: Arc::default(),
            max,
        }
    }

    /// Admits `calls` calls, all or none. Never waits: a request that can't be served now
    /// is better sent elsewhere.
    ///
    /// # Errors
    /// If they do not fit under the bound.
    pub fn admit(&self, calls: usize) -> Result<Permit, Full> {
        self.in_flight
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| {
                now.checked_add(calls).filter(|&then| then <= self.max)
            })
            .map_err(|_| Full { max: self.max })?;
        Ok(Permit {
            in_flight: Arc::clone(&self.in_flight),
            calls,
        })
    }

    /// How many calls are in flight.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// How many may be.
    pub fn max(&self) -> usize {
        self.max
    }
}

impl Permit {
    /// Splits off the permit of one call; an empty one if none is left.
    pub fn split_one(&mut self) -> Self {
        let calls = self.calls.min(1);
        self.calls -= calls;
        Self {
            in_flight: Arc::clone(&self.in_flight),
            calls,
        }
    }
}

impl Permit {
    /// Adds `other`, which must be of the same [`Admission`].
    pub fn join(&mut self, mut other: Self) {
        debug_assert!(Arc::ptr_eq(&self.in_flight, &other.in_flight));
        self.calls += std::mem::take(&mut other.calls);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.in_flight.fetch_sub(self.calls, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_on_all_or_none_and_gets_them_back() {
        let admission = Admission::new(10);
        let mut eight = admission.admit(8).unwrap();
        assert_eq!(admission.admit(3).unwrap_err(), Full { max: 10 });
        assert_eq!(admission.in_flight(), 8);
        drop(eight.split_one());
        assert_eq!(admission.in_flight(), 7);
        let three = admission.admit(3).unwrap();
        drop((eight, three));
        assert_eq!(admission.in_flight(), 0);
        assert!(admission.admit(usize::MAX).is_err());
    }
}
