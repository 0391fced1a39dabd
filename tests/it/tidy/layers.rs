//! Who may name whom: dependencies run one way, between the parts of the crate and
//! between its files.

use std::collections::BTreeSet;

use super::{
    paths::{BINARY, Crate},
    sources,
};

/// The parts of the crate, and the others that each may name.
const PARTS: &[(&str, &[&str])] = &[
    (
        BINARY,
        &[
            "catalog",
            "config",
            "core",
            "demo",
            "json",
            "logging",
            "mistakes",
            "probe",
            "protobuf",
            "server",
            "telemetry",
            "waterfall",
        ],
    ),
    (
        "catalog",
        &[
            "config",
            "core",
            "json",
            "net",
            "policy",
            "protobuf",
            "telemetry",
            "tool",
        ],
    ),
    ("config", &["core", "mistakes", "transport"]),
    ("core", &[]),
    (
        "demo",
        &[
            "config",
            "core",
            "json",
            "logging",
            "transport",
            "waterfall",
        ],
    ),
    ("json", &["core"]),
    ("logging", &["transport"]),
    ("mistakes", &[]),
    ("net", &["config", "core", "transport"]),
    (
        "orchestrator",
        &["catalog", "config", "core", "json", "telemetry"],
    ),
    ("policy", &["config", "core"]),
    ("probe", &["config", "transport"]),
    ("protobuf", &["core", "json"]),
    (
        "server",
        &[
            "catalog",
            "config",
            "core",
            "logging",
            "orchestrator",
            "telemetry",
            "transport",
        ],
    ),
    (
        "telemetry",
        &["config", "core", "json", "logging", "mistakes", "transport"],
    ),
    (
        "tool",
        &[
            "config",
            "core",
            "json",
            "net",
            "policy",
            "protobuf",
            "transport",
        ],
    ),
    ("transport", &[]),
    ("waterfall", &["core", "json", "logging"]),
];

/// Crates that some parts do without, as they are of one way for calls to come and go.
const WITHOUT: &[(&str, &[&str])] = &[
    (
        "core",
        &[
            "h2",
            "http",
            "http_body",
            "hyper",
            "opentelemetry",
            "prost",
            "tonic",
            "tracing",
        ],
    ),
    (
        "policy",
        &["h2", "http", "http_body", "hyper", "prost", "tonic"],
    ),
    ("net", &["prost", "tonic"]),
];

#[test]
fn parts_name_only_those_that_they_may() {
    let found = Crate::new(&sources(&["src"]));
    let mut wrong = BTreeSet::new();
    for (module, path) in found.paths() {
        let (Some(part), Some(named)) = (module.first(), path.first()) else {
            continue;
        };
        let rule = PARTS.iter().find(|(known, _)| known == part);
        let (_, may_name) = rule.unwrap_or_else(|| panic!("who may {part} name?"));
        // The generated messages are in the root.
        if named != part && named != "pb" && !may_name.contains(&named.as_str()) {
            wrong.insert(format!("{} names {}", module.join("::"), path.join("::")));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn neither_the_core_nor_the_policies_know_a_protocol() {
    let found = Crate::new(&sources(&["src"]));
    for (part, crates) in WITHOUT {
        for (file, named) in found.crates() {
            let is_part = file.starts_with(&format!("src/{part}/"));
            if is_part || file == format!("src/{part}.rs") {
                let wrong = named.iter().find(|name| {
                    // `tonic_types` is no better than `tonic`.
                    let begins = |known: &&str| name.split('_').next() == Some(known);
                    crates.contains(&name.as_str()) || crates.iter().any(begins)
                });
                assert_eq!(wrong, None, "in {file}");
            }
        }
    }
    for part in ["core", "policy"] {
        for (module, path) in found.paths() {
            let is_message = module.first().is_some_and(|it| it == part) && path[0] == "pb";
            assert!(!is_message, "in {}", module.join("::"));
        }
    }
}

/// Files that name each other, directly or around others. A module and what is below it
/// count as one.
#[test]
fn no_file_names_itself_around_others() {
    let found = Crate::new(&sources(&["src"]));
    let uses: Vec<_> = found
        .uses()
        .into_iter()
        .filter(|(from, to)| !from.starts_with(to) && !to.starts_with(from))
        .collect();
    let reached_from = |module: &[String]| {
        let mut reached = BTreeSet::new();
        let mut waiting = vec![module];
        while let Some(at) = waiting.pop() {
            for (_, to) in uses.iter().filter(|(from, _)| *from == at) {
                if reached.insert(*to) {
                    waiting.push(to);
                }
            }
        }
        reached
    };
    let circles: Vec<_> = uses
        .iter()
        .filter(|(from, to)| reached_from(to).contains(from))
        .map(|(from, to)| format!("{} names {}", from.join("::"), to.join("::")))
        .collect();
    assert!(circles.is_empty(), "{circles:#?}");
}
