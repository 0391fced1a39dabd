//! Patterns of names, with `*` for anything.

use std::fmt;

use toml::de::DeValue;

use super::{
    form::Form,
    kind::Kind,
    text::{quoted, shown},
};

/// The longest pattern, in bytes.
const MAX_BYTES: usize = 512;
const MAX_PATTERNS: usize = 256;

/// A name, or many: `*` stands for any characters, also none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    /// `None` if it is empty, longer than 512 bytes, or has spaces or what can't be seen.
    pub fn new(pattern: &str) -> Option<Self> {
        let is_visible = pattern.bytes().all(|byte| byte.is_ascii_graphic());
        let fits = (1..=MAX_BYTES).contains(&pattern.len());
        (is_visible && fits).then(|| Self(pattern.to_owned()))
    }

    /// Whether it may stand for a name that begins like this.
    pub fn may_begin_with(&self, beginning: &str) -> bool {
        match self.0.split_once('*') {
            None => self.0.starts_with(beginning),
            Some((fixed, _)) => fixed.starts_with(beginning) || beginning.starts_with(fixed),
        }
    }

    /// Whether it stands for `name`, in time of at most their lengths multiplied.
    pub fn matches(&self, name: &str) -> bool {
        let (pattern, name) = (self.0.as_bytes(), name.as_bytes());
        let (mut at, mut read) = (0, 0);
        // Behind the last star, and how far that star has read: it may have to read on.
        let mut star = None;
        while read < name.len() {
            match pattern.get(at) {
                Some(b'*') => {
                    at += 1;
                    star = Some((at, read));
                }
                Some(byte) if *byte == name[read] => (at, read) = (at + 1, read + 1),
                _ => {
                    let Some((behind, begin)) = star else {
                        return false;
                    };
                    star = Some((behind, begin + 1));
                    (at, read) = (behind, begin + 1);
                }
            }
        }
        pattern[at..].iter().all(|byte| *byte == b'*')
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

pub(super) fn patterns() -> Kind<Vec<Pattern>> {
    let parse = |value: &DeValue<'_>| {
        let elements = value
            .as_array()
            .filter(|elements| elements.len() <= MAX_PATTERNS)?;
        elements.iter().map(|it| one(it.get_ref())).collect()
    };
    let write = |patterns: &Vec<Pattern>| {
        let patterns: Vec<_> = patterns.iter().map(|it| quoted(&it.0)).collect();
        format!("[{}]", patterns.join(", "))
    };
    Kind::new(Form::Patterns, parse, write).with_hint(|value| {
        let mut elements = value.as_array()?.iter().map(|element| element.get_ref());
        let unfit = elements.find(|element| one(element).is_none())?;
        Some(format!("{} is none", shown(unfit)))
    })
}

fn one(value: &DeValue<'_>) -> Option<Pattern> {
    Pattern::new(value.as_str()?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        Pattern::new(pattern).unwrap().matches(name)
    }

    #[test]
    fn a_star_is_any_characters() {
        for (pattern, name) in [
            ("a.B/C", "a.B/C"),
            ("*", "a.B/C"),
            ("*", ""),
            ("a.B/*", "a.B/C"),
            ("*/Delete*", "a.B/DeleteAll"),
            ("*/Delete*", "a.B/Delete"),
            ("a*b*c", "a-b-b-c"),
            ("**c", "abc"),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("a.B/C", "a.B/CD"),
            ("a.B/C", "xa.B/C"),
            ("a.B/C", "a-B/C"),
            ("*/Delete*", "a.B/delete"),
            ("a*b*c", "a-b-b"),
            ("a", ""),
        ] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
        for bad in ["", "a b", "\u{e9}", &"a".repeat(513)] {
            assert_eq!(Pattern::new(bad), None);
        }
    }

    #[test]
    fn a_beginning_rules_some_names_out() {
        let may = |pattern: &str| Pattern::new(pattern).unwrap().may_begin_with("a.B/");
        assert!(
            ["*", "a.*", "a.B/*", "a.B/Get*", "a.B/C", "*/C"]
                .into_iter()
                .all(may)
        );
        assert!(!["a.B", "a.C/*", "b*", "a.BC/*"].into_iter().any(may));
    }

    #[test]
    fn many_stars_do_not_take_long() {
        // Ages, by trying all ways.
        assert!(matches(
            &"*a".repeat(255),
            &"ab".repeat(255).replace('b', "a")
        ));
        assert!(!matches(
            &format!("{}b", "*a".repeat(255)),
            &"a".repeat(512)
        ));
    }

    /// As it is defined.
    fn defined(pattern: &[u8], name: &[u8]) -> bool {
        match (pattern, name) {
            ([], name) => name.is_empty(),
            ([b'*', rest @ ..], name) => (0..=name.len()).any(|n| defined(rest, &name[n..])),
            ([first, rest @ ..], [byte, name @ ..]) => first == byte && defined(rest, name),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn it_is_as_defined(pattern in "[ab*]{1,8}", name in "[ab]{0,8}") {
            let expected = defined(pattern.as_bytes(), name.as_bytes());
            prop_assert_eq!(matches(&pattern, &name), expected);
        }
    }
}
