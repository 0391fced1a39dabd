//! How many bytes this process holds for its callers and tools: requests that
//! arrive or run, observations, answers that have not been handed on.
//!
//! One budget bounds all of them together, so that many streams that are each
//! within their own limits can't fill the memory. What does not fit is refused by
//! whoever asked; nothing waits here.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;

/// The budget. Clones share it.
#[derive(Clone, Debug)]
pub struct Buffered(Arc<Budget>);

#[derive(Debug)]
struct Budget {
    held: AtomicUsize,
    max: usize,
}

/// Bytes that are held; given back by dropping it.
#[derive(Debug)]
pub struct Held {
    budget: Arc<Budget>,
    bytes: usize,
}

/// Bytes, and what is held for them.
struct Kept {
    bytes: Bytes,
    _held: Held,
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Buffered {
    /// A budget of `max` bytes, none of which is held.
    pub fn new(max: usize) -> Self {
        Self(Arc::new(Budget {
            held: AtomicUsize::new(0),
            max,
        }))
    }

    /// Holds `bytes` bytes; `None` if they do not fit.
    pub fn try_hold(&self, bytes: usize) -> Option<Held> {
        self.0.take(bytes).then(|| Held {
            budget: Arc::clone(&self.0),
            bytes,
        })
    }

    /// Holds `bytes` bytes, over the bound if need be: for what is in memory already and
    /// only changes its owner.
    #[must_use]
    pub fn hold(&self, bytes: usize) -> Held {
        self.0.held.fetch_add(bytes, Ordering::Relaxed);
        Held {
            budget: Arc::clone(&self.0),
            bytes,
        }
    }

    /// How many bytes are held.
    pub fn held(&self) -> usize {
        self.0.held.load(Ordering::Relaxed)
    }

    /// The most that may be held.
    pub fn max(&self) -> usize {
        self.0.max
    }
}

impl Budget {
    fn take(&self, bytes: usize) -> bool {
        self.take_leaving(bytes, 0)
    }

    fn take_leaving(&self, bytes: usize, room: usize) -> bool {
        let max = self.max - room;
        let fits = |held: usize| held.checked_add(bytes).filter(|&then| then <= max);
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        self.held.fetch_update(set, fetch, fits).is_ok()
    }
}

impl Held {
    /// Holds `bytes` more bytes if they fit, and returns whether they do.
    #[must_use]
    pub fn try_grow(&mut self, bytes: usize) -> bool {
        let fits = self.budget.take(bytes);
        if fits {
            self.bytes += bytes;
        }
        fits
    }

    /// As [`try_grow`](Self::try_grow), if that leaves room for others: seven times
    /// what this then holds, but at most an eighth of the budget. What is large
    /// stops fitting before what is small, so a few that hold all they can get do
    /// not keep everybody out.
    #[must_use]
    pub fn try_grow_leaving_room(&mut self, bytes: usize) -> bool {
        let all = self.bytes.saturating_add(bytes);
        let room = all.saturating_mul(7).min(self.budget.max / 8);
        let fits = self.budget.take_leaving(bytes, room);
        if fits {
            self.bytes += bytes;
        }
        fits
    }

    /// Gives back `bytes` bytes, or all if it holds fewer.
    pub fn shrink(&mut self, bytes: usize) {
        drop(self.split(bytes));
    }

    /// Splits off `bytes` bytes, or all if it holds fewer.
    #[must_use]
    pub fn split(&mut self, bytes: usize) -> Self {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Self {
            budget: Arc::clone(&self.budget),
            bytes,
        }
    }

    /// Adds `other`, which must be of the same budget.
    pub fn join(&mut self, mut other: Self) {
        debug_assert!(Arc::ptr_eq(&self.budget, &other.budget));
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// Keeps them held until all clones of `bytes`, which they are for, are dropped.
    pub fn keep(self, bytes: Bytes) -> Bytes {
        Bytes::from_owner(Kept { bytes, _held: self })
    }

    /// How many bytes these are.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.budget.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_whole_and_what_is_dropped_comes_back() {
        let budget = Buffered::new(100);
        let mut held = budget.try_hold(60).unwrap();
        assert!(budget.try_hold(41).is_none());
        assert!(budget.try_hold(usize::MAX).is_none());
        assert!(held.try_grow(40));
        assert!(!held.try_grow(1));
        assert_eq!((held.bytes(), budget.held()), (100, 100));

        let part = held.split(30);
        held.shrink(20);
        assert_eq!((held.bytes(), part.bytes(), budget.held()), (50, 30, 80));
        held.shrink(1000);
        assert_eq!(budget.held(), 30);
        drop((held, part));
        assert_eq!(budget.held(), 0);

        let mut large = budget.try_hold(0).unwrap();
        assert!(!large.try_grow_leaving_room(89));
        assert!(large.try_grow_leaving_room(80));
        let mut small = budget.try_hold(0).unwrap();
        assert!(!small.try_grow_leaving_room(9));
        assert!(small.try_grow_leaving_room(2));
        assert!(small.try_grow(18) && !small.try_grow_leaving_room(0));
        drop((large, small));

        let mut over = budget.hold(150);
        assert!(budget.try_hold(1).is_none());
        over.shrink(100);
        over.join(budget.try_hold(50).unwrap());
        assert_eq!((over.bytes(), budget.held()), (100, 100));
        drop(over);
        assert_eq!(budget.held(), 0);
    }
}
