//! Where in a JSON document something is, and what is wrong there.

use std::fmt::{self, Write as _};

use crate::core::error::Violation;

/// How many violations are told of one document; a model mends them all at once.
pub(crate) const MAX_VIOLATIONS: usize = 16;
/// How much of one key a path shows, in bytes.
const MAX_KEY_BYTES: usize = 80;
/// How much of a path is shown, in bytes.
const MAX_PATH_BYTES: usize = 512;

/// A place in a document. It lives on the stack of those who walk it, and costs nothing
/// until it is written down: as `arguments.order.items[2].price`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Path<'a> {
    above: Option<&'a Path<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Step<'a> {
    Key(&'a str),
    Index(usize),
}

impl<'a> Path<'a> {
    /// The document itself, under the name that it has for the reader.
    pub(crate) fn root(name: &'a str) -> Self {
        Self {
            above: None,
            step: Step::Key(name),
        }
    }

    /// A member of the object that is here.
    pub(crate) fn key(&'a self, key: &'a str) -> Self {
        Self {
            above: Some(self),
            step: Step::Key(key),
        }
    }

    /// An element of the list that is here.
    pub(crate) fn index(&'a self, index: usize) -> Self {
        Self {
            above: Some(self),
            step: Step::Index(index),
        }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Documents are nested some dozens of levels at most.
        if let Some(above) = self.above {
            above.fmt(f)?;
        }
        match self.step {
            Step::Index(index) => write!(f, "[{index}]"),
            Step::Key(key) if self.above.is_none() => f.write_str(key),
            Step::Key(key) => {
                let shown = &key[..key.floor_char_boundary(MAX_KEY_BYTES)];
                let more = if shown.len() < key.len() { "..." } else { "" };
                if is_identifier(shown) {
                    write!(f, ".{shown}{more}")
                } else {
                    write!(f, "[{:?}]", format!("{shown}{more}"))
                }
            }
        }
    }
}

fn is_identifier(key: &str) -> bool {
    let part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    !key.is_empty() && key.chars().all(part) && !key.starts_with(|c: char| c.is_ascii_digit())
}

/// What is wrong with a document: the first [`MAX_VIOLATIONS`] things.
#[derive(Debug, Default)]
pub(crate) struct Violations(Vec<Violation>);

impl Violations {
    /// Something is wrong at `path`.
    pub(crate) fn add(&mut self, path: &Path<'_>, description: impl Into<String>) {
        if self.0.len() < MAX_VIOLATIONS {
            let mut field = String::new();
            // Writing to a string does not fail.
            let _ = write!(field, "{path}");
            if field.len() > MAX_PATH_BYTES {
                field.truncate(field.floor_char_boundary(MAX_PATH_BYTES));
                field.push_str("...");
            }
            self.0.push(Violation::new(field, description));
        }
    }

    /// Whether what else is wrong is not told any more, and need not be looked into.
    pub(crate) fn is_full(&self) -> bool {
        self.0.len() >= MAX_VIOLATIONS
    }

    /// `it`, if nothing is wrong.
    pub(crate) fn or<T>(self, it: T) -> Result<T, Vec<Violation>> {
        if self.0.is_empty() {
            Ok(it)
        } else {
            Err(self.0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_as_in_javascript() {
        let root = Path::root("arguments");
        let (order, items) = (root.key("order"), "items");
        let items = order.key(items);
        let third = items.index(2);
        assert_eq!(
            third.key("price").to_string(),
            "arguments.order.items[2].price"
        );
        assert_eq!(root.key("a b").to_string(), r#"arguments["a b"]"#);
        assert_eq!(root.key("1").to_string(), r#"arguments["1"]"#);
        assert_eq!(root.key("").to_string(), r#"arguments[""]"#);
        assert_eq!(root.key("a\"\n").to_string(), r#"arguments["a\"\n"]"#);
    }

    #[test]
    fn paths_and_violations_are_bounded() {
        let long = "ü".repeat(1000);
        let root = Path::root("arguments");
        let key = root.key(&long);
        assert!(key.to_string().len() < 2 * MAX_KEY_BYTES);
        let mut path = root;
        let steps: Vec<_> = (0..40)
            .map(|step| ["é", "e"][step % 2].repeat(100))
            .collect();
        let mut violations = Violations::default();
        fn deeper(path: &Path<'_>, steps: &[String], violations: &mut Violations) {
            match steps.split_first() {
                Some((step, rest)) => deeper(&path.key(step), rest, violations),
                None => (0..100).for_each(|_| violations.add(path, "wrong")),
            }
        }
        deeper(&path, &steps, &mut violations);
        path = root;
        violations.add(&path, "not told any more");
        let told = violations.or(()).unwrap_err();
        assert_eq!(told.len(), MAX_VIOLATIONS);
        assert!(told.iter().all(|it| it.field.len() <= MAX_PATH_BYTES + 3));
    }
}
