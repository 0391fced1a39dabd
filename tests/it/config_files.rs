//! `deploy/config/`: the reference, the JSON Schema and the example are written by
//! these tests, out of the declarations of the keys, and compared here:
//! `UPDATE_EXPECT=1 cargo test --test it config_files` writes them anew.
//!
//! What is left to write by hand is how keys depend on each other, in the schema, which
//! `.ci/config.py` holds against `fanfare check`. No command prints these files: their
//! texts would have to be in the binary.

mod example;
mod forms;
mod reference;
mod schema;
mod sections;

use std::{env, fs, path::Path};

use fanfare::config::Config;

use forms::boundaries;
use sections::{Key, Section, mistakes, sections};

/// A key that no section has.
const NO_KEY: &str = "no_key_has_such_a_name_as_this";
const DIRECTORY: &str = "deploy/config";

/// The file is `text`, or becomes it if that is asked for.
#[track_caller]
fn assert_file(name: &str, text: &str) {
    let path = format!("{DIRECTORY}/{name}");
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(&path);
    if env::var_os("UPDATE_EXPECT").is_some() {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, text).unwrap();
    }
    let found = fs::read_to_string(&file).unwrap_or_default();
    let (mut is, mut should) = (found.lines(), text.lines());
    let mut line = 0;
    let difference = loop {
        line += 1;
        match (is.next(), should.next()) {
            (None, None) => break (found != text).then_some(("", "")),
            (is, should) if is == should => {}
            (is, should) => break Some((is.unwrap_or_default(), should.unwrap_or_default())),
        }
    };
    if let Some((is, should)) = difference {
        panic!(
            "{path} is out of date from line {line}:\n- {is}\n+ {should}\n\
             UPDATE_EXPECT=1 cargo test --test it config_files"
        );
    }
}

#[test]
fn the_reference_is_what_the_code_says() {
    assert_file("reference.md", &reference::write(&sections()));
}

#[test]
fn the_schema_is_what_the_code_says() {
    assert_file("fanfare.schema.json", &schema::write(&sections()));
}

#[test]
fn the_example_is_what_the_code_says() {
    assert_file("fanfare.example.toml", &example::write(&sections()));
}

#[test]
fn every_key_of_the_parser_is_documented_and_no_other() {
    for section in sections() {
        let mut documented: Vec<_> = section.keys.iter().map(|key| key.name.to_owned()).collect();
        documented.extend(section.tables());
        documented.sort();
        assert_eq!(section.known(), documented, "in [{}]", section.path);
        for key in &section.keys {
            assert!(!key.docs.is_empty(), "{}.{}", section.path, key.name);
            // A default has its reason.
            let reason = key.docs.contains("Default");
            assert_eq!(reason, !key.required, "{}.{}", section.path, key.name);
        }
    }
}

/// Only what is wrong with the value itself.
fn is_out_of_range(section: &Section, key: &Key, value: &str) -> bool {
    let text = section.with(key.name, value);
    let full = section.full_key(key.name);
    let expected = format!("expected {}", key.form);
    mistakes(&text)
        .iter()
        .any(|(of, problem)| *of == full && problem.starts_with(&expected))
}

#[test]
fn limits_are_those_that_the_parser_keeps() {
    let mut checked = 0;
    for section in sections() {
        for key in &section.keys {
            let (good, bad) = boundaries(&key.form);
            for value in &good {
                assert!(!is_out_of_range(&section, key, value), "{key:?} {value}");
            }
            for value in &bad {
                assert!(is_out_of_range(&section, key, value), "{key:?} {value}");
            }
            checked += usize::from(!good.is_empty() && !bad.is_empty());
        }
    }
    assert!(checked > 40, "{checked}");
}

#[test]
fn the_example_is_accepted_and_its_comments_are_the_defaults() {
    let example = example::write(&sections());
    let config = Config::parse(&example).unwrap();
    let mut defaults = 0;
    let uncommented: String = example
        .lines()
        .map(|line| {
            // Prose has a space behind the sign.
            let key = line.strip_prefix('#').filter(|rest| {
                rest.starts_with(|c: char| c.is_ascii_lowercase()) && rest.contains(" = ")
            });
            defaults += usize::from(key.is_some());
            format!("{}\n", key.unwrap_or(line))
        })
        .collect();
    assert!(defaults > 40, "{defaults}");
    assert_eq!(Config::parse(&uncommented), Ok(config));
    for section in sections() {
        for key in section.keys {
            let line = format!("\n{} = ", key.name);
            let named = format!(" {} = ", key.name);
            let there = uncommented.contains(&line) || uncommented.contains(&named);
            assert!(there, "{}.{}", section.path, key.name);
        }
    }
}

/// The README has the keys that most need, with the defaults that they have.
#[test]
fn the_readme_agrees() {
    const README: &str = include_str!("../../README.md");
    let (_, rest) = README.split_once("<!-- config:keys -->").unwrap();
    let (table, _) = rest.split_once("<!-- end -->").unwrap();
    let sections = sections();
    let mut section = None;
    let mut count = 0;
    for row in table.lines().filter(|line| line.starts_with("| ")).skip(1) {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let path = cells[1]
            .strip_prefix("**`[")
            .and_then(|path| path.strip_suffix("]`**"));
        if let Some(path) = path {
            section = sections.iter().find(|section| section.path == path);
            assert!(section.is_some(), "{row}");
            continue;
        }
        let section = section.expect("a section first");
        let name = cells[1].trim_matches('`');
        let key = section.keys.iter().find(|key| key.name == name);
        let key = key.unwrap_or_else(|| panic!("no such key: {row}"));
        let default = key.default.as_ref().map(|default| format!("`{default}`"));
        assert_eq!(cells[2], default.unwrap_or_default(), "{row}");
        count += 1;
    }
    assert!(count >= 10, "{count}");
}
