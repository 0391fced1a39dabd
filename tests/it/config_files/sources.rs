//! The doc comments of the settings. They are read as text: no stable tool gives
//! them in another form.

/// Where a type is.
#[derive(Clone, Copy, Debug)]
pub enum Source {
    Config,
    Service,
    Policy,
    Tls,
}

/// What is told of a key.
#[derive(Clone, Debug)]
pub struct Docs {
    pub meaning: String,
    /// Of the default, from the word "Default" on.
    pub reason: Option<String>,
}

impl Source {
    fn text(self) -> &'static str {
        match self {
            Self::Config => include_str!("../../../src/config.rs"),
            Self::Service => include_str!("../../../src/config/service.rs"),
            Self::Policy => include_str!("../../../src/config/policy.rs"),
            Self::Tls => include_str!("../../../src/config/tls.rs"),
        }
    }
}

/// What stands before a type, by paragraph.
fn type_paragraphs(source: Source, name: &str) -> Vec<String> {
    let lines: Vec<_> = source.text().lines().collect();
    let begins = |line: &&str| {
        [
            format!("pub struct {name} {{"),
            format!("pub enum {name} {{"),
        ]
        .contains(&(*line).to_owned())
    };
    let at = lines.iter().position(begins);
    let before = &lines[..at.unwrap_or_else(|| panic!("no type {name}"))];
    let docs: Vec<_> = before
        .iter()
        .rev()
        .skip_while(|line| line.starts_with("#["))
        .take_while(|line| line.starts_with("///"))
        .copied()
        .collect();
    paragraphs(docs.into_iter().rev())
}

/// What a section is for: what stands before its type. If that is an enum, which
/// is the value of the only key, its first paragraph.
pub fn type_docs(source: Source, name: &str) -> String {
    let mut paragraphs = type_paragraphs(source, name);
    if is_enum(source, name) {
        paragraphs.truncate(1);
    }
    let docs = paragraphs.join(" ");
    let (_, intro) = docs
        .split_once("]`: ")
        .unwrap_or_else(|| panic!("{name}: {docs}"));
    let (first, rest) = intro.split_at(1);
    first.to_ascii_uppercase() + rest
}

fn is_enum(source: Source, name: &str) -> bool {
    source.text().contains(&format!("pub enum {name} {{"))
}

/// The keys of a section, each with what stands before it: the public fields of a
/// struct, or if it has none its getters.
pub fn field_docs(source: Source, name: &str) -> Vec<(String, Docs)> {
    if is_enum(source, name) {
        let meaning = type_paragraphs(source, name)[1..].join(" ");
        let reason = None;
        return vec![("delay".to_owned(), Docs { meaning, reason })];
    }
    let text = source.text();
    let block = |begin: String| {
        let (_, rest) = text.split_once(&begin)?;
        rest.split_once("\n}\n").map(|(block, _)| block)
    };
    let fields = block(format!("pub struct {name} {{\n"));
    let mut found = documented(fields.unwrap_or_default(), ":");
    if found.is_empty() {
        let getters = block(format!("\nimpl {name} {{\n"));
        found = documented(getters.unwrap_or_default(), "(");
        // What comes of the settings.
        found.retain(|(name, _)| name != "client");
    }
    found
}

fn documented(block: &str, end: &str) -> Vec<(String, Docs)> {
    let mut comment = Vec::new();
    let mut found = Vec::new();
    for line in block.lines().map(str::trim) {
        if line.starts_with("///") {
            comment.push(line);
            continue;
        }
        let item = line.strip_prefix("pub ");
        let item = item.map(|item| item.strip_prefix("fn ").unwrap_or(item));
        if let Some((name, _)) = item.and_then(|item| item.split_once(end)) {
            let docs = docs(comment.drain(..));
            // A table of its own.
            if !docs.meaning.starts_with("`[") {
                found.push((name.to_owned(), docs));
            }
        }
        comment.clear();
    }
    found
}

fn docs<'l>(lines: impl Iterator<Item = &'l str>) -> Docs {
    let paragraphs = paragraphs(lines);
    let all = paragraphs.join(" ");
    match all.split_once("Default") {
        Some((meaning, reason)) => Docs {
            meaning: meaning.trim().to_owned(),
            reason: Some(format!("Default{reason}")),
        },
        None => Docs {
            meaning: all,
            reason: None,
        },
    }
}

/// Each as one line, and links of rustdoc as plain names.
fn paragraphs<'l>(lines: impl Iterator<Item = &'l str>) -> Vec<String> {
    let mut paragraphs = vec![String::new()];
    for line in lines.map(|line| line.trim_start_matches('/').trim()) {
        if line.is_empty() {
            paragraphs.push(String::new());
            continue;
        }
        let last = paragraphs.last_mut().expect("one");
        if !last.is_empty() {
            last.push(' ');
        }
        last.push_str(&line.replace("[`", "`").replace("`]", "`"));
    }
    paragraphs
}
