//! Something for each oneof of a message, as cheap as the oneofs that occur: a type of a
//! stranger may have as many as it likes, and an answer as many messages of that type.

use std::collections::BTreeMap;

/// How many oneofs cost no allocation.
const FEW: usize = 8;

#[derive(Debug)]
pub(super) struct PerOneof<T> {
    few: [Option<T>; FEW],
    many: BTreeMap<u32, T>,
}

impl<T: Copy> PerOneof<T> {
    pub(super) fn new() -> Self {
        Self {
            few: [None; FEW],
            many: BTreeMap::new(),
        }
    }

    pub(super) fn get(&self, oneof: u32) -> Option<T> {
        match self.few.get(oneof as usize) {
            Some(few) => *few,
            None => self.many.get(&oneof).copied(),
        }
    }

    pub(super) fn set(&mut self, oneof: u32, it: T) {
        match self.few.get_mut(oneof as usize) {
            Some(few) => *few = Some(it),
            None => drop(self.many.insert(oneof, it)),
        }
    }
}
