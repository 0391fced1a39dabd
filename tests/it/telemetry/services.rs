use std::{future::pending, sync::Arc};

use fanfare::{catalog::Catalog, config::Config, pb};
use tokio::time::sleep;

use crate::support::{
    SECOND, call,
    hostile::{Hostile, Step, head},
    ms,
    network::demo_service,
    observed::Observed,
    page::Page,
    pipes::Client,
    process::Process,
    request,
    service::Service,
};

const TOML: &str = "[tools.tool]\nservice = 'tools'\ntimeout = '2s'\nmax_concurrency = 1\n\
    max_queue = 1\n[services.tools]\nendpoint = 'http://tools'\n";

async fn execute(mut client: Client, calls: Vec<pb::ToolCall>) {
    client.execute_tools(request(calls)).await.expect("an OK");
}

/// Of its service: the breaker's state, how often it opened, connections.
fn gauges(page: &Page) -> [f64; 3] {
    ["breaker_state", "breaker_openings_total", "connections"].map(|name| {
        let service = [("fanfare_tool_service", "tools")];
        let all = page.all(&format!("fanfare_tool_service_{name}"), &service);
        assert_eq!(all.len(), 1, "{name}");
        all[0].value
    })
}

/// Of the tool's own breaker: its state, and how often it opened.
fn own_gauges(page: &Page) -> [f64; 2] {
    ["state", "openings_total"].map(|name| {
        let tool = [("gen_ai_tool_name", "tool")];
        page.value(&format!("fanfare_tool_breaker_{name}"), &tool)
    })
}

fn rejections(page: &Page, reason: &str) -> f64 {
    let labels = [("gen_ai_tool_name", "tool"), ("error_type", reason)];
    page.value("fanfare_tool_rejections_total", &labels)
}

#[tokio::test(start_paused = true)]
async fn what_is_left_alone_is_seen_to_be() {
    let service = Service::start(|call| async move {
        match call.id.as_str() {
            "hang" => pending().await,
            _ => Ok(()),
        }
    })
    .await;
    let config = Config::parse(TOML).unwrap();
    let catalog = Catalog::with_connect(&config, |_| Arc::new(service.clone()));
    let observed = Observed::of(&config, catalog, &[]).await;
    let page = || observed.observer.page();
    let run = |calls| execute(observed.client.clone(), calls);
    assert_eq!(gauges(&page()), [0.0, 0.0, 0.0]);

    // The third one finds no place, not even to wait.
    run(vec![call("", "tool"); 3]).await;
    assert_eq!(gauges(&page()), [0.0, 0.0, 1.0]);
    assert_eq!(rejections(&page(), "OVERLOADED"), 1.0);

    assert_eq!(own_gauges(&page()), [0.0, 0.0]);

    let mut tries = 0;
    while own_gauges(&page())[0] == 0.0 {
        run(vec![call("hang", "tool")]).await;
        tries += 1;
        assert!(tries < 100);
    }
    assert_eq!(own_gauges(&page()), [2.0, 1.0]);
    run(vec![call("", "tool")]).await;
    assert_eq!(rejections(&page(), "CIRCUIT_OPEN"), 1.0);

    sleep(SECOND).await;
    let trial = tokio::spawn(run(vec![call("hang", "tool")]));
    sleep(ms(1)).await;
    assert_eq!(own_gauges(&page()), [1.0, 1.0]);
    trial.await.unwrap();
    assert_eq!(gauges(&page()), [0.0, 0.0, 1.0]);

    sleep(SECOND).await;
    run(vec![call("", "tool")]).await;
    assert_eq!(own_gauges(&page()), [0.0, 1.0]);
    service.kill();
    while gauges(&page())[0] == 0.0 {
        run(vec![call("", "tool")]).await;
        tries += 1;
        assert!(tries < 100);
    }
    assert_eq!(gauges(&page()), [2.0, 1.0, 0.0]);
    service.start_again();
    sleep(SECOND).await;
    run(vec![call("", "tool")]).await;
    assert_eq!(gauges(&page()), [0.0, 1.0, 1.0]);
    observed.end().await;
}

#[tokio::test]
async fn addresses_that_fail_are_counted() {
    let healthy = Process::demo_tools().await;
    let breaking = Hostile::start(vec![Step::Head(head()), Step::Cut]).await;
    let endpoints = [healthy.address, breaking.address];
    let endpoints = endpoints.map(|address| format!("'http://{address}'"));
    let keys = "eject_after_failures = 3\nejection_time = '1h'\nmax_ejection_time = '1h'";
    let toml = demo_service(&format!("[{}]", endpoints.join(", ")), keys);
    let toml = toml + "[tools.hostile]\nservice = 'demo'";
    let config = Config::parse(&toml).unwrap();
    let observed = Observed::of(&config, Catalog::new(&config), &[]).await;
    let ejected = || {
        let page = observed.observer.page();
        page.sum("fanfare_tool_service_ejected_addresses", &[])
    };
    assert_eq!(ejected(), 0.0);

    let mut tries = 0;
    while ejected() == 0.0 {
        execute(observed.client.clone(), vec![call("", "hostile")]).await;
        tries += 1;
        assert!(tries < 1000);
    }

    assert_eq!(ejected(), 1.0);
}
