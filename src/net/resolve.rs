//! The addresses behind the endpoints of a service. Each name's last good answer stays in
//! use until a better one arrives: a name server that fails or answers with nothing makes
//! no service disappear.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
};

use futures_util::future::join_all;

use super::{
    address::{Address, Endpoint},
    network::Network,
};
use crate::core::{observer::Target, overflow::Overflow};

/// The most addresses of one name; others are left out, since each may get connections.
const MAX_ADDRESSES: usize = 256;

/// The endpoints of a service, each with its addresses.
pub(super) struct Endpoints(Vec<Known>);

struct Known {
    endpoint: Arc<Endpoint>,
    addresses: Vec<Arc<Address>>,
    /// Whether the last look-up failed.
    failed: bool,
    /// Whether it has more addresses than are used.
    has_too_many: bool,
}

/// The answer for one endpoint: its addresses, or why there are none.
pub(super) type Answer = Result<Vec<SocketAddr>, String>;

impl Endpoints {
    pub(super) fn new(endpoints: impl Iterator<Item = Endpoint>) -> Self {
        let known = |endpoint| {
            let endpoint = Arc::new(endpoint);
            let address = |socket| Arc::new(Address::new(socket, Arc::clone(&endpoint)));
            Known {
                addresses: endpoint.literal().map(address).into_iter().collect(),
                endpoint,
                failed: false,
                has_too_many: false,
            }
        };
        Self(endpoints.map(known).collect())
    }

    /// What telemetry calls the first endpoint.
    pub(super) fn target(&self) -> Target {
        let first = self.0.first().map(|known| known.endpoint.target.clone());
        first.unwrap_or_else(|| Target::new("", 0))
    }

    /// How many connections to them were replaced because of cancelled calls.
    pub(super) fn worn(&self) -> u64 {
        let worn = self.0.iter().map(|known| &known.endpoint.worn);
        worn.map(|worn| worn.load(Ordering::Relaxed)).sum()
    }

    /// The addresses that are known.
    pub(super) fn addresses(&self) -> impl Iterator<Item = &Arc<Address>> {
        self.0.iter().flat_map(|known| &known.addresses)
    }

    /// Whether any endpoint has a host name.
    pub(super) fn have_names(&self) -> bool {
        self.names().next().is_some()
    }

    fn names(&self) -> impl Iterator<Item = &Known> {
        let named = |known: &&Known| known.endpoint.literal().is_none();
        self.0.iter().filter(named)
    }

    /// Looks up all names.
    pub(super) fn look_up(
        &self,
        network: &Arc<dyn Network>,
    ) -> impl Future<Output = Vec<Answer>> + use<> {
        let lookups: Vec<_> = self
            .names()
            .map(|known| network.resolve(&known.endpoint.host, known.endpoint.port))
            .collect();
        async move {
            let answer = |answer: std::io::Result<Vec<SocketAddr>>| match answer {
                Ok(addresses) if addresses.is_empty() => Err("it has no addresses".to_owned()),
                Ok(addresses) => Ok(addresses),
                Err(error) => Err(error.to_string()),
            };
            join_all(lookups).await.into_iter().map(answer).collect()
        }
    }

    /// Takes in the answers of [`Endpoints::look_up`]. Returns why a name has no addresses,
    /// if one has none at all.
    pub(super) fn update(&mut self, service: &str, answers: Vec<Answer>) -> Option<String> {
        let mut last_error = None;
        let named = |known: &&mut Known| known.endpoint.literal().is_none();
        for (known, answer) in self.0.iter_mut().filter(named).zip(answers) {
            let host = known.endpoint.host.as_str();
            let was_failed = std::mem::replace(&mut known.failed, answer.is_err());
            match answer {
                Ok(sockets) => {
                    if was_failed {
                        tracing::info!(service, host, "resolved again");
                    }
                    let found = different(sockets);
                    known.note_count(service, found.len());
                    known.addresses = merged(known, found);
                }
                Err(reason) => {
                    if !was_failed {
                        let kept = known.addresses.len();
                        tracing::warn!(service, host, %reason, kept, "can't resolve");
                    }
                    if known.addresses.is_empty() {
                        last_error = Some(format!("can't resolve {host}: {reason}"));
                    }
                }
            }
        }
        last_error
    }
}

impl Known {
    /// Warns once if it has more addresses than are used.
    fn note_count(&mut self, service: &str, addresses: usize) {
        let has_too_many = addresses > MAX_ADDRESSES;
        if has_too_many {
            Overflow::ResolvedAddresses.count();
        }
        if has_too_many && !self.has_too_many {
            let host = self.endpoint.host.as_str();
            let used = MAX_ADDRESSES;
            tracing::warn!(
                service,
                host,
                addresses,
                used,
                "a name has too many addresses"
            );
        }
        self.has_too_many = has_too_many;
    }
}

fn different(mut sockets: Vec<SocketAddr>) -> Vec<SocketAddr> {
    sockets.sort_unstable();
    sockets.dedup();
    sockets
}

/// The addresses of the answer; those that are known already are kept as they are.
fn merged(known: &Known, mut sockets: Vec<SocketAddr>) -> Vec<Arc<Address>> {
    sockets.truncate(MAX_ADDRESSES);
    let address = |socket| {
        let old = known.addresses.iter().find(|old| old.socket() == socket);
        old.map_or_else(
            || Arc::new(Address::new(socket, Arc::clone(&known.endpoint))),
            Arc::clone,
        )
    };
    sockets.into_iter().map(address).collect()
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, option, prelude::*};

    use super::*;
    use crate::config::Service;

    fn endpoints(uris: &[&str]) -> Endpoints {
        let endpoint = |uri: &&str| {
            let uri = uri.parse().unwrap();
            Endpoint::new(&uri, &Service::new(uri.clone()))
        };
        Endpoints::new(uris.iter().map(endpoint))
    }

    fn sockets(endpoints: &Endpoints) -> Vec<String> {
        let sockets = endpoints.addresses().map(|address| address.socket());
        sockets.map(|socket| socket.to_string()).collect()
    }

    fn answer(sockets: &[&str]) -> Answer {
        Ok(sockets
            .iter()
            .map(|socket| socket.parse().unwrap())
            .collect())
    }

    #[test]
    fn literal_addresses_need_no_name_server() {
        let endpoints = endpoints(&["http://10.0.0.1", "https://[::1]", "http://10.0.0.2:5"]);
        let all = ["10.0.0.1:80", "[::1]:443", "10.0.0.2:5"];
        assert_eq!(sockets(&endpoints), all);
        assert!(!endpoints.have_names());
    }

    #[test]
    fn the_last_good_answer_of_each_name_stays() {
        let mut endpoints = endpoints(&["http://a:1", "http://10.0.0.9:9", "http://b:2"]);
        let failed = || Err("SERVFAIL".to_owned());
        assert!(endpoints.have_names());
        assert_eq!(sockets(&endpoints), ["10.0.0.9:9"]);

        let both = vec![
            answer(&["10.0.0.2:1", "10.0.0.1:1", "10.0.0.2:1"]),
            failed(),
        ];
        assert!(endpoints.update("s", both).unwrap().contains('b'));
        assert_eq!(
            sockets(&endpoints),
            ["10.0.0.1:1", "10.0.0.2:1", "10.0.0.9:9"]
        );

        let moved = vec![failed(), answer(&["10.0.1.1:2"])];
        assert_eq!(endpoints.update("s", moved), None);
        let all = ["10.0.0.1:1", "10.0.0.2:1", "10.0.0.9:9", "10.0.1.1:2"];
        assert_eq!(sockets(&endpoints), all);
    }

    #[test]
    fn an_address_that_stays_is_the_same() {
        let mut endpoints = endpoints(&["http://a:1"]);
        endpoints.update("s", vec![answer(&["10.0.0.1:1"])]);
        let before = Arc::clone(endpoints.addresses().next().unwrap());
        endpoints.update("s", vec![answer(&["10.0.0.0:1", "10.0.0.1:1"])]);
        assert!(
            endpoints
                .addresses()
                .any(|address| Arc::ptr_eq(address, &before))
        );
    }

    proptest! {
        /// Whatever name servers say: each name has its last good answer.
        #[test]
        fn no_answer_takes_addresses_away(
            rounds in vec([option::of(vec(0..9_u8, 1..5)), option::of(vec(0..9_u8, 1..5))], 1..20),
        ) {
            let mut endpoints = endpoints(&["http://a:1", "http://b:2"]);
            let mut last_good = [const { Vec::new() }; 2];
            for round in rounds {
                let ip = |last: u8, port| SocketAddr::from(([10, 0, 0, last], port));
                let mut answers = Vec::new();
                for (host, answer) in round.into_iter().enumerate() {
                    let port = host as u16 + 1;
                    let sockets = answer.map(|answer| answer.into_iter().map(|last| ip(last, port)));
                    let sockets = sockets.map(Iterator::collect::<Vec<_>>);
                    if let Some(sockets) = &sockets {
                        last_good[host] = sockets.clone();
                        last_good[host].sort_unstable();
                        last_good[host].dedup();
                    }
                    answers.push(sockets.ok_or_else(|| "NXDOMAIN".to_owned()));
                }
                let last_error = endpoints.update("s", answers);
                prop_assert_eq!(last_error.is_some(), last_good.iter().any(Vec::is_empty));
                let sockets: Vec<_> = endpoints.addresses().map(|it| it.socket()).collect();
                prop_assert_eq!(sockets, last_good.concat());
            }
        }
    }
}
