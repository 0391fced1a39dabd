//! `fanfare tools` and `fanfare call`, as people and programs start them.

use std::{io::Write as _, process::Stdio};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt as _, process::Command, time::timeout};

use crate::support::{
    process::{PATIENCE, Process, fanfare, send_signal},
    sockets::{reserved, silent},
};

/// What a command printed, what it complained of, and how it ended.
#[derive(Debug)]
struct Ran {
    stdout: String,
    stderr: String,
    code: Option<i32>,
}

async fn ran(mut command: Command) -> Ran {
    let output = timeout(PATIENCE, command.output())
        .await
        .expect("an end")
        .unwrap();
    Ran {
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
        code: output.status.code(),
    }
}

/// At a server that a variable names.
async fn run(server: &Process, arguments: &[&str]) -> Ran {
    let mut command = fanfare(arguments);
    command.env("FANFARE_ADDR", server.address.to_string());
    ran(command).await
}

impl Ran {
    /// Without a complaint.
    #[track_caller]
    fn succeeded(&self) -> &str {
        assert_eq!((self.stderr.as_str(), self.code), ("", Some(0)), "{self:?}");
        &self.stdout
    }

    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

async fn demo() -> (Process, Process) {
    let tools = Process::demo_tools().await;
    let server = Process::serve_demo("", "", tools.address).await;
    (tools, server)
}

#[tokio::test]
async fn tools_are_listed_for_people_and_for_models() {
    let (_tools, server) = demo().await;
    let listed = run(&server, &["tools"]).await;
    let lines: Vec<_> = listed.succeeded().lines().collect();
    let head: Vec<_> = lines[0].split_whitespace().collect();
    assert_eq!(head, ["NAME", "SERVICE", "STATE", "TIMEOUT", "DESCRIPTION"]);
    let echo = lines
        .iter()
        .find(|line| line.starts_with("echo "))
        .expect("echo");
    for cell in [" demo ", " 30s ", " Returns its arguments"] {
        assert!(echo.contains(cell), "{echo}");
    }
    assert_eq!(lines.len(), 1 + fanfare::demo::TOOLS.len());
    assert!(!listed.stdout.contains('\x1b'));

    // The same order every time, and only what is asked for.
    let some = run(&server, &["tools", "sleep", "e*", "--format", "json"]).await;
    some.succeeded();
    let some = some.json();
    let names: Vec<_> = some["tools"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| &it["name"])
        .collect();
    assert_eq!(names, ["echo", "sleep"]);
    assert_eq!(some["tools"][0]["service"], "demo");
    assert!(some["generation"].is_string());

    for (format, name) in [
        ("openai", "/0/function/name"),
        ("openai-responses", "/0/name"),
        ("anthropic", "/0/name"),
        ("gemini", "/0/name"),
        ("mcp", "/0/name"),
    ] {
        let listed = run(&server, &["tools", "--format", format]).await;
        listed.succeeded();
        let definitions = listed.json();
        assert_eq!(
            definitions.as_array().unwrap().len(),
            fanfare::demo::TOOLS.len()
        );
        assert_eq!(definitions.pointer(name), Some(&json!("crash")), "{format}");
    }

    let refused = run(&server, &["tools", "a*b"]).await;
    assert_eq!((refused.stdout.as_str(), refused.code), ("", Some(1)));
    for said in [
        "INVALID_ARGUMENT (INVALID_REQUEST)",
        "names[0]: may have one *",
    ] {
        assert!(refused.stderr.contains(said), "{refused:?}");
    }
}

#[tokio::test]
async fn a_call_shows_how_it_goes_and_what_it_observed() {
    let (_tools, server) = demo().await;
    let called = run(
        &server,
        &["call", "echo", r#"{"city": "Oslo", "n": [1.5]}"#],
    )
    .await;
    let shown = called.succeeded();
    for part in [
        "1 call in one request:\n  [0]   echo  {\"city\": \"Oslo\", \"n\": [1.5]}\n",
        "Completions, as they arrive:\n",
        "Results:\n  [0] echo  ok\n      {\n        \"city\": \"Oslo\",\n",
    ] {
        assert!(shown.contains(part), "{part:?} is not in\n{shown}");
    }

    let called = run(
        &server,
        &[
            "call",
            "fail",
            r#"{"code": "NOT_FOUND", "message": "no such city"}"#,
        ],
    )
    .await;
    assert_eq!(
        (called.stderr.as_str(), called.code),
        ("", Some(1)),
        "{called:?}"
    );
    let results = "  [0] fail  error NOT_FOUND (TOOL_FAILED): no such city\n      effect: done, retryable: false\n";
    assert!(called.stdout.contains(results), "{called:?}");

    // Without arguments; for programs.
    let called = run(&server, &["call", "nobody", "--json"]).await;
    assert_eq!((called.stderr.as_str(), called.code), ("", Some(1)));
    let error = &called.json()["results"][0]["error"];
    assert_eq!(error["details"][0]["reason"], "UNKNOWN_TOOL");
    let called = run(&server, &["call", "echo", "--json", r#"{"a": null}"#]).await;
    called.succeeded();
    assert_eq!(
        called.json()["results"][0]["observation"],
        json!({"a": null})
    );

    let called = run(&server, &["call", "echo", "{"]).await;
    assert_eq!(called.code, Some(1), "{called:?}");
    for said in [
        "(INVALID_ARGUMENTS)",
        "effect: not_started",
        "arguments_json: ",
    ] {
        assert!(called.stdout.contains(said), "{called:?}");
    }
}

#[tokio::test]
async fn calls_out_of_a_file_run_together() {
    let (_tools, server) = demo().await;
    let answer = json!({"choices": [{"message": {"role": "assistant", "tool_calls": [
        {"id": "call_1", "type": "function", "function": {"name": "echo", "arguments": "{\"id\": 9007199254740992}"}},
        {"id": "call_2", "type": "function", "function": {"name": "echo", "arguments": "{\"id\": 9007199254740993}"}},
    ]}}]});
    let mut file = tempfile::NamedTempFile::new().unwrap();
    write!(file, "{answer}").unwrap();
    let path = file.path().to_str().unwrap();
    let called = run(&server, &["call", "--file", path, "--json"]).await;
    // The second can't be held exactly, so it is not rounded.
    assert_eq!(called.code, Some(1));
    let results = &called.json()["results"];
    assert_eq!(
        results[0]["observation"],
        json!({"id": 9_007_199_254_740_992u64})
    );
    assert_eq!(
        results[1]["error"]["details"][0]["reason"],
        "INVALID_ARGUMENTS"
    );
    assert_eq!(results[1]["id"], "call_2");

    let mut command = fanfare(&["call", "--file", "-", "--addr", &server.address.to_string()]);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let request = json!({"calls": [
        {"id": "a", "name": "sleep", "arguments": {"seconds": 0.2}},
        {"id": "b", "name": "echo", "arguments": {"x": 1}},
    ]});
    let mut stdin = child.stdin.take().unwrap();
    stdin
        .write_all(request.to_string().as_bytes())
        .await
        .unwrap();
    drop(stdin);
    let output = timeout(PATIENCE, child.wait_with_output())
        .await
        .expect("an end")
        .unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{shown}");
    let places = [
        "[1] b  echo ",
        "[0] a  sleep",
        "Results:\n  [0] a  sleep  ok",
        "  [1] b  echo  ok",
    ];
    let (_, completions) = shown.split_once("as they arrive:").unwrap();
    let places = places.map(|place| completions.find(place).expect(place));
    assert!(places.is_sorted(), "{shown}");
}

#[tokio::test]
async fn a_request_that_can_not_be_served_exits_with_2() {
    let (_tools, server) = demo().await;
    let mut file = tempfile::NamedTempFile::new().unwrap();
    write!(
        file,
        r#"{{"content": [{{"type": "tool_use", "name": "echo"}}]}}"#
    )
    .unwrap();
    let path = file.path().to_str().unwrap();
    let nobody = reserved();
    let nobody = nobody.address.to_string();
    let silent = silent(b"SSH-2.0-OpenSSH_9.7\r\n").await.to_string();
    let cases: [(&[&str], &str); 7] = [
        (&["call", "--file", path], ": content[0].input: is missing"),
        (&["call", "--file", "/nowhere"], "/nowhere: No such file"),
        (
            &["call", "echo", "--addr", &nobody],
            ": can't connect: Connection refused",
        ),
        (
            &["call", "echo", "--addr", &silent],
            ": not a gRPC server, or one that broke off: ",
        ),
        (&["call", "hang", "--timeout", "100ms"], "call.hang"),
        (&["call"], "required"),
        (&["call", "echo", "--file", path], "cannot be used with"),
    ];
    for (arguments, said) in cases {
        let refused = run(&server, arguments).await;
        if said == "call.hang" {
            // Its own result comes in time: the deadline leaves a margin.
            assert_eq!(refused.code, Some(1), "{refused:?}");
            assert!(refused.stdout.contains("DEADLINE_EXCEEDED"), "{refused:?}");
            continue;
        }
        assert_eq!(refused.code, Some(2), "{refused:?}");
        assert!(refused.stderr.contains(said), "{refused:?}");
    }
    let refused = run(&server, &["call", "echo", "--addr", &nobody]).await;
    assert!(
        refused.stderr.contains("--addr or FANFARE_ADDR"),
        "{refused:?}"
    );
    let mut command = fanfare(&["tools"]);
    command.env("FANFARE_ADDR", "nonsense");
    let refused = ran(command).await;
    assert_eq!(refused.code, Some(2));
    assert!(
        refused
            .stderr
            .contains("FANFARE_ADDR=nonsense: expected host:port"),
        "{refused:?}"
    );
}

#[tokio::test]
async fn an_interrupt_cancels_the_calls() {
    let (tools, server) = demo().await;
    let mut command = fanfare(&["call", "hang", "--addr", &server.address.to_string()]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let pid = i32::try_from(child.id().unwrap()).unwrap();
    let ledger = |line: &Value, event: &str| {
        let text = line.to_string();
        text.contains("hang") && text.contains(event)
    };
    tools
        .log()
        .wait_for("a call", |line| ledger(line, "started"))
        .await;
    send_signal(pid, Signal::SIGINT);
    let output = timeout(PATIENCE, child.wait_with_output())
        .await
        .expect("an end")
        .unwrap();
    assert_eq!(output.status.code(), Some(130));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said, "fanfare: interrupted: the calls are cancelled\n");
    tools
        .log()
        .wait_for("its end", |line| ledger(line, "cancelled"))
        .await;
}

#[tokio::test]
async fn the_address_of_a_probe_has_three_places() {
    let (_tools, server) = demo().await;
    let address = server.address.to_string();
    let serves = async { while run(&server, &["probe"]).await.code != Some(0) {} };
    timeout(PATIENCE, serves).await.expect("to serve");
    for arguments in [
        &["probe", "--addr", &address] as &[&str],
        &["probe", &address],
    ] {
        let mut command = fanfare(arguments);
        command.env("FANFARE_ADDR", "127.0.0.1:1");
        assert_eq!(ran(command).await.succeeded(), "SERVING\n");
    }
    let both = ran(fanfare(&["probe", &address, "--addr", &address])).await;
    assert_eq!(both.code, Some(2));
}
