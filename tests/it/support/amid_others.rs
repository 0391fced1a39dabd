//! One call of a hostile tool amid well-behaved ones of the same service: what
//! came of it, and that no other suffered.

use fanfare::{catalog::Catalog, config::Config, pb};
use tokio::time::timeout;

use super::{
    Seen, answered, call,
    hostile::{Hostile, Script},
    lost,
    pipes::{self, Client},
    process::PATIENCE,
    result, seen,
};

/// What a reply does to the connection that it comes on.
#[derive(Clone, Copy, PartialEq)]
pub enum Connection {
    Stays,
    /// Calls in flight finish on it, later ones need another.
    Drains,
    Breaks,
}

/// A client of a server whose tools are all at `service`.
pub async fn client_of(service: &Hostile, limits: &str) -> Client {
    let address = service.address;
    let mut toml =
        format!("[limits]\n{limits}\n[services.hostile]\nendpoint = \"http://{address}\"\n");
    for tool in ["hostile", "sibling", "next"] {
        toml.push_str(&format!("[tools.{tool}]\nservice = \"hostile\"\n"));
    }
    let config = Config::parse(&toml).expect("a configuration");
    let catalog = Catalog::new(&config);
    pipes::client(&config, catalog).await
}

/// The result of `hostile`, a call that is answered by `script`. Another call is
/// in flight on the same connection meanwhile, a third comes after it; how these
/// must end follows from `connection`.
pub async fn result_amid_others(
    what: &str,
    script: Script,
    connection: Connection,
    hostile: pb::ToolCall,
) -> pb::ToolExecutionResult {
    let service = Hostile::start(script).await;
    let client = client_of(&service, "").await;
    let sibling = tokio::spawn({
        let client = client.clone();
        async move { result(&client, call("", "sibling")).await }
    });
    service.has_sibling().await;

    let hostile = result(&client, hostile).await;

    service.release();
    let sibling = seen(&sibling.await.expect("the sibling"));
    let expected = match connection {
        Connection::Stays | Connection::Drains => answered(),
        Connection::Breaks => lost("maybe"),
    };
    assert_eq!(sibling, expected, "the sibling of: {what}");
    let next = next_result(&client, connection).await;
    assert_eq!(next, answered(), "the call after: {what}");
    let connections = match connection {
        Connection::Stays => 1,
        // A call that was left out is sent again at once, and left out again.
        Connection::Drains => 1 + hostile.attempts as usize,
        Connection::Breaks => 2,
    };
    assert_eq!(service.connections(), connections, "connections: {what}");
    hostile
}

/// The result of the next call. On a connection that is about to close it may
/// come too late to be sent; then it says so.
async fn next_result(client: &Client, connection: Connection) -> Seen {
    let next = async {
        loop {
            let next = seen(&result(client, call("", "next")).await);
            if connection == Connection::Stays || next != lost("not_started") {
                return next;
            }
        }
    };
    timeout(PATIENCE, next).await.expect("later calls to work")
}

/// The same for many scripts that all must come to the same.
pub async fn check(
    expected: Seen,
    connection: Connection,
    scripts: impl IntoIterator<Item = (&'static str, Script)>,
) {
    for (what, script) in scripts {
        let hostile = call("", "hostile");
        let result = result_amid_others(what, script, connection, hostile).await;
        assert_eq!(seen(&result), expected, "{what}");
        // What was refused unseen is sent once more.
        let attempts = if expected == lost("not_started") {
            2
        } else {
            1
        };
        assert_eq!(result.attempts, attempts, "{what}");
    }
}
