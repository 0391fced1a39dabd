//! File descriptors: raises the process's limit, and shares it out so that callers
//! leave some for tool services and the operators' page.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::admin;
use crate::config::{Config, Service};

/// Standard streams, listeners, epoll, exporters, name servers, files that are read.
const OWN: usize = 32;

/// Raises the soft limit on open files to the hard one, as Go's runtime does, and
/// lowers `server.max_connections` to what that leaves for callers. Warns if it has to.
pub fn share_out(config: &mut Config) {
    let Some(limit) = raise() else { return };
    let wanted = config.server.max_connections;
    let kept = kept_back(config);
    let callers = for_callers(limit, kept, wanted);
    if callers < wanted {
        tracing::warn!(
            limit,
            needed = kept + wanted,
            for_callers = callers,
            "too few file descriptors (ulimit -n) for server.max_connections = {wanted}: \
             taking {callers} connections of callers"
        );
        config.server.max_connections = callers;
    }
}

/// The limit from now on; `None` if nobody knows it.
fn raise() -> Option<usize> {
    let resource = Resource::RLIMIT_NOFILE;
    let (soft, hard) = getrlimit(resource).ok()?;
    let limit = match setrlimit(resource, hard, hard) {
        Ok(()) => hard,
        Err(_) => soft,
    };
    Some(usize::try_from(limit).unwrap_or(usize::MAX))
}

/// What is not for callers: names are counted as one address each.
fn kept_back(config: &Config) -> usize {
    let of_service = |service: &Service| {
        let useful = config.limits.max_in_flight_calls / service.max_streams_per_connection + 1;
        service.endpoints.len() * service.max_connections_per_address.min(useful)
    };
    let tools: usize = config.services.values().map(of_service).sum();
    OWN + admin::MAX_CONNECTIONS + tools
}

/// Half of the limit at least, whatever tools might need.
fn for_callers(limit: usize, kept: usize, wanted: usize) -> usize {
    let free = limit - kept.min(limit / 2);
    wanted.min(free).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_get_what_is_left_and_half_at_least() {
        assert_eq!(for_callers(1 << 20, 1000, 4096), 4096);
        assert_eq!(for_callers(5096, 1000, 4096), 4096);
        assert_eq!(for_callers(5095, 1000, 4096), 4095);
        assert_eq!(for_callers(1024, 176, 4096), 848);
        assert_eq!(for_callers(200, 176, 4096), 100);
        assert_eq!(for_callers(0, 176, 4096), 1);
        assert_eq!(for_callers(usize::MAX, 176, 1), 1);
    }

    #[test]
    fn tools_are_given_the_connections_that_they_may_have() {
        let text = "[limits]\nmax_in_flight_calls = 1000\n\
                    [services.a]\nendpoints = [\"http://a\", \"http://b\"]\n\
                    [services.b]\nendpoint = \"http://c\"\nmax_connections_per_address = 3\n";
        let config = Config::parse(text).unwrap();
        let own = kept_back(&Config::default());
        assert_eq!(kept_back(&config), own + 2 * 11 + 3);
    }
}
