//! Which file of the crate names an item of which other: `use` declarations and paths in
//! the code are resolved to the files that declare the items, through whatever passes
//! them on.

use std::collections::{BTreeMap, BTreeSet};

use super::Source;

/// The module that the binary's files are below; nobody can name it.
pub const BINARY: &str = "fanfare's binary";

/// The files of the crate without their tests, and what each names.
pub struct Crate {
    /// By module: what its path consists of.
    modules: BTreeMap<Vec<String>, Module>,
}

#[derive(Default)]
struct Module {
    file: String,
    /// What the names that it imports stand for.
    imports: BTreeMap<String, Vec<String>>,
    /// The paths that it names, beginning at the crate.
    paths: Vec<Vec<String>>,
    /// The other crates that it names.
    crates: BTreeSet<String>,
}

impl Crate {
    pub fn new(sources: &[Source]) -> Self {
        let mut modules = BTreeMap::new();
        let sources = sources.iter().filter(|source| !is_test(&source.path));
        for source in sources {
            modules.insert(module_of(&source.path), source);
        }
        let known: BTreeSet<Vec<String>> = modules.keys().cloned().collect();
        let read = |(path, source): (Vec<String>, &Source)| {
            let module = Module::read(&path, source, &known);
            (path, module)
        };
        Self {
            modules: modules.into_iter().map(read).collect(),
        }
    }

    /// Each file, with the other crates that it names.
    pub fn crates(&self) -> impl Iterator<Item = (&str, &BTreeSet<String>)> {
        let modules = self.modules.values();
        modules.map(|module| (module.file.as_str(), &module.crates))
    }

    /// Each module, with a path that it names.
    pub fn paths(&self) -> impl Iterator<Item = (&[String], &[String])> {
        let modules = self.modules.iter();
        modules.flat_map(|(module, it)| {
            let paths = it.paths.iter();
            paths.map(|path| (module.as_slice(), path.as_slice()))
        })
    }

    /// Each module that names an item of another one, with that one; the root of the
    /// crate, which declares the others, left aside.
    pub fn uses(&self) -> BTreeSet<(&[String], &[String])> {
        let mut uses = BTreeSet::new();
        for (path, module) in &self.modules {
            for named in &module.paths {
                let target = self.declares(named, 0);
                if target != path.as_slice() && !target.is_empty() {
                    uses.insert((path.as_slice(), target));
                }
            }
        }
        uses
    }

    /// The module that declares what `path` names.
    fn declares(&self, path: &[String], depth: usize) -> &[String] {
        assert!(depth < 20, "{path:?} goes in circles");
        let mut at = 0;
        while at < path.len() && self.modules.contains_key(&path[..=at]) {
            at += 1;
        }
        let (module, found) = self.modules.get_key_value(&path[..at]).expect("a root");
        let import = path.get(at).and_then(|name| found.imports.get(name));
        match import {
            Some(import) => {
                let further = [import.as_slice(), &path[at + 1..]].concat();
                self.declares(&further, depth + 1)
            }
            None => module,
        }
    }
}

impl Module {
    fn read(path: &[String], source: &Source, known: &BTreeSet<Vec<String>>) -> Self {
        let mut module = Self {
            file: source.path.clone(),
            ..Self::default()
        };
        let tokens = tokens(&source.code_without_tests());
        let mut at = 0;
        while let Some(token) = tokens.get(at) {
            let is_inside_path = at > 0 && tokens[at - 1] == "::";
            // Not what an `impl` captures.
            if token == "use" && !next_is(&tokens, at, "<") {
                let mut named = Vec::new();
                at = tree(&tokens, at + 1, &[], &mut named);
                for (segments, name) in named {
                    match resolved(path, &segments, known) {
                        Some(full) => {
                            module.imports.insert(name, full.clone());
                            module.paths.push(full);
                        }
                        None => drop(module.crates.insert(segments[0].clone())),
                    }
                }
                continue;
            }
            if is_word(token) && !is_inside_path && next_is(&tokens, at, "::") {
                let segments = path_at(&tokens, at);
                if let Some(full) = resolved(path, &segments, known) {
                    module.paths.push(full);
                } else if !module.imports.contains_key(&segments[0]) {
                    module.crates.insert(segments[0].clone());
                }
            }
            at += 1;
        }
        module
    }
}

fn is_test(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/")
}

fn module_of(path: &str) -> Vec<String> {
    let path = path.strip_prefix("src/").expect("below src");
    let path = path.strip_suffix(".rs").expect("a Rust file");
    let segments = path.split('/').map(str::to_owned);
    match path {
        "lib" => Vec::new(),
        "main" => vec![BINARY.to_owned()],
        "cli" => vec![BINARY.to_owned(), "cli".to_owned()],
        path if path.starts_with("cli/") => {
            [BINARY.to_owned()].into_iter().chain(segments).collect()
        }
        _ => segments.collect(),
    }
}

/// The full path of what a file of the module `path` calls `segments`, if it is of this
/// crate.
fn resolved(
    path: &[String],
    segments: &[String],
    known: &BTreeSet<Vec<String>>,
) -> Option<Vec<String>> {
    let (first, rest) = segments.split_first()?;
    let is_binary = path.first().is_some_and(|first| first == BINARY);
    let base = match first.as_str() {
        "crate" if is_binary => vec![BINARY.to_owned()],
        "crate" => Vec::new(),
        "fanfare" if is_binary => Vec::new(),
        "self" => path.to_vec(),
        "super" => path[..path.len() - 1].to_vec(),
        child => {
            let mut module = path.to_vec();
            module.push(child.to_owned());
            return known.contains(&module).then(|| {
                module.extend_from_slice(rest);
                module
            });
        }
    };
    // `super::super`.
    if rest.first().is_some_and(|next| next == "super") {
        return resolved(&base, rest, known);
    }
    Some([base.as_slice(), rest].concat())
}

/// Reads what follows `use` up to its end: each path, and what it is called here.
fn tree(
    tokens: &[String],
    mut at: usize,
    base: &[String],
    named: &mut Vec<(Vec<String>, String)>,
) -> usize {
    let mut path = base.to_vec();
    loop {
        match tokens.get(at).map(String::as_str) {
            Some("{") => {
                at += 1;
                while tokens[at] != "}" {
                    at = tree(tokens, at, &path, named);
                    if tokens[at] == "," {
                        at += 1;
                    }
                }
                return at + 1;
            }
            Some("::") => at += 1,
            Some("as") => {
                named.push((path, tokens[at + 1].clone()));
                return at + 2;
            }
            Some("self") if !path.is_empty() && !next_is(tokens, at, "::") => at += 1,
            Some(word) if is_word(word) => {
                path.push(word.to_owned());
                at += 1;
            }
            Some("*") => {
                named.push((path, "*".to_owned()));
                return at + 1;
            }
            _ => {
                let name = path.last().cloned().expect("a name");
                named.push((path, name));
                return at;
            }
        }
    }
}

fn path_at(tokens: &[String], mut at: usize) -> Vec<String> {
    let mut path = vec![tokens[at].clone()];
    while next_is(tokens, at, "::") && tokens.get(at + 2).is_some_and(|next| is_word(next)) {
        path.push(tokens[at + 2].clone());
        at += 2;
    }
    path
}

fn next_is(tokens: &[String], at: usize, token: &str) -> bool {
    tokens.get(at + 1).is_some_and(|next| next == token)
}

fn is_word(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Words, `::`, and every other character by itself.
fn tokens(code: &str) -> Vec<String> {
    let mut tokens: Vec<String> = Vec::new();
    let mut rest = code;
    while let Some(c) = rest.chars().next() {
        let is_part = |c: char| c.is_alphanumeric() || c == '_';
        let length = if is_part(c) {
            rest.find(|c| !is_part(c)).unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            c.len_utf8()
        };
        let (token, after) = rest.split_at(length);
        if !c.is_whitespace() {
            tokens.push(token.to_owned());
        }
        rest = after;
    }
    tokens
}

#[test]
fn paths_are_followed_to_the_file_that_declares_what_they_name() {
    let source = |path: &str, text: &str| Source {
        path: path.to_owned(),
        text: text.to_owned(),
    };
    let sources = [
        source("src/lib.rs", "pub mod a; pub mod b;"),
        source(
            "src/a.rs",
            "mod x; pub use x::{Thing as It, self}; use std::fmt;",
        ),
        source(
            "src/a/x.rs",
            "use super::super::b::c;\nfn f() { super::y::g(); }",
        ),
        source(
            "src/a/y.rs",
            "// crate::b::c\nconst TEXT: &str = \"crate::b\";",
        ),
        source("src/b.rs", "pub mod c;"),
        source("src/b/c.rs", "use crate::{a::It, b};\nuse h2::Reason;"),
        source("src/b/tests.rs", "use crate::a;"),
    ];
    let found = Crate::new(&sources);
    let shown = |module: &[String]| module.join("::");
    let uses = found.uses();
    let uses: Vec<_> = uses
        .iter()
        .map(|(from, to)| (shown(from), shown(to)))
        .collect();
    let expected = [
        ("a", "a::x"),
        ("a::x", "a::y"),
        ("a::x", "b::c"),
        ("b::c", "a::x"),
        ("b::c", "b"),
    ];
    let expected = expected.map(|(from, to)| (from.to_owned(), to.to_owned()));
    assert_eq!(uses, expected);
    let crates: Vec<_> = found.crates().flat_map(|(_, crates)| crates).collect();
    assert_eq!(crates, ["std", "h2"]);
}
