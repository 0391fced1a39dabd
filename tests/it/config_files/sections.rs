//! The sections of the file and their keys, as the code declares them and as the
//! parser knows them.

use fanfare::config::{self, Config, Form};

use super::NO_KEY;

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
    pub name: &'static str,
    pub form: Form,
    pub required: bool,
    /// As TOML, if there is one that a file could say.
    pub default: Option<String>,
    pub docs: String,
}

/// All of them, in the order of the file.
pub fn sections() -> Vec<Section> {
    let sections = config::sections().into_iter();
    sections
        .map(|section| Section {
            path: section.path,
            intro: intro(section.docs),
            keys: section.keys.into_iter().map(key).collect(),
        })
        .collect()
}

fn key(key: config::Key) -> Key {
    Key {
        name: key.name,
        form: key.form,
        required: key.required,
        default: key.default,
        docs: one_line(key.docs),
    }
}

/// Without the name of the section, which a type begins with.
fn intro(docs: &str) -> String {
    let docs = one_line(docs);
    let intro = docs.split_once("]`: ").map_or(&*docs, |(_, intro)| intro);
    let (first, rest) = intro.split_at(1);
    first.to_ascii_uppercase() + rest
}

fn one_line(docs: &str) -> String {
    docs.split_whitespace().collect::<Vec<_>>().join(" ")
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
            ("services.s.protocol", "\"grpc\""),
            ("services.s.expose", "[\"*\"]"),
            ("tools.t.service", "\"s\""),
            ("tools.t.remote", "\"a.B/C\""),
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
        let full = self.full_key(NO_KEY);
        let mistakes = mistakes(&self.with(NO_KEY, "1"));
        let problem = mistakes.iter().find(|(key, _)| *key == full);
        let known = problem.and_then(|(_, it)| it.strip_prefix("unknown key, known here are "));
        let known = known.unwrap_or_else(|| panic!("{mistakes:?}"));
        known.split(", ").map(str::to_owned).collect()
    }

    /// The tables inside of it.
    pub fn tables(&self) -> Vec<String> {
        let paths = config::sections().into_iter().map(|section| section.path);
        paths
            .filter_map(|path| path.strip_prefix(self.path)?.strip_prefix('.'))
            .filter(|table| !table.contains('.'))
            .map(str::to_owned)
            .collect()
    }
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
