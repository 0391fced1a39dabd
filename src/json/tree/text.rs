//! JSON text into a tree. `serde_json` judges the grammar; what follows relies on that,
//! and only finds where things begin and end.

use std::{borrow::Cow, str};

use serde_json::value::RawValue;

use super::{MAX_DEPTH, Node, Number, duplicates};
use crate::{
    core::error::Violation,
    json::path::{Path, Violations},
};

/// The field with the text: its syntax is that of the field, while the arguments in it
/// are `arguments`.
const FIELD: &str = "arguments_json";

pub(super) fn read(text: &[u8]) -> Result<Node<'_>, Vec<Violation>> {
    let refused = |description: String| vec![Violation::new(FIELD, description)];
    let text = str::from_utf8(text).map_err(|error| {
        refused(format!(
            "must be UTF-8, is not from byte {}",
            error.valid_up_to()
        ))
    })?;
    let text = serde_json::from_str::<&RawValue>(text)
        .map_err(|error| refused(format!("must be JSON: {error}")))?
        .get();
    let mut reader = Reader {
        text,
        at: 0,
        violations: Violations::default(),
    };
    let root = reader.value(&Path::root("arguments"), MAX_DEPTH);
    if !matches!(root, Node::Object(_)) {
        return Err(refused(format!(
            "must be a JSON object, is {}",
            root.kind()
        )));
    }
    reader.violations.or(root)
}

struct Reader<'a> {
    /// Valid JSON.
    text: &'a str,
    at: usize,
    violations: Violations,
}

impl<'a> Reader<'a> {
    fn value(&mut self, path: &Path<'_>, depth: usize) -> Node<'a> {
        match self.peek() {
            b'{' | b'[' if depth == 0 => {
                self.violations.add(path, too_deep());
                self.skip_nested();
                Node::Null
            }
            b'{' => self.object(path, depth - 1),
            b'[' => self.list(path, depth - 1),
            b'"' => Node::Text(self.string(path)),
            b'n' => self.word("null", Node::Null),
            b't' => self.word("true", Node::Bool(true)),
            b'f' => self.word("false", Node::Bool(false)),
            _ => self.number(path),
        }
    }

    fn object(&mut self, path: &Path<'_>, depth: usize) -> Node<'a> {
        let mut members = Vec::new();
        self.at += 1;
        while self.peek() == b'"' {
            let key = self.string(path);
            self.expect(b':');
            let node = self.value(&path.key(&key), depth);
            members.push((key, node));
            self.expect(b',');
        }
        self.expect(b'}');
        for index in duplicates(&members).into_iter().flatten() {
            self.violations
                .add(&path.key(&members[index].0), "must not be there twice");
        }
        Node::Object(members)
    }

    fn list(&mut self, path: &Path<'_>, depth: usize) -> Node<'a> {
        let mut items = Vec::new();
        self.at += 1;
        while !matches!(self.peek(), b']' | 0) {
            items.push(self.value(&path.index(items.len()), depth));
            self.expect(b',');
        }
        self.expect(b']');
        Node::List(items)
    }

    /// The next character that is no white space; 0 at the end.
    fn peek(&mut self) -> u8 {
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        let blank = |byte: &u8| matches!(byte, b' ' | b'\n' | b'\r' | b'\t');
        self.at += rest.iter().take_while(|byte| blank(byte)).count();
        self.text.as_bytes().get(self.at).copied().unwrap_or(0)
    }

    /// Goes over what is next if it is this.
    fn expect(&mut self, byte: u8) {
        if self.peek() == byte {
            self.at += 1;
        }
    }

    fn word(&mut self, word: &str, node: Node<'a>) -> Node<'a> {
        self.at += word.len();
        node
    }

    fn number(&mut self, path: &Path<'_>) -> Node<'a> {
        let rest = &self.text[self.at..];
        let part = |byte: u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
        let length = rest.bytes().take_while(|&byte| part(byte)).count();
        let number = Number::Digits(&rest[..length]);
        // So that a text that is no JSON after all would end.
        self.at += length.max(1);
        if !number.to_f64().is_finite() {
            self.violations
                .add(path, "must be a number within the range of a double");
        }
        Node::Number(number)
    }

    fn string(&mut self, path: &Path<'_>) -> Cow<'a, str> {
        let (rest, length) = self.quoted();
        self.at += length;
        let inner = rest.get(1..length - 1).unwrap_or_default();
        if !inner.contains('\\') {
            return Cow::Borrowed(inner);
        }
        match serde_json::from_str(&rest[..length]) {
            Ok(text) => Cow::Owned(text),
            Err(_) => {
                let lone = "must not have half of a surrogate pair (\\ud800 to \\udfff)";
                self.violations.add(path, lone);
                Cow::Borrowed("")
            }
        }
    }

    /// What is left, which begins with a string, and how long that is with its quotes.
    fn quoted(&self) -> (&'a str, usize) {
        let rest = &self.text[self.at..];
        let bytes = rest.as_bytes();
        let mut end = 1;
        loop {
            match bytes.get(end) {
                Some(b'"') | None => return (rest, (end + 1).min(rest.len()).max(2)),
                Some(b'\\') => end += 2,
                Some(_) => end += 1,
            }
        }
    }

    /// Goes over a list or an object, however deep it is.
    fn skip_nested(&mut self) {
        let mut open = 0usize;
        loop {
            match self.peek() {
                b'{' | b'[' => open += 1,
                b'}' | b']' => open -= 1,
                b'"' => self.at += self.quoted().1 - 1,
                0 => return,
                _ => {}
            }
            self.at += 1;
            if open == 0 {
                return;
            }
        }
    }
}

pub(super) fn too_deep() -> String {
    format!("must not be nested more than {MAX_DEPTH} levels deep")
}
