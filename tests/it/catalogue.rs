//! Services that are asked which tools they have.

mod reflection;
mod refreshing;
mod unmatched;

use std::sync::Arc;

use fanfare::{
    catalog::{discovery::Discovery, snapshot::Snapshots},
    config::Config,
    json, pb,
    server::Server,
};
use serde_json::json;
use tonic::Code;

use crate::support::{
    Seen, call, call_with,
    described::{Described, tool},
    failed, ms,
    pipes::{self, Client},
    result, seen,
};

/// A server whose only service, `a`, is `service`, under these settings. It has asked it.
pub async fn start(service: &Described, toml: &str) -> (Client, Snapshots) {
    let (client, snapshots) = start_unasked(service, toml).await;
    // The clock is paused: this is as long as asking takes.
    tokio::time::sleep(ms(1)).await;
    (client, snapshots)
}

async fn start_unasked(service: &Described, toml: &str) -> (Client, Snapshots) {
    let toml = format!("services.a.endpoint = 'http://tools'\n{toml}");
    let config = Config::parse(&toml).unwrap();
    let pipes = service.pipes().await;
    let discovery = Discovery::with_connect(&config, |_| pipes.clone());
    let snapshots = discovery.snapshots();
    tokio::spawn(discovery.run());
    let server = Arc::new(Server::following(&config, snapshots.clone()).await);
    (pipes::client_of(&server).await, snapshots)
}

pub async fn listed(client: &Client) -> Vec<pb::Tool> {
    let request = pb::ListToolsRequest::default();
    let answer = client.clone().list_tools(request).await;
    answer.unwrap().into_inner().tools
}

pub async fn names(client: &Client) -> Vec<String> {
    let tools = listed(client).await.into_iter();
    tools.map(|tool| tool.name).collect()
}

/// What a call of `name` comes to: the name that the service was asked for.
pub async fn called(client: &Client, name: &str) -> Seen {
    seen(&result(client, call("", name)).await)
}

pub fn reached(remote: &str) -> Seen {
    Seen::Ok(json!({ "called": remote }))
}

pub fn unknown() -> Seen {
    failed(Code::NotFound, "UNKNOWN_TOOL", "not_started")
}

#[tokio::test(start_paused = true)]
async fn what_a_service_has_are_tools() {
    let service = Described::new(&["search", "delete_all", "two words", "other"]);
    let settings = "services.a.expose = ['s*', 'two*', 'd*']\nservices.a.hide = ['delete*']\n\
                    services.a.prefix = 'web.'\nservices.a.tool_defaults.timeout = '7s'";
    let (client, _) = start(&service, settings).await;

    let tools = listed(&client).await;
    let [search, two_words] = &tools[..] else {
        panic!("{tools:?}");
    };
    assert_eq!(search.name, "web.search");
    assert_eq!(search.description, "does search");
    assert_eq!(search.service, "a");
    assert_eq!(search.timeout.unwrap().seconds, 7);
    assert_eq!(two_words.name, "web.two_words");
    assert_eq!(called(&client, "web.search").await, reached("search"));
    assert_eq!(called(&client, "web.two_words").await, reached("two words"));
    assert_eq!(called(&client, "search").await, unknown());
    assert_eq!(called(&client, "other").await, unknown());
}

#[tokio::test(start_paused = true)]
async fn a_section_gives_a_tool_a_name_and_a_policy() {
    let service = Described::new(&[]);
    let schema = json!({"type": "object", "properties": {"q": {"type": "string"}}});
    let schema = json::encode_struct(schema.as_object().unwrap());
    let described = |name| pb::Tool {
        title: "A title".to_owned(),
        idempotent: true,
        read_only: true,
        timeout: Some(prost_types::Duration {
            seconds: 3,
            nanos: 0,
        }),
        input_schema: Some(schema.clone()),
        ..tool(name)
    };
    service.say(Ok(vec![described("x"), described("y"), described("z")]));
    let settings = "services.a.expose = ['*']\n\
                    [tools.said]\nservice = 'a'\nremote = 'x'\n\
                    [tools.y]\nservice = 'a'\ndescription = 'ours'\ntimeout = '2s'\n\
                    idempotent = false";
    let (client, _) = start(&service, settings).await;

    let tools = listed(&client).await;
    let [said, y, z] = &tools[..] else {
        panic!("{tools:?}");
    };
    assert_eq!(called(&client, "said").await, reached("x"));
    let seconds = |tool: &pb::Tool| tool.timeout.unwrap().seconds;
    assert_eq!((seconds(said), seconds(y), seconds(z)), (3, 2, 3));
    assert_eq!(
        (said.idempotent, y.idempotent, z.idempotent),
        (true, false, true)
    );
    assert_eq!(said.description, "does x");
    assert_eq!(y.description, "ours");
    for tool in [said, y, z] {
        assert_eq!((tool.title.as_str(), tool.read_only), ("A title", true));
        assert_eq!(tool.input_schema, Some(schema.clone()));
    }
}

/// Whatever is wrong with it.
#[tokio::test(start_paused = true)]
async fn a_bad_tool_is_left_out_alone() {
    let service = Described::new(&[]);
    let nonsense = pb::Tool {
        input_schema: Some(bytes::Bytes::from_static(b"\xff\xff")),
        ..tool("nonsense")
    };
    let huge = pb::Tool {
        description: "d".repeat(100_000),
        ..tool("huge")
    };
    let long = "n".repeat(600);
    let tools = vec![
        tool("good"),
        nonsense,
        tool(""),
        tool("twice"),
        tool("twice"),
        tool(&long),
        huge,
    ];
    service.say(Ok(tools));
    let (client, _) = start(&service, "services.a.expose = ['*']").await;

    let tools = listed(&client).await;
    let names: Vec<_> = tools.iter().map(|tool| tool.name.as_str()).collect();
    assert_eq!(names, ["good", "huge"]);
    assert_eq!(tools[1].description.len(), 16 << 10);
    let arguments = call_with("", "good", json!({"any": "thing"}));
    assert_eq!(seen(&result(&client, arguments).await), reached("good"));
}

/// Without `expose` nobody is asked, and a tool may have any name at its service.
#[tokio::test(start_paused = true)]
async fn a_service_of_before_is_not_asked() {
    let service = Described::new(&["x"]);
    let settings = "[tools.x]\nservice = 'a'\n[tools.y]\nservice = 'a'\nremote = 'x'";
    let (client, _) = start(&service, settings).await;
    assert_eq!(service.asked(), 0);
    assert_eq!(names(&client).await, ["x", "y"]);
    assert_eq!(called(&client, "x").await, reached("x"));
    assert_eq!(called(&client, "y").await, reached("x"));
}

/// Over sockets, with a service that can't be reached beside one that can.
#[tokio::test]
async fn the_start_waits_for_nobody() {
    let service = Described::new(&["search"]);
    let there = service.listen().await;
    let away = crate::support::sockets::black_hole().await;
    let toml = format!(
        "[services.a]\nendpoint = 'http://{there}'\nexpose = ['*']\n\
         [services.b]\nendpoint = 'http://{}'\nexpose = ['*']\nprotocol = 'grpc'\n\
         [tools.known]\nservice = 'b'\nremote = 'p.S/M'\n",
        away.address
    );
    let config = Config::parse(&toml).unwrap();
    let discovery = Discovery::new(&config);
    let snapshots = discovery.snapshots();
    let server = Arc::new(Server::following(&config, snapshots).await);
    let client = pipes::client_of(&server).await;
    // Nobody was asked yet.
    assert_eq!(names(&client).await, ["known"]);
    let unavailable = failed(Code::Unavailable, "TOOL_UNAVAILABLE", "not_started");
    let known = result(&client, call("", "known")).await;
    assert_eq!(seen(&known), unavailable);
    assert_eq!(called(&client, "search").await, unknown());

    tokio::spawn(discovery.run());
    service.asked_times(1).await;
    while names(&client).await.len() < 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(names(&client).await, ["known", "search"]);
    assert_eq!(called(&client, "search").await, reached("search"));
    assert_eq!(called(&client, "known").await, unavailable);
}
