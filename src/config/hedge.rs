//! `[tools.NAME.hedge]`

use std::time::Duration;

use toml::de::DeValue;

use super::{
    form::Form,
    kind::{Kind, TICK, duration, required, write_duration},
    reader::Reader,
    retry::NOT_IDEMPOTENT,
    section::{Entry, Section, section},
    text::quoted,
};

const P95: &str = "p95";

/// How long the first attempt at a call gets before a second one races it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HedgeDelay {
    /// As long as this.
    Fixed(Duration),
    /// As long as 19 of 20 attempts took lately.
    P95,
}

section! {
    /// `[tools.NAME.hedge]`: when a second attempt races the first; the first answer
    /// wins. Only for an idempotent tool, and only if the section is there: it costs
    /// the tool more calls.
    pub(super) struct Hedge {
        /// Required. How long the tool may take before it is asked a second time, while
        /// the first attempt goes on. `"p95"`: as long as 19 of 20 attempts took lately;
        /// nothing is hedged until that is known.
        delay: HedgeDelay = HedgeDelay::P95, required(delay());
    }
}

pub(super) fn read(table: &mut Reader<'_, '_>, idempotent: bool) -> HedgeDelay {
    let mut hedge = Hedge::defaults();
    hedge.read_keys(table);
    if !idempotent {
        table.refuse("delay", NOT_IDEMPOTENT);
    }
    hedge.delay
}

pub(super) fn entries(delay: HedgeDelay) -> Vec<Entry> {
    Hedge { delay }.entries()
}

fn delay() -> Kind<HedgeDelay> {
    let Kind { form, parse, .. } = duration(TICK);
    Kind::new(
        Form::Or(P95, Box::new(form)),
        move |value: &DeValue<'_>| match value.as_str() {
            Some(P95) => Some(HedgeDelay::P95),
            _ => parse(value).map(HedgeDelay::Fixed),
        },
        |delay| match delay {
            HedgeDelay::P95 => quoted(P95),
            HedgeDelay::Fixed(delay) => write_duration(delay),
        },
    )
}
