//! `[services.NAME.retry_budget]`

use super::{
    kind::count,
    reader::Reader,
    section::{Section, section},
};

section! {
    /// `[services.NAME.retry_budget]`: how many attempts a service gets beyond its calls
    /// (gRFC A6). Retries and hedges stop while half of the tokens or fewer are left.
    pub struct RetryBudget {
        /// How many tokens there are. A failure that could be retried takes one, a hedge
        /// when it is sent; calls that are lost together take one.
        ///
        /// Default 10: as gRFC A6 proposes.
        pub max_tokens: u32 = 10, count();

        /// How many answers bring a token back.
        ///
        /// Default 10: in the long run a tenth more attempts than calls, as gRFC A6
        /// proposes.
        pub answers_per_token: u32 = 10, count();
    }
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self::defaults()
    }
}

pub(super) fn read(table: &mut Reader<'_, '_>) -> RetryBudget {
    let mut budget = RetryBudget::defaults();
    budget.read_keys(table);
    budget
}
