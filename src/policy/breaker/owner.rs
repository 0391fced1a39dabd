//! What a breaker belongs to, in words for people.

use std::{fmt, sync::Arc, time::Duration};

/// What a breaker belongs to, by its name in the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// A tool.
    Tool(Arc<str>),
    /// A tool service, with all its tools.
    Service(Arc<str>),
}

impl Owner {
    /// Logs that its breaker has opened, and the last failure.
    pub(super) fn is_left_alone(&self, open_time: Duration, reason: &str) {
        let open_time = open_time.as_secs_f64();
        match self {
            Self::Tool(tool) => {
                let tool = &**tool;
                let message = "a tool keeps failing: leaving it alone";
                tracing::warn!(tool, reason, open_time, message);
            }
            Self::Service(service) => {
                let service = &**service;
                let message = "a tool service keeps failing: leaving it alone";
                tracing::warn!(service, reason, open_time, message);
            }
        }
    }

    /// Logs that its breaker has closed.
    pub(super) fn is_back(&self) {
        match self {
            Self::Tool(tool) => tracing::info!(tool = &**tool, "a tool is back"),
            Self::Service(service) => {
                tracing::info!(service = &**service, "a tool service is back");
            }
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tool(name) => write!(f, "tool {name}"),
            Self::Service(name) => write!(f, "tool service {name}"),
        }
    }
}
