//! Answers that are streams.

use fanfare::catalog::Catalog;

use super::*;
use crate::support::tools::{Scripted, catalog};

const STREAM: &str = "[tools.stream]\nservice = 'a'\nstream = 'collect'\n\
                      remote = 'fanfare.v1.OrchestratorService/StreamExecuteTools'\n";

async fn client_of_orchestrator(tools: Catalog, more: &str) -> Client {
    let server = Server::orchestrator(&Config::default(), tools).await;
    client_of(server, &format!("{STREAM}{more}")).await
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_collected_in_its_order() {
    let tools = catalog([
        ("fast", Scripted::answers_after(ms(10))),
        ("slow", Scripted::answers_after(ms(500))),
    ]);
    let client = client_of_orchestrator(tools, "").await;
    let arguments = json!({"calls": [{"name": "slow"}, {"name": "fast"}]});
    let start = Instant::now();
    let Seen::Ok(list) = seen(&result(&client, call_with("", "stream", arguments)).await) else {
        panic!("no list");
    };
    assert!(start.elapsed() >= ms(500));
    let list = list.as_array().unwrap();
    assert_eq!(list.len(), 3);
    assert_eq!(list[0]["completion"]["name"], "fast");
    assert_eq!(list[1]["completion"]["name"], "slow");
    assert_eq!(list[2]["aggregate"]["results"].as_array().unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_fails_is_a_failed_call_and_learns_of_its_deadline() {
    let running = Running::default();
    let tools = catalog([
        ("fast", Scripted::answers_after(ms(10))),
        ("hang", Scripted::hangs(&running)),
    ]);
    let client = client_of_orchestrator(tools, "timeout = '2s'\n").await;
    // Without calls the request is wrong.
    let wrong = result(&client, call("", "stream")).await;
    assert_eq!(
        seen(&wrong),
        failed(Code::InvalidArgument, "TOOL_FAILED", "done")
    );
    // It learns of the deadline, and answers before it.
    let arguments = json!({"calls": [{"name": "fast"}, {"name": "hang"}]});
    let start = Instant::now();
    let call = call_with("", "stream", arguments);
    let Seen::Ok(list) = seen(&result(&client, call).await) else {
        panic!("no list");
    };
    assert!(start.elapsed() < ms(2000));
    assert_eq!(list[1]["completion"]["error"]["code"], 4);
    while running.count() > 0 {
        sleep(ms(1)).await;
    }
}
