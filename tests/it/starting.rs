use std::{io::Write as _, process::Stdio};

use tempfile::{NamedTempFile, TempDir};
use tokio::{io::AsyncWriteExt as _, time::timeout};

use crate::support::process::{PATIENCE, fanfare};

/// What a command that has ended wrote.
#[derive(Debug)]
struct Ended {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

/// Runs `fanfare` to its end, with `input` to read.
async fn run(arguments: &[&str], environment: &[(&str, &str)], input: &str) -> Ended {
    let mut command = fanfare(arguments);
    command
        .envs(environment.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("to start");
    let mut stdin = child.stdin.take().expect("stdin");
    // Not everybody reads it.
    let _ = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    let output = timeout(PATIENCE, child.wait_with_output()).await;
    let output = output.expect("an end").expect("its output");
    Ended {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).expect("text"),
        stderr: String::from_utf8(output.stderr).expect("text"),
    }
}

fn file(toml: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(toml.as_bytes()).unwrap();
    file
}

fn path(file: &NamedTempFile) -> &str {
    file.path().to_str().unwrap()
}

/// What libraries would panic for, and what a start would end for.
#[tokio::test]
async fn what_can_not_be_in_the_environment_is_named_by_serve_and_check() {
    let file = file("[server]\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"off\"\n");
    let cases = [
        ("TOKIO_WORKER_THREADS", ""),
        ("TOKIO_WORKER_THREADS", "0"),
        ("TOKIO_WORKER_THREADS", "two"),
        ("TOKIO_WORKER_THREADS", " 2"),
        ("TOKIO_WORKER_THREADS", "-1"),
        ("TOKIO_WORKER_THREADS", "1000000"),
        ("TOKIO_WORKER_THREADS", "99999999999999999999"),
        ("RUST_MIN_STACK", "18446744073709551615"),
        ("RUST_MIN_STACK", "1099511627776"),
        ("RUST_LOG", "fanfare=loud"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "ftp://a"),
    ];
    for (variable, value) in cases {
        for command in ["serve", "check"] {
            let arguments = [command, "--config", path(&file)];
            let ended = run(&arguments, &[(variable, value)], "").await;
            assert_eq!(ended.code, Some(1), "{variable}={value}: {ended:?}");
            let named = ended.stderr.contains(variable);
            let calm = !ended.stderr.contains("panicked");
            assert!(named && calm, "{command} {variable}={value}: {ended:?}");
        }
    }
    // All of it at once, and what is ignored beside it.
    let environment = [
        ("TOKIO_WORKER_THREADS", "two"),
        ("RUST_LOG", "a=b=c"),
        ("OTEL_PROPAGATORS", "b3"),
    ];
    let ended = run(&["check", "--config", path(&file)], &environment, "").await;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""));
    for (variable, _) in environment {
        assert!(ended.stderr.contains(variable), "{ended:?}");
    }
}

#[tokio::test]
async fn a_good_environment_is_checked_in_silence() {
    let file = file("");
    let environment = [("TOKIO_WORKER_THREADS", "2"), ("RUST_MIN_STACK", "4194304")];
    for environment in [&environment[..], &[]] {
        let ended = run(&["check", "--config", path(&file)], environment, "").await;
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
        assert!(ended.stdout.starts_with("[server]\n"), "{ended:?}");
    }
}

#[tokio::test]
async fn two_listeners_on_one_port_are_found_by_check() {
    let toml = "[server]\nlisten = \"0.0.0.0:9464\"\n";
    let ended = run(&["check", "--config", "-"], &[], toml).await;
    assert_eq!(ended.code, Some(1));
    let expected = "fanfare: a mistake in standard input:\nline 2, column 1: server.admin_listen: \
                    expected another port than listen (0.0.0.0:9464), got 127.0.0.1:9464 (the \
                    default)\n";
    assert_eq!(ended.stderr, expected);
}

#[tokio::test]
async fn a_configuration_may_come_from_standard_input() {
    let toml = "[server]\nlisten = \"127.0.0.1:7\"\n";
    let ended = run(&["check", "--config", "-"], &[], toml).await;
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    assert!(ended.stdout.contains("127.0.0.1:7"), "{ended:?}");
    // Port 7 is not ours, or nobody's: it was read.
    let off = format!("{toml}admin_listen = \"nowhere\"\n");
    let ended = run(&["serve", "--config", "-"], &[], &off).await;
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("standard input"), "{ended:?}");
}

#[tokio::test]
async fn offline_what_only_the_machine_has_is_left_out_and_named() {
    let files = TempDir::new().unwrap();
    let missing = files.path().join("ca.crt");
    let toml = format!(
        "[services.a]\nendpoint = \"https://a\"\n[services.a.tls]\nca_file = {missing:?}\n\
         cert_file = \"/tls/tls.crt\"\nkey_file = \"/tls/tls.key\"\n\
         [tools.t]\nservice = \"a\"\n"
    );
    let environment = [("TOKIO_WORKER_THREADS", "two")];
    let online = run(&["check", "--config", "-"], &environment, &toml).await;
    assert_eq!(online.code, Some(1));
    for named in ["ca_file", "key_file", "TOKIO_WORKER_THREADS"] {
        assert!(online.stderr.contains(named), "{online:?}");
    }

    let offline = ["check", "--offline", "--config", "-"];
    let ended = run(&offline, &environment, &toml).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let skipped: Vec<_> = ended.stderr.lines().collect();
    let expected = [
        format!("services.a.tls.ca_file: {}", missing.display()),
        "services.a.tls.cert_file: /tls/tls.crt".to_owned(),
        "services.a.tls.key_file: /tls/tls.key".to_owned(),
        "the environment (OTEL_*, RUST_LOG, RUST_MIN_STACK, TOKIO_WORKER_THREADS)".to_owned(),
    ];
    assert_eq!(
        skipped,
        expected.map(|what| format!("fanfare: not checked offline: {what}"))
    );
    assert!(
        ended.stdout.contains("cert_file = \"/tls/tls.crt\""),
        "{ended:?}"
    );

    // What the file itself says is checked as ever.
    for mistaken in [
        toml.replace("key_file", "kye_file"),
        toml.replace("\"/tls/tls.key\"", "7"),
        toml.replace("service = \"a\"", "service = \"b\""),
    ] {
        let ended = run(&offline, &[], &mistaken).await;
        assert_eq!(ended.code, Some(1), "{ended:?}");
    }
}
