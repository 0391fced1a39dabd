//! The limit on open files: raises it, and reserves file descriptors for tool services
//! and the admin port before callers get the rest.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::admin;
use crate::config::{Config, Service, max_connections_per_address};

/// For standard streams, listeners, epoll, exporters, DNS and files that are read.
const OWN: usize = 32;
/// A worker's epoll, with what wakes it and tells it of signals.
const OF_A_WORKER: usize = 4;

/// Raises the soft limit on open files to the hard one, as Go's runtime does. Lowers
/// `server.max_connections`, with a warning, if that leaves too few for the callers of so
/// many workers.
pub fn raise_limit(config: &mut Config, workers: usize) {
    let Some(limit) = raise_to_hard_limit() else {
        return;
    };
    let wanted = config.server.max_connections;
    let reserved = reserved(config, workers);
    let callers = for_callers(limit, reserved, wanted);
    if callers < wanted {
        tracing::warn!(
            limit,
            needed = reserved + wanted,
            for_callers = callers,
            "too few file descriptors (ulimit -n) for server.max_connections = {wanted}: \
             accepting {callers} connections"
        );
        config.server.max_connections = callers;
    }
}

/// The limit from now on, if it is known.
fn raise_to_hard_limit() -> Option<usize> {
    let resource = Resource::RLIMIT_NOFILE;
    let (soft, hard) = getrlimit(resource).ok()?;
    let limit = match setrlimit(resource, hard, hard) {
        Ok(()) => hard,
        Err(_) => soft,
    };
    Some(usize::try_from(limit).unwrap_or(usize::MAX))
}

/// What is not for callers. An endpoint counts as one address.
fn reserved(config: &Config, workers: usize) -> usize {
    let of_service = |service: &Service| {
        // Each worker's last one may be nearly unused.
        let full = config.limits.max_in_flight_calls / service.max_streams_per_connection;
        let max = max_connections_per_address(service.max_connections_per_address, workers);
        service.endpoints.len() * max.min(full + workers)
    };
    let tools: usize = config.services.values().map(of_service).sum();
    OWN + workers * OF_A_WORKER + admin::MAX_CONNECTIONS + tools
}

/// At least half of the limit, however much is reserved.
fn for_callers(limit: usize, reserved: usize, wanted: usize) -> usize {
    let free = limit - reserved.min(limit / 2);
    wanted.min(free).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_get_the_rest_and_at_least_half() {
        assert_eq!(for_callers(1 << 20, 1000, 4096), 4096);
        assert_eq!(for_callers(5096, 1000, 4096), 4096);
        assert_eq!(for_callers(5095, 1000, 4096), 4095);
        assert_eq!(for_callers(1024, 176, 4096), 848);
        assert_eq!(for_callers(200, 176, 4096), 100);
        assert_eq!(for_callers(0, 176, 4096), 1);
        assert_eq!(for_callers(usize::MAX, 176, 1), 1);
    }

    #[test]
    fn tools_get_the_connections_that_they_may_have() {
        let text = "[limits]\nmax_in_flight_calls = 1000\n\
                    [services.a]\nendpoints = [\"http://a\", \"http://b\"]\n\
                    [services.b]\nendpoint = \"http://c\"\nmax_connections_per_address = 3\n";
        let config = Config::parse(text).unwrap();
        let own = |workers| reserved(&Config::default(), workers);
        assert_eq!(reserved(&config, 1), own(1) + 2 * 11 + 3);
        // Each has one of its own; the setting bounds all of them.
        assert_eq!(reserved(&config, 4), own(4) + 2 * 14 + 3);
        assert_eq!(reserved(&config, 10), own(10) + 2 * 16 + 3);
        assert_eq!(reserved(&config, 32), own(32) + 2 * 32 + 3);
        assert_eq!(own(32), own(2) + 30 * OF_A_WORKER);
    }
}
