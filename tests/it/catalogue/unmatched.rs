//! A service that has nothing of what is to be exposed: it is said, and once.

use std::sync::{Arc, Mutex};

use prost_types::FileDescriptorProto;
use serde_json::Value;
use tokio::{sync::watch, time::timeout};
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;

use crate::support::{
    described::Described,
    process::{PATIENCE, Process, message},
    reflecting::{Found, file, method, of_files, serve, service},
};

/// The binary, with a service `a` under these settings.
async fn start(address: std::net::SocketAddr, settings: &str) -> Process {
    let toml = format!(
        "[server]\nlisten = '127.0.0.1:0'\n[services.a]\nendpoint = 'http://{address}'\n\
         refresh_interval = '1s'\n{settings}"
    );
    Process::serve(&toml).await
}

/// Whether it is a warning about `a` that has `part`.
fn warns(part: &str) -> impl Fn(&Value) -> bool {
    move |line| {
        let text = format!("{} {}", message(line), line["reason"]);
        line["level"] == "WARN" && line["service"] == "a" && text.contains(part)
    }
}

/// A file of which the service is `p.NAME`, with `Get`.
fn with_service(name: &str) -> FileDescriptorProto {
    let mut file = file(&format!("{name}.proto"), &[]);
    file.message_type = vec![crate::support::reflecting::message(
        &format!("{name}M"),
        None,
    )];
    let of_it = format!("{name}M");
    file.service = vec![service(name, vec![method("Get", &of_it, &of_it)])];
    file
}

#[tokio::test]
async fn what_is_not_there_is_said_once_for_each_change() {
    let has = Arc::new(Mutex::new(vec![with_service("Books")]));
    let (asked, mut counted) = watch::channel(0);
    let now = Arc::clone(&has);
    let address = serve(Some("v1"), move |question| {
        if matches!(question, MessageRequest::ListServices(_)) {
            asked.send_modify(|count| *count += 1);
        }
        of_files(now.lock().unwrap().clone())(question)
    })
    .await;
    let mut server = start(address, "protocol = 'grpc'\nexpose = ['p.Boks/*']").await;
    let nothing = "it has nothing to expose for p.Boks/* (did you mean p.Books/*?); it has p.Books";
    let log = server.log().clone();
    log.wait_for("what is wrong", warns(nothing)).await;
    let mut asked_again = async || {
        let target = *counted.borrow() + 3;
        let again = counted.wait_for(|count| *count >= target);
        timeout(PATIENCE, again).await.unwrap().unwrap();
    };
    asked_again().await;
    assert_eq!(log.all(warns("to expose")).len(), 1);

    has.lock().unwrap().push(with_service("Other"));
    let more = format!("{nothing}, p.Other");
    log.wait_for("what is new", warns(&more)).await;
    asked_again().await;
    assert_eq!(log.all(warns("to expose")).len(), 2);
    server.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(server.exit_code().await, Some(0));
}

#[tokio::test]
async fn a_service_that_lists_its_tools_is_compared_as_well() {
    let address = Described::new(&["search", "find"]).listen().await;
    let server = start(address, "expose = ['serch', 'find']").await;
    let nothing = "it has nothing to expose for serch (did you mean search?); it has find, search";
    server.log().wait_for("it", warns(nothing)).await;
}

/// As is said of single methods.
#[tokio::test]
async fn services_that_can_t_be_described_are_left_out_aloud() {
    let good = of_files(vec![with_service("Good")]);
    let address = serve(Some("v1"), move |question| match question {
        MessageRequest::ListServices(_) => Some(Found::Services(vec![
            "p.Good".to_owned(),
            "p.Absent".to_owned(),
            format!("p.{}", "x".repeat(1000)),
        ])),
        question => good(question),
    })
    .await;
    let server = start(address, "protocol = 'grpc'\nexpose = ['*']").await;
    for part in [
        "left out a tool: p.Absent/*: no descriptors of it were sent",
        "xxx: the service's name is longer than 512 bytes",
    ] {
        server.log().wait_for(part, warns(part)).await;
    }
}

#[tokio::test]
async fn answers_to_other_questions_are_failures() {
    let listed = || Some(Found::Services(vec!["p.S".to_owned()]));
    let files = || Some(Found::Files(Vec::new()));
    let other = "an answer to another question";
    type Answer = Box<dyn Fn(MessageRequest) -> Option<Found> + Send + Sync>;
    let answers: [(Answer, &str); 3] = [
        (Box::new(move |_| files()), other),
        (Box::new(move |_| listed()), other),
        (
            Box::new(|_| Some(Found::Nothing)),
            "no list of services: NotFound: nothing",
        ),
    ];
    for (answer, reason) in answers {
        let address = serve(Some("v1"), answer).await;
        let server = start(address, "protocol = 'grpc'\nexpose = ['p.S/*']").await;
        server.log().wait_for(reason, warns(reason)).await;
    }
}
