//! The sections of the file and their keys, as the parser tells of them.

use std::collections::BTreeMap;

use fanfare::config::Config;

use super::{
    Kind,
    sources::{Docs, Source, field_docs, type_docs},
};

/// A value that no key takes, and a key that no section has.
const REFUSED: &str = "07:32:00";
const NO_KEY: &str = "no_key_has_such_a_name_as_this";

/// A table of the file.
#[derive(Debug)]
pub struct Section {
    /// Such as `services.NAME.tls`.
    pub path: &'static str,
    pub intro: String,
    pub keys: Vec<Key>,
}

#[derive(Debug)]
pub struct Key {
    pub name: String,
    pub kind: Kind,
    /// What the parser says that it expects.
    pub expected: String,
    /// As TOML, if there is one that a file could say.
    pub default: Option<String>,
    pub docs: Docs,
}

/// Where the settings of a section are documented: file, type, and which keys a
/// field has that do not have its name.
struct Place {
    path: &'static str,
    source: Source,
    type_name: &'static str,
    /// Instead of the type's own.
    intro: Option<&'static str>,
    renamed: &'static [(&'static str, &'static [&'static str])],
}

const PLACES: [Place; 10] = [
    place("server", Source::Config, "Server"),
    place("limits", Source::Config, "Limits"),
    Place {
        renamed: &[("endpoints", &["endpoint", "endpoints"])],
        ..place("services.NAME", Source::Service, "Service")
    },
    Place {
        renamed: &[("identity", &["cert_file", "key_file"])],
        ..place("services.NAME.tls", Source::Tls, "Tls")
    },
    place("services.NAME.breaker", Source::Policy, "Breaker"),
    place("services.NAME.retry_budget", Source::Policy, "RetryBudget"),
    place("tools.NAME", Source::Config, "Tool"),
    place("tools.NAME.retry", Source::Policy, "Retry"),
    place("tools.NAME.hedge", Source::Policy, "HedgeDelay"),
    Place {
        intro: Some(TOOL_BREAKER),
        ..place("tools.NAME.breaker", Source::Policy, "Breaker")
    },
];

const TOOL_BREAKER: &str = "When this tool is left alone. What is left out is as in \
    `[services.NAME.breaker]` of its service.";

const fn place(path: &'static str, source: Source, type_name: &'static str) -> Place {
    Place {
        path,
        source,
        type_name,
        intro: None,
        renamed: &[],
    }
}

/// All of them, in the order of the file.
pub fn sections() -> Vec<Section> {
    PLACES.iter().map(section).collect()
}

fn section(place: &Place) -> Section {
    let mut section = Section {
        path: place.path,
        intro: match place.intro {
            Some(intro) => intro.to_owned(),
            None => type_docs(place.source, place.type_name),
        },
        keys: Vec::new(),
    };
    let defaults = defaults(place.path);
    for (field, docs) in field_docs(place.source, place.type_name) {
        let renamed = place.renamed.iter().find(|(of, _)| *of == field);
        let names = renamed.map_or_else(|| vec![field.as_str()], |(_, names)| names.to_vec());
        for name in names {
            let expected = section.expected(name);
            let key = Key {
                name: name.to_owned(),
                kind: Kind::parse(&expected),
                expected,
                default: defaults.get(name).cloned(),
                docs: docs.clone(),
            };
            section.keys.push(key);
        }
    }
    section
}

impl Section {
    /// The whole key of one of its.
    pub fn full_key(&self, key: &str) -> String {
        let path = self.path.replace("services.NAME", "services.s");
        format!("{}.{key}", path.replace("tools.NAME", "tools.t"))
    }

    /// A file with this value in the section, and all else that it needs.
    pub fn with(&self, key: &str, value: &str) -> String {
        let full = self.full_key(key);
        let needed = [
            ("services.s.endpoint", "\"https://a\""),
            ("tools.t.service", "\"s\""),
            ("tools.t.idempotent", "true"),
        ];
        let mut text = format!("{full} = {value}\n");
        // `endpoints` instead of `endpoint`, too.
        for (key, value) in needed.iter().filter(|(key, _)| !full.starts_with(key)) {
            text.push_str(&format!("{key} = {value}\n"));
        }
        text
    }

    /// The keys that the parser knows in it, and the tables.
    pub fn known(&self) -> Vec<String> {
        let problem = problem_of(&self.with(NO_KEY, "1"), &self.full_key(NO_KEY));
        let known = problem.strip_prefix("unknown key, known here are ");
        let known = known.unwrap_or_else(|| panic!("{problem}"));
        known.split(", ").map(str::to_owned).collect()
    }

    /// The tables inside of it.
    pub fn tables(&self) -> Vec<String> {
        let paths = PLACES.iter().map(|place| place.path);
        paths
            .filter_map(|path| path.strip_prefix(self.path)?.strip_prefix('.'))
            .map(str::to_owned)
            .collect()
    }

    fn expected(&self, key: &str) -> String {
        let text = self.with(key, REFUSED);
        let problem = problem_of(&text, &self.full_key(key));
        let expected = problem.strip_prefix("expected ");
        let expected = expected.and_then(|rest| rest.strip_suffix(", got the time 07:32:00"));
        expected.unwrap_or_else(|| panic!("{problem}")).to_owned()
    }
}

impl Key {
    pub fn is_required(&self) -> bool {
        self.docs.meaning.contains("equired.")
    }
}

fn problem_of(text: &str, key: &str) -> String {
    let mistakes = mistakes(text);
    let found = mistakes.iter().find(|(of, _)| of == key);
    found
        .unwrap_or_else(|| panic!("{key} in {text}: {mistakes:?}"))
        .1
        .clone()
}

/// The mistakes of a file: key and problem.
pub fn mistakes(text: &str) -> Vec<(String, String)> {
    let Err(error) = Config::parse(text) else {
        return Vec::new();
    };
    let mistakes = error.mistakes().iter();
    mistakes
        .map(|m| (m.key.clone(), m.problem.clone()))
        .collect()
}

/// What the section has where a file says nothing.
fn defaults(path: &str) -> BTreeMap<String, String> {
    let text = "[services.NAME]\nendpoint = 'http://a'\n[tools.NAME]\nservice = 'NAME'\n\
                idempotent = true";
    let all = Config::parse(text).unwrap().to_toml();
    let header = format!("[{path}]\n");
    let section = all
        .split("\n\n")
        .find_map(|section| section.strip_prefix(&header));
    let lines = section.unwrap_or_default().lines();
    let mut defaults: BTreeMap<_, _> = lines
        .filter_map(|line| line.split_once(" = "))
        .filter(|(key, _)| !["endpoint", "service"].contains(key))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    // Said above, so that the keys that need it are there.
    if let Some(idempotent) = defaults.get_mut("idempotent") {
        *idempotent = fanfare::config::Tool::new(String::new())
            .idempotent
            .to_string();
    }
    defaults
}
