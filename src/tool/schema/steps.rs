//! How long a check may take. References and branches can make a small schema visit the same
//! value any number of times (each of thirty definitions that refers to the next one twice
//! makes a billion), and the crate can't be told to stop. So whatever branches gets, as the
//! first of its `allOf`, a keyword that counts before the branches are entered; once there
//! were too many it unwinds.

use std::{
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
};

use jsonschema::{Keyword, ValidationError};
use serde_json::Value;

/// The keyword; its value is how many branches there are.
pub(super) const KEYWORD: &str = "$!";

thread_local! {
    /// How many are left for the check that runs.
    static LEFT: Cell<usize> = const { Cell::new(0) };
}

/// What unwinds.
struct TooMany;

/// Runs a check of at most so many steps: values, each as often as a branch looks at it.
/// `None` if it took more.
pub(super) fn at_most<T>(steps: usize, check: impl FnOnce() -> T) -> Option<T> {
    LEFT.set(steps);
    match catch_unwind(AssertUnwindSafe(check)) {
        Ok(checked) => Some(checked),
        Err(panic) if panic.is::<TooMany>() => None,
        Err(panic) => resume_unwind(panic),
    }
}

/// Of a subschema with so many branches.
pub(super) struct Step(pub(super) usize);

impl Step {
    fn take(&self, instance: &Value) {
        let taken = self.0.saturating_mul(values(instance));
        match LEFT.get().checked_sub(taken) {
            Some(left) => LEFT.set(left),
            // Without the hook, which would write to the log.
            None => resume_unwind(Box::new(TooMany)),
        }
    }
}

impl<'i> Keyword<'i> for Step {
    fn validate(&self, instance: &'i Value) -> Result<(), ValidationError<'i>> {
        self.take(instance);
        Ok(())
    }

    fn is_valid(&self, instance: &'i Value) -> bool {
        self.take(instance);
        true
    }
}

/// How many values it is made of.
pub(super) fn values(instance: &Value) -> usize {
    match instance {
        Value::Array(items) => 1 + items.iter().map(values).sum::<usize>(),
        Value::Object(members) => 1 + members.values().map(values).sum::<usize>(),
        _ => 1,
    }
}
