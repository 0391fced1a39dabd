//! The sections and their keys, for `deploy/config/`.

use super::{
    breaker::{self, Breaker},
    hedge::Hedge,
    limits::Limits,
    retry::Retry,
    retry_budget::RetryBudget,
    section::{Key, Section},
    server::Server,
    service::{self, Service},
    tls,
    tool::Tool,
    tool_defaults::ToolDefaults,
};

/// A section, for the documentation.
#[derive(Clone, Debug)]
pub struct SectionDocs {
    /// Such as `services.NAME.tls`.
    pub path: &'static str,
    /// What it is for.
    pub docs: &'static str,
    /// Its keys.
    pub keys: Vec<Key>,
}

const AS_OF_TOOL: &str = "As in the section of that name in `[tools.NAME]`, of tools that have \
    none.";

/// All sections, in the order in which a file has them best.
pub fn sections() -> Vec<SectionDocs> {
    let mut service = of::<Service>("services.NAME");
    service.keys = service::keys();
    let mut tool_breaker = of::<Breaker>("tools.NAME.breaker");
    tool_breaker.docs = breaker::OF_TOOL;
    let mut defaults_retry = of::<Retry>("services.NAME.tool_defaults.retry");
    defaults_retry.docs = AS_OF_TOOL;
    let mut defaults_hedge = of::<Hedge>("services.NAME.tool_defaults.hedge");
    defaults_hedge.docs = AS_OF_TOOL;
    vec![
        of::<Server>("server"),
        of::<Limits>("limits"),
        service,
        of::<tls::Keys>("services.NAME.tls"),
        of::<Breaker>("services.NAME.breaker"),
        of::<RetryBudget>("services.NAME.retry_budget"),
        of::<ToolDefaults>("services.NAME.tool_defaults"),
        defaults_retry,
        defaults_hedge,
        of::<Tool>("tools.NAME"),
        of::<Retry>("tools.NAME.retry"),
        of::<Hedge>("tools.NAME.hedge"),
        tool_breaker,
    ]
}

fn of<S: Section>(path: &'static str) -> SectionDocs {
    SectionDocs {
        path,
        docs: S::DOCS,
        keys: S::keys(),
    }
}
