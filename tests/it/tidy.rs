//! Reads the sources as text: what neither the compiler nor clippy keeps true.

mod layers;
mod paths;

use std::{
    fs,
    path::{Path, PathBuf},
};

/// What the orchestration is made of. It must not know how calls come and go.
const CORE: &str = "src/core/";
/// Crates and modules of ours that are about the wire or about telemetry.
const EDGES: &[&str] = &[
    "tonic",
    "http",
    "hyper",
    "h2",
    "prost",
    "tower",
    "opentelemetry",
    "tracing",
    "pb",
    "wire",
];
/// Who may wait for time to pass, and for what. The instants come from
/// `deadline.rs` or the configuration.
const WITH_TIMERS: &[&str] = &[
    // The deadlines of calls.
    "src/catalog/discovery.rs",
    "src/core/fanout.rs",
    // Workers that do not end.
    "src/core/workers.rs",
    // The demo's tools, and what its tests have in their place.
    "src/demo/scenario.rs",
    "src/demo/tools.rs",
    // Gathering lines of the log.
    "src/logging/queue.rs",
    // Resets that wait for their turn.
    "src/net/cancelled.rs",
    // Connecting to a tool service.
    "src/net/dial.rs",
    // Keepalive; answers to probes.
    "src/net/liveness.rs",
    // A call that waits for a stream checks other addresses.
    "src/net/upstream.rs",
    // Slow dials.
    "src/net/upstream/apart.rs",
    "src/net/upstream/dialing.rs",
    // Slow name servers.
    "src/net/upstream/lookups.rs",
    // Sweeps, look-ups and dials from time to time.
    "src/net/upstream/maintenance.rs",
    // Gathering small messages; the deadline of a slow reader.
    "src/orchestrator/stream.rs",
    // Waiting before a retry.
    "src/policy.rs",
    // The delay of a hedge; what a tool asks for before the next.
    "src/policy/hedged.rs",
    // The deadline of a probe.
    "src/probe.rs",
    // Drain.
    "src/server.rs",
    // Backoff when file descriptors run out.
    "src/server/accept.rs",
    // Silent peers that hold up a drain.
    "src/server/activity.rs",
    // Slow readers of the admin port.
    "src/server/admin.rs",
    // Idle connections to the admin port.
    "src/server/admin/connections.rs",
    // Preface, keepalive, age.
    "src/server/connection.rs",
    // The deadline of a request.
    "src/server/edge.rs",
    // The deadline of health watches and reflection.
    "src/server/long_lived.rs",
    // Receiving a request.
    "src/server/receive.rs",
    // Callers that keep sending after the response.
    "src/server/request_body.rs",
    // Sending a response.
    "src/server/stream_task.rs",
    // Looking after the workers.
    "src/server/supervision.rs",
    // The end of the process, as far as the collector is concerned.
    "src/telemetry.rs",
    // An export that has to be tried again, or is not answered.
    "src/telemetry/export.rs",
    // Connecting to a collector.
    "src/telemetry/export/connector.rs",
    // A page that does not end.
    "src/tool/grpc/reply.rs",
    // A live view.
    "src/waterfall.rs",
];

struct Source {
    /// From the crate's root.
    path: String,
    text: String,
}

impl Source {
    /// The lines without comments.
    fn code(&self) -> impl Iterator<Item = &str> {
        let lines = self.text.lines();
        lines.filter(|line| !line.trim_start().starts_with("//"))
    }

    /// The code without comments, strings and tests.
    fn code_without_tests(&self) -> String {
        let code: Vec<_> = self.code().collect();
        let code = code.join("\n");
        let code = code.split("#[cfg(test)]\nmod tests {").next();
        // What is between quotes, and does not end its line within them.
        let lines = code.unwrap_or_default().lines().map(|line| {
            let line = line.split(" //").next().unwrap_or_default();
            line.split('"').step_by(2).collect::<Vec<_>>().join("\"\"")
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    /// The identifiers of the code, each with what stands before it in its line
    /// and the first character behind it.
    fn identifiers(&self) -> impl Iterator<Item = (&str, &str, Option<char>)> {
        let part = |c: char| c.is_alphanumeric() || c == '_';
        self.code().flat_map(move |line| {
            line.split(move |c| !part(c))
                .filter(|word| !word.is_empty())
                .map(move |word| {
                    let start = word.as_ptr().addr() - line.as_ptr().addr();
                    let (before, rest) = line.split_at(start);
                    (before.trim_end(), word, rest[word.len()..].chars().next())
                })
        })
    }
}

/// All Rust files of these directories and below.
fn sources(directories: &[&str]) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut waiting: Vec<PathBuf> = directories.iter().map(|name| root.join(name)).collect();
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            let entries = fs::read_dir(&path).expect("a directory");
            waiting.extend(entries.map(|entry| entry.expect("an entry").path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root).expect("below the root");
            found.push(Source {
                path: name.to_str().expect("UTF-8").to_owned(),
                text: fs::read_to_string(&path).expect("a text"),
            });
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(found.len() > 10, "the sources are not here");
    found
}

fn ours() -> Vec<Source> {
    sources(&["src", "tests", "build.rs"])
}

#[test]
fn no_file_is_over_400_lines() {
    let long: Vec<_> = ours()
        .into_iter()
        .map(|source| (source.text.lines().count(), source.path))
        .filter(|(lines, _)| *lines > 400)
        .collect();
    assert_eq!(long, []);
}

#[test]
fn every_file_of_the_crate_says_what_it_is_for() {
    let silent: Vec<_> = sources(&["src"])
        .into_iter()
        .filter(|source| !source.text.starts_with("//! "))
        .map(|source| source.path)
        .collect();
    assert_eq!(silent, [""; 0]);
}

#[test]
fn the_core_knows_neither_wire_nor_telemetry() {
    for source in sources(&[CORE]) {
        let edges: Vec<_> = source
            .identifiers()
            .map(|(_, word, _)| word)
            .filter(|word| {
                // `tonic_types` is no better than `tonic`.
                let first = word.split('_').next().expect("one");
                EDGES.contains(&first)
            })
            .collect();
        assert_eq!(edges, [""; 0], "in {}", source.path);
    }
}

/// People follow the walk through the architecture with the file list open.
#[test]
fn the_architecture_names_files_and_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = include_str!("../../src/lib.rs");
    let named: Vec<&str> = page.split('`').skip(1).step_by(2).collect();
    let exists = |name: &&str| root.join(name).exists();
    let files = named.iter().filter(|name| name.ends_with(".rs"));
    for file in files.clone() {
        let in_src = format!("src/{file}");
        assert!(exists(file) || exists(&in_src.as_str()), "{file}");
    }
    let tests = named.iter().filter_map(|name| name.split_once("::"));
    for (module, test) in tests.clone() {
        let path = root.join(format!("tests/it/{module}.rs"));
        let text = fs::read_to_string(&path).unwrap_or_else(|_| panic!("{path:?}"));
        let is_there = test == "*" || text.contains(&format!("fn {test}("));
        assert!(is_there, "{module}::{test}");
    }
    assert!(files.count() > 20 && tests.count() > 20);
}

#[test]
fn who_waits_for_time_to_pass_is_known() {
    let waits = |(before, word, after): (&str, &str, Option<char>)| match word {
        "TokioTimer" => true,
        "interval" | "interval_at" | "sleep" | "sleep_until" | "timeout" | "timeout_at" => {
            // Not methods and functions of ours that have such a name.
            after == Some('(') && !before.ends_with('.') && !before.ends_with("fn")
        }
        _ => false,
    };
    let with_timers: Vec<_> = sources(&["src"])
        .into_iter()
        .filter(|source| !source.path.contains("/tests"))
        .filter(|source| source.identifiers().any(waits))
        .map(|source| source.path)
        .collect();
    assert_eq!(with_timers, WITH_TIMERS);
}

#[test]
fn the_clock_is_the_one_that_tests_can_pause() {
    for source in ours() {
        let code: String = source.code().flat_map(str::split_whitespace).collect();
        let named = code.contains(concat!("std::time::", "Instant"));
        let imported = code
            .split(';')
            .filter_map(|statement| statement.rsplit_once(concat!("usestd", "::")))
            .any(|(_, path)| path.contains("Instant"));
        assert!(!named && !imported, "in {}", source.path);
    }
}

#[test]
fn nothing_is_left_for_later() {
    let words = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X"),
        concat!("to", "do!"),
        concat!("unimpl", "emented!"),
        concat!("#[ig", "nore"),
    ];
    // The main function of a process that a test starts says this of itself.
    let no_test = concat!("#[ig", "nore = \"no test: ");
    for source in ours() {
        let text = source.text.replace(no_test, "");
        for word in words {
            assert!(!text.contains(word), "{word} in {}", source.path);
        }
    }
}

/// The gate runs the file; people copy what they read.
#[test]
fn the_readme_shows_the_tool_service_that_is_tried() {
    let readme = include_str!("../../README.md");
    let sample = include_str!("../clients/python/tool_service.py");
    let mut shown = readme.split("```python\n").skip(1);
    let shown = shown.next().and_then(|rest| rest.split("```").next());
    assert!(shown.is_some_and(|part| sample.contains(part)), "{shown:?}");
}

/// An agent is there to be read and copied: its turn fits on a page, and so does
/// what is beside it.
#[test]
fn an_agent_is_short() {
    for (name, text) in [
        ("agent.py", include_str!("../clients/python/agent.py")),
        (
            "agent_asyncio.py",
            include_str!("../clients/python/agent_asyncio.py"),
        ),
        ("main.go", include_str!("../clients/go/agent/main.go")),
        ("content.go", include_str!("../clients/go/agent/content.go")),
        ("agent.ts", include_str!("../clients/typescript/agent.ts")),
        ("Agent.java", include_str!("../clients/java/Agent.java")),
        ("Content.java", include_str!("../clients/java/Content.java")),
    ] {
        let count = text.lines().count();
        assert!(count <= 80, "{name}: {count} lines");
    }
}
