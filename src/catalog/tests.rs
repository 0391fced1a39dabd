//! What was replaced goes, whatever reads metrics.

use std::{
    io,
    sync::{Arc, Weak},
};

use futures_util::{FutureExt as _, future::BoxFuture};

use super::{
    snapshot::{Publisher, Snapshot},
    *,
};
use crate::{
    net::Io,
    telemetry::{Telemetry, settings::Settings},
};

struct Refused;

impl Connect for Refused {
    fn connect(&self) -> BoxFuture<'static, io::Result<Box<dyn Io>>> {
        std::future::ready(Err(io::ErrorKind::ConnectionRefused.into())).boxed()
    }
}

/// With one tool of that name at a service of that name.
fn snapshot(name: &str) -> Snapshot {
    let toml = format!(
        "[services.at_{name}]\nendpoint = 'http://tools'\n\
         [tools.{name}]\nservice = 'at_{name}'\n"
    );
    let config = Config::parse(&toml).unwrap();
    Snapshot {
        catalog: Catalog::with_connect(&config, |_| Arc::new(Refused)),
        limits: config.limits,
    }
}

/// Everything that a catalogue has with a life of its own.
fn everything(catalog: &Catalog) -> Vec<Box<dyn Fn() -> bool>> {
    fn alive<T: ?Sized + 'static>(of: &Arc<T>) -> Box<dyn Fn() -> bool> {
        let weak: Weak<T> = Arc::downgrade(of);
        Box::new(move || weak.strong_count() > 0)
    }
    let mut all = Vec::new();
    for entry in catalog.tools.values() {
        all.extend([alive(&entry.tool), alive(&entry.gauges)]);
        all.extend(entry.remote.as_ref().map(|remote| alive(&remote.breakers)));
    }
    for service in catalog.services.values() {
        all.extend([alive(&service.upstream), alive(&service.breakers)]);
    }
    all
}

#[tokio::test(start_paused = true)]
async fn nothing_keeps_what_was_replaced() {
    let publisher = Publisher::new(snapshot("first"));
    let of_first = everything(&publisher.snapshots().current().catalog);
    assert_eq!(of_first.len(), 5);
    let settings = Settings::read(|variable| match variable {
        "OTEL_TRACES_EXPORTER" => Some("none".to_owned()),
        "OTEL_METRICS_EXPORTER" => Some("prometheus".to_owned()),
        _ => None,
    });
    let settings = settings.unwrap();
    let telemetry = Telemetry::start(&settings, 1);
    telemetry.watch(publisher.snapshots());
    let page = || telemetry.page().unwrap().unwrap();
    // Something runs for it until it is gone.
    publisher.snapshots().current().catalog.connect().await;
    assert!(page().contains("at_first"));
    assert!(of_first.iter().all(|is_alive| is_alive()));

    publisher.replace(snapshot("second"));
    let after = page();
    assert!(after.contains("at_second") && !after.contains("at_first"));
    assert!(!of_first.iter().any(|is_alive| is_alive()));
}
