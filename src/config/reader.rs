//! Takes the keys out of a TOML table one by one. Each mistake is noted with its full
//! key and position, and reading goes on, so that one run finds them all. Keys that
//! nobody took are mistakes, too.
//!
//! A setting whose value is a mistake keeps its default meanwhile. No such value gets
//! out: [`read`] gives a result only if there was no mistake.

use std::{collections::BTreeMap, fmt::Display, mem, time::Duration};

use humantime::format_duration;
use toml::{
    Spanned,
    de::{DeString, DeTable, DeValue},
};

use super::{
    kind::Kind,
    text::{self, shown},
};
use crate::{
    core::suggest::nearest,
    mistakes::{Mistake, Mistakes, Position},
};

/// Whether the files that a configuration names are read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Files {
    Read,
    /// Not here: they are on the machine that the configuration is for.
    Elsewhere,
}

/// Reads a whole text, already parsed into `root`, with `read`. Also returns the
/// settings whose files were not read.
pub(super) fn read<T>(
    text: &str,
    root: DeTable<'_>,
    files: Files,
    read: impl FnOnce(&mut Reader<'_, '_>) -> T,
) -> Result<(T, Vec<String>), Mistakes> {
    let mut notes = Notes {
        files,
        found: Vec::new(),
        unread: Vec::new(),
    };
    let value = Reader::run(String::new(), 0, root, &mut notes, read);
    let Notes {
        mut found, unread, ..
    } = notes;
    if found.is_empty() {
        return Ok((value, unread));
    }
    found.sort_by_key(|mistake| mistake.offset);
    let mistakes = found.into_iter().map(
        |Found {
             offset,
             key,
             problem,
         }| Mistake {
            position: Some(Position::of(text, offset)),
            key,
            problem,
        },
    );
    Err(Mistakes::new(mistakes.collect()))
}

/// One table that is being read.
pub(super) struct Reader<'a, 'i> {
    /// The table's own full key; empty for the root.
    path: String,
    /// Where the table begins in the text.
    offset: usize,
    /// What has not been taken yet.
    rest: DeTable<'i>,
    /// The keys that were asked for.
    known: BTreeMap<&'static str, Taken>,
    notes: &'a mut Notes,
}

/// What to report at the end.
struct Notes {
    files: Files,
    found: Vec<Found>,
    unread: Vec<String>,
}

/// What became of a key that was asked for.
#[derive(Clone, Copy, PartialEq)]
enum Taken {
    Absent,
    Good { offset: usize },
    Mistaken,
}

struct Found {
    offset: usize,
    key: String,
    problem: String,
}

impl<'i> Reader<'_, 'i> {
    fn run<T>(
        path: String,
        offset: usize,
        rest: DeTable<'i>,
        notes: &mut Notes,
        read: impl FnOnce(&mut Reader<'_, 'i>) -> T,
    ) -> T {
        let known = BTreeMap::new();
        let mut reader = Reader {
            path,
            offset,
            rest,
            known,
            notes,
        };
        let value = read(&mut reader);
        reader.refuse_rest();
        value
    }

    /// Reads the setting `key` into `field`, which stays as it is if the file has no
    /// such key.
    pub(super) fn read<T>(&mut self, key: &'static str, kind: &Kind<T>, field: &mut T) {
        let Some((name, value)) = self.rest.remove_entry(key) else {
            self.known.insert(key, Taken::Absent);
            if kind.required {
                self.note(self.offset, key, "is required".to_owned());
            }
            return;
        };
        let offset = name.span().start;
        let value = value.get_ref();
        if let Some(parsed) = (kind.parse)(value) {
            *field = parsed;
            self.known.insert(key, Taken::Good { offset });
        } else {
            let hint = (kind.hint)(value).map(|hint| format!(" ({hint})"));
            let problem = format!(
                "expected {}{}, got {}",
                kind.form,
                hint.unwrap_or_default(),
                shown(value)
            );
            self.known.insert(key, Taken::Mistaken);
            self.note(offset, key, problem);
        }
    }

    /// Notes that neither of two settings, asked for before, is there, or that both are.
    pub(super) fn exactly_one(&mut self, key: &'static str, other: &'static str) {
        if !self.has(key) && !self.has(other) {
            self.note(self.offset, key, format!("is required, or {other}"));
        } else if self.has(key) {
            self.refuse(other, format_args!("can't be there beside {key}"));
        }
    }

    /// Notes that of two settings, asked for before, one is missing.
    pub(super) fn both_or_neither(&mut self, key: &'static str, other: &'static str) {
        match (self.has(key), self.has(other)) {
            (true, false) => self.refuse(key, format_args!("needs {other}")),
            (false, true) => self.refuse(other, format_args!("needs {key}")),
            _ => {}
        }
    }

    /// Whether the file has `key`, asked for before, be it a mistake or not.
    pub(super) fn has(&self, key: &'static str) -> bool {
        self.known[key] != Taken::Absent
    }

    /// Whether the file has `key`, asked for before, with a value of its kind.
    pub(super) fn has_good(&self, key: &'static str) -> bool {
        matches!(self.known[key], Taken::Good { .. })
    }

    /// Notes a mistake about `key`, asked for before, unless it is absent or mistaken
    /// already.
    pub(super) fn refuse(&mut self, key: &'static str, problem: impl Display) {
        if let Taken::Good { offset } = self.known[key] {
            self.known.insert(key, Taken::Mistaken);
            self.note(offset, key, problem.to_string());
        }
    }

    /// Notes that `key`, whose value is `got`, should have been as `expected`, which
    /// depends on the setting `other`, unless that `holds` or either is mistaken
    /// already. Both must have been asked for before.
    pub(super) fn check(
        &mut self,
        holds: bool,
        key: &'static str,
        other: &'static str,
        expected: impl Display,
        got: impl Display,
    ) {
        let (offset, origin) = match (self.known[key], self.known[other]) {
            _ if holds => return,
            (Taken::Mistaken, _) | (_, Taken::Mistaken) => return,
            (Taken::Good { offset }, _) => (offset, ""),
            (Taken::Absent, Taken::Good { offset }) => (offset, " (the default)"),
            (Taken::Absent, Taken::Absent) => (self.offset, " (the default)"),
        };
        self.note(
            offset,
            key,
            format!("expected {expected}, got {got}{origin}"),
        );
    }

    /// Keeps `longest` from being shorter than `first`: its default grows with it, and
    /// a value in the file that is shorter is a mistake.
    pub(super) fn keep_ascending(
        &mut self,
        (first_key, first): (&'static str, Duration),
        (longest_key, longest): (&'static str, &mut Duration),
    ) {
        if !self.has(longest_key) {
            *longest = first.max(*longest);
        }
        self.check(
            *longest >= first,
            longest_key,
            first_key,
            format_args!("at least {first_key} ({})", format_duration(first)),
            format_duration(*longest),
        );
    }

    /// Whether the files that settings name are not to be read.
    pub(super) fn is_offline(&self) -> bool {
        self.notes.files == Files::Elsewhere
    }

    /// Notes that the file that `key` names was not read.
    pub(super) fn leave_unread(&mut self, key: &str, path: impl Display) {
        let key = self.full_key(key);
        self.notes.unread.push(format!("{key}: {path}"));
    }

    /// Whether what the file says of `key` is a mistake.
    pub(super) fn is_mistaken(&self, key: &'static str) -> bool {
        self.known[key] == Taken::Mistaken
    }

    /// Reads the table `key`, as an empty one if the file has none.
    pub(super) fn table<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Reader<'_, 'i>) -> T,
    ) -> T {
        self.known.insert(key, Taken::Absent);
        let (offset, table) = match self.rest.remove_entry(key) {
            Some((name, value)) => {
                let offset = name.span().start;
                let table = self.open(&name, value);
                let taken = table
                    .as_ref()
                    .map_or(Taken::Mistaken, |_| Taken::Good { offset });
                self.known.insert(key, taken);
                (offset, table)
            }
            None => (self.offset, None),
        };
        Reader::run(
            self.full_key(key),
            offset,
            table.unwrap_or_default(),
            self.notes,
            read,
        )
    }

    /// Reads the table `key` if the file has it.
    pub(super) fn optional_table<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Reader<'_, 'i>) -> T,
    ) -> Option<T> {
        if !self.rest.contains_key(key) {
            self.known.insert(key, Taken::Absent);
            return None;
        }
        Some(self.table(key, read))
    }

    /// Reads the table `key` as one of named tables, each with `read`.
    pub(super) fn named<K: Ord, T>(
        &mut self,
        key: &'static str,
        name: impl Fn(&str) -> Result<K, String>,
        mut read: impl FnMut(&str, &mut Reader<'_, 'i>) -> T,
    ) -> BTreeMap<K, T> {
        self.table(key, |section| {
            let mut entries = BTreeMap::new();
            for (key, value) in mem::take(&mut section.rest) {
                let offset = key.span().start;
                let Some(table) = section.open(&key, value) else {
                    continue;
                };
                let path = section.full_key(key.get_ref());
                let read = |table: &mut Reader<'_, 'i>| read(key.get_ref(), table);
                let entry = Reader::run(path, offset, table, section.notes, read);
                match name(key.get_ref()) {
                    Ok(name) => {
                        entries.insert(name, entry);
                    }
                    Err(problem) => section.note(offset, key.get_ref(), problem),
                }
            }
            entries
        })
    }

    /// The table that `value` should be.
    fn open(
        &mut self,
        key: &Spanned<DeString<'_>>,
        value: Spanned<DeValue<'i>>,
    ) -> Option<DeTable<'i>> {
        let value = value.into_inner();
        if let DeValue::Table(table) = value {
            return Some(table);
        }
        let problem = format!("expected a table, got {}", shown(&value));
        self.note(key.span().start, key.get_ref(), problem);
        None
    }

    fn refuse_rest(&mut self) {
        for (key, value) in mem::take(&mut self.rest) {
            let nearest = nearest(key.get_ref(), self.known.keys().copied());
            let mut problem = match nearest {
                Some(nearest) => format!("unknown key, did you mean `{nearest}`?"),
                None => {
                    let known: Vec<_> = self.known.keys().copied().collect();
                    format!("unknown key, known here are {}", known.join(", "))
                }
            };
            if self.path.contains('.') && value.get_ref().is_table() {
                problem.push_str("; a name with dots needs quotes");
            }
            self.note(key.span().start, key.get_ref(), problem);
        }
    }

    fn note(&mut self, offset: usize, key: &str, problem: String) {
        let key = self.full_key(key);
        self.notes.found.push(Found {
            offset,
            key,
            problem,
        });
    }

    fn full_key(&self, key: &str) -> String {
        match self.path.as_str() {
            "" => text::key(key),
            path => format!("{path}.{}", text::key(key)),
        }
    }
}
