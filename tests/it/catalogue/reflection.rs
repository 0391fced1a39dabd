//! The methods of gRPC services, by server reflection: as different servers answer, and
//! as none should.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use fanfare::{catalog::discovery::Discovery, config::Config, json, pb, server::Server};
use prost::Message as _;
use prost_types::{FileDescriptorProto, MethodOptions, method_options::IdempotencyLevel};
use tokio::time::timeout;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;

use super::{listed, names};
use crate::support::{
    pipes::{self, Client},
    process::{PATIENCE, Process},
    reflecting::{Found, file, message, method, of_files, serve, service},
};

/// A client of a server of which that is the service `a`.
async fn start(address: std::net::SocketAddr, settings: &str) -> Client {
    let toml =
        format!("[services.a]\nendpoint = 'http://{address}'\nprotocol = 'grpc'\n{settings}");
    let config = Config::parse(&toml).unwrap();
    let discovery = Discovery::new(&config);
    let server = Arc::new(Server::following(&config, discovery.snapshots()).await);
    tokio::spawn(discovery.run());
    pipes::client_of(&server).await
}

/// Waits until it has tools of these names.
async fn has(client: &Client, expected: &[&str]) {
    let mut last = Vec::new();
    let reached = timeout(PATIENCE, async {
        while last != expected {
            last = names(client).await;
            tokio::task::yield_now().await;
        }
    });
    if reached.await.is_err() {
        panic!("{last:?}, not {expected:?}");
    }
}

/// `p.Books/GetBook` of one file, and `p.Other/Get` of another.
fn books() -> Vec<FileDescriptorProto> {
    let mut books = file("books.proto", &[]);
    books.message_type = vec![message("Book", None), message("Get", None)];
    let mut get = method("GetBook", "Get", "Book");
    let mut options = MethodOptions::default();
    options.set_idempotency_level(IdempotencyLevel::NoSideEffects);
    get.options = Some(options);
    books.service = vec![service("Books", vec![get])];
    let mut other = file("other.proto", &[]);
    other.message_type = vec![message("O", None)];
    other.service = vec![service("Other", vec![method("Get", "O", "O")])];
    vec![books, other]
}

#[tokio::test]
async fn methods_are_tools_by_either_version() {
    for version in ["v1", "v1alpha"] {
        let address = serve(Some(version), of_files(books())).await;
        let client = start(address, "expose = ['p.Books/*']").await;
        has(&client, &["get_book"]).await;
        let tool = listed(&client).await.remove(0);
        assert!(tool.idempotent && tool.read_only);
        let schema = json::decode_struct(&tool.input_schema.unwrap()).unwrap();
        assert_eq!(schema["properties"]["value"]["type"], "string");
        assert!(tool.output_schema.is_some());
    }
}

/// A service's file imports that of another, with which it shares messages.
#[tokio::test]
async fn what_is_described_but_not_served_is_no_tool() {
    let tools = Process::demo_tools().await;
    let client = start(tools.address, "expose = ['*']").await;
    has(&client, &["call_tool", "check", "list_tools"]).await;
}

/// Nobody needs the descriptors of what nobody wants.
#[tokio::test]
async fn only_what_is_exposed_is_asked_for() {
    let files = of_files(books());
    let (asked, count) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (others, all) = (Arc::clone(&asked), Arc::clone(&count));
    let address = serve(Some("v1"), move |question| {
        all.fetch_add(1, Ordering::SeqCst);
        if question == MessageRequest::FileContainingSymbol("p.Other".to_owned()) {
            others.fetch_add(1, Ordering::SeqCst);
        }
        files(question)
    })
    .await;
    let settings = "expose = ['p.Books/*']\n[tools.t]\nservice = 'a'\nremote = 'p.Books/GetBook'";
    let client = start(address, settings).await;
    has(&client, &["t"]).await;
    let described = async {
        while listed(&client).await[0].input_schema.is_none() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, described).await.unwrap();
    assert_eq!(
        (asked.load(Ordering::SeqCst), count.load(Ordering::SeqCst)),
        (0, 2)
    );
}

/// A file with `p.S/M`, whose message is in another one, which that one imports.
fn with_import() -> (FileDescriptorProto, FileDescriptorProto) {
    let mut user = file("user.proto", &["imported.proto"]);
    user.message_type = vec![message("User", Some("Imported")), message("Alone", None)];
    let methods = vec![method("M", "User", "Alone"), method("N", "Alone", "Alone")];
    user.service = vec![service("S", methods)];
    let mut imported = file("imported.proto", &[]);
    imported.message_type = vec![message("Imported", None)];
    (user, imported)
}

#[tokio::test]
async fn imports_that_were_not_sent_are_asked_for() {
    let (user, imported) = with_import();
    // By its name, and by what is in it where the import has another name.
    for name in ["imported.proto", "api/imported.proto"] {
        let mut imported = imported.clone();
        imported.name = Some(name.to_owned());
        let address = serve(Some("v1"), of_files(vec![user.clone(), imported])).await;
        let client = start(address, "expose = ['p.S/*']").await;
        has(&client, &["m", "n"]).await;
    }
}

#[tokio::test]
async fn an_import_that_is_not_there_costs_what_needs_it() {
    let (user, imported) = with_import();
    let address = serve(Some("v1"), of_files(vec![user.clone()])).await;
    let client = start(address, "expose = ['p.S/*']").await;
    has(&client, &["n"]).await;

    // What grpc-go sends in place of a file that it does not have.
    let files = of_files(vec![user]);
    let placeholder = FileDescriptorProto {
        name: Some("imported.proto".to_owned()),
        ..FileDescriptorProto::default()
    };
    let address = serve(Some("v1"), move |question| match files(question)? {
        Found::Nothing => Some(Found::Files(vec![placeholder.encode_to_vec()])),
        found => Some(found),
    })
    .await;
    let client = start(address, "expose = ['p.S/*']").await;
    has(&client, &["n"]).await;
    drop(imported);
}

#[tokio::test]
async fn streams_are_no_tools_unless_they_are_collected() {
    let mut streams = file("s.proto", &[]);
    streams.message_type = vec![message("A", None)];
    let mut methods = vec![
        method("Up", "A", "A"),
        method("Down", "A", "A"),
        method("No", "A", "A"),
    ];
    methods[0].client_streaming = Some(true);
    methods[1].server_streaming = Some(true);
    streams.service = vec![service("S", methods)];
    let address = serve(Some("v1"), of_files(vec![streams])).await;
    let client = start(address, "expose = ['p.S/*']").await;
    has(&client, &["no"]).await;
    let collected = "expose = ['p.S/*']\ntool_defaults.stream = 'collect'";
    let client = start(address, collected).await;
    has(&client, &["down", "no"]).await;
}

/// A service of which the methods can be learnt, beside one that answers with this, of which
/// the log says `said`. The first is as ever.
async fn beside(
    version: Option<&str>,
    answer: impl Fn(MessageRequest) -> Option<Found> + Send + Sync + 'static,
    said: &str,
) {
    let good = serve(Some("v1"), of_files(books())).await;
    let bad = serve(version, answer).await;
    let server = Process::serve(&format!(
        "[server]\nlisten = '127.0.0.1:0'\n\
         [services.a]\nendpoint = 'http://{good}'\nprotocol = 'grpc'\nexpose = ['p.Books/*']\n\
         [services.b]\nendpoint = 'http://{bad}'\nprotocol = 'grpc'\nexpose = ['*']\n\
         prefix = 'b_'\n[tools.t]\nservice = 'b'\nremote = 'p.S/M'"
    ))
    .await;
    let says = |line: &serde_json::Value| {
        let text = format!("{} {}", line["message"], line["reason"]);
        line["service"] == "b" && text.contains(said)
    };
    server.log().wait_for(said, says).await;
    let client = server.client().await;
    let reached = timeout(PATIENCE, async {
        loop {
            let request = pb::ListToolsRequest::default();
            let answer = client.clone().list_tools(request).await.unwrap();
            let tools = answer.into_inner().tools.into_iter();
            if tools.map(|it| it.name).eq(["get_book", "t"]) {
                break;
            }
        }
    });
    reached.await.expect("the tool of the good service");
}

#[tokio::test]
async fn nonsense_harms_nobody_else() {
    beside(None, |_| None, "it has no server reflection").await;
    beside(Some("v1"), |_| None, "it has no server reflection").await;
    beside(Some("v1"), |_| Some(Found::Nothing), "no list of services").await;
    let nonsense = || vec![vec![0xff; 100], Vec::new()];
    let other = "an answer to another question";
    beside(Some("v1"), move |_| Some(Found::Files(nonsense())), other).await;
    let described_by = |file: Vec<u8>| {
        move |question| match question {
            MessageRequest::ListServices(_) => Some(Found::Services(vec!["p.S".to_owned()])),
            _ => Some(Found::Files(vec![file.clone(), Vec::new()])),
        }
    };
    let unreadable = described_by(vec![0xff; 100]);
    beside(Some("v1"), unreadable, "in its descriptors").await;
    // More than it may have.
    beside(Some("v1"), described_by(vec![0; 17 << 20]), "reflection: ").await;
    let long = |question| match question {
        MessageRequest::ListServices(_) => {
            let names = vec!["x".repeat(100_000), String::new()];
            Some(Found::Services(names))
        }
        _ => Some(Found::Nothing),
    };
    beside(Some("v1"), long, "left out a tool").await;
}

/// Each file imports another one.
#[tokio::test]
async fn endless_imports_come_to_an_end() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let (user, _) = with_import();
    let address = serve(Some("v1"), move |question| {
        let number = count.fetch_add(1, Ordering::SeqCst);
        match question {
            MessageRequest::ListServices(_) => Some(Found::Services(vec!["p.S".to_owned()])),
            MessageRequest::FileContainingSymbol(_) => {
                Some(Found::Files(vec![user.encode_to_vec()]))
            }
            MessageRequest::FileByFilename(name) => {
                let next = format!("{number}.proto");
                Some(Found::Files(vec![file(&name, &[&next]).encode_to_vec()]))
            }
            _ => None,
        }
    })
    .await;
    let client = start(address, "expose = ['p.S/*']").await;
    has(&client, &["n"]).await;
    assert!(asked.load(Ordering::SeqCst) < 100);
}
