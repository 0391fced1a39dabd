//! What is to be exposed of a service, and nothing that it has: a slip of the pen, or a
//! service that is not what it was taken for.

use std::{collections::BTreeSet, fmt};

use super::{Wanted, shown};
use crate::{
    config::Protocol,
    core::suggest::{Effort, nearest, nearest_name},
};

/// How many patterns, and how many things that a service has, are named.
const MOST: usize = 5;

/// Patterns of `expose` that stand for nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::catalog) struct Unmatched {
    /// The first of them, each with what was probably meant.
    patterns: Vec<(String, Option<String>)>,
    more_patterns: usize,
    /// What there is instead, the first of it.
    has: Vec<String>,
    has_more: usize,
}

impl Wanted {
    /// The patterns that stand for none of `names`, if there are any. `services` are those
    /// of which it is not known what they have, as no pattern asks for it.
    pub(super) fn unmatched(&self, names: &[&str], services: &[String]) -> Option<Unmatched> {
        let is_hidden = |name: &str| self.service.hide.iter().any(|it| it.matches(name));
        let exposable: Vec<&str> = names.iter().copied().filter(|it| !is_hidden(it)).collect();
        let patterns = self.service.expose.iter();
        let unmatched: Vec<String> = patterns
            .filter(|pattern| !exposable.iter().any(|name| pattern.matches(name)))
            .map(ToString::to_string)
            .collect();
        if unmatched.is_empty() {
            return None;
        }
        let has = match self.service.protocol {
            Protocol::Fanfare => names.iter().copied().collect(),
            Protocol::Grpc => outline(names, services, &unmatched),
        };
        let mut effort = Effort::default();
        let mut meant = |pattern: &String| match self.service.protocol {
            Protocol::Fanfare => {
                nearest_name(pattern, exposable.iter().copied(), &mut effort).map(str::to_owned)
            }
            Protocol::Grpc => meant_method(pattern, &exposable, services, &mut effort),
        };
        let first = unmatched.iter().take(MOST);
        Some(Unmatched {
            patterns: first.map(|it| (it.clone(), meant(it))).collect(),
            more_patterns: unmatched.len().saturating_sub(MOST),
            has: has.iter().take(MOST).map(|it| shown(it)).collect(),
            has_more: has.len().saturating_sub(MOST),
        })
    }
}

/// The services that there are; of those that `patterns` name, their methods.
fn outline<'a>(
    methods: &[&'a str],
    services: &'a [String],
    patterns: &[String],
) -> BTreeSet<&'a str> {
    let asked: BTreeSet<&str> = patterns.iter().map(|it| service_of(it)).collect();
    let of_methods = methods.iter().map(|method| {
        let service = service_of(method);
        if asked.contains(service) {
            *method
        } else {
            service
        }
    });
    of_methods
        .chain(services.iter().map(String::as_str))
        .collect()
}

fn meant_method(
    pattern: &str,
    methods: &[&str],
    services: &[String],
    effort: &mut Effort,
) -> Option<String> {
    let all: BTreeSet<&str> = outline(methods, services, &[]);
    let service = service_of(pattern);
    let found = nearest(service, all.into_iter())?;
    match pattern.split_once('/') {
        None => Some(format!("{found}/*")),
        Some((_, method)) if found != service => Some(format!("{found}/{method}")),
        Some(_) => {
            let of_it = methods.iter().filter(|it| service_of(it) == service);
            nearest_name(pattern, of_it.copied(), effort).map(str::to_owned)
        }
    }
}

fn service_of(method: &str) -> &str {
    method.split('/').next().unwrap_or(method)
}

impl fmt::Display for Unmatched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let patterns = self.patterns.iter().map(|(pattern, meant)| match meant {
            Some(meant) => format!("{pattern} (did you mean {}?)", shown(meant)),
            None => pattern.clone(),
        });
        write!(
            f,
            "it has nothing to expose for {}",
            list(patterns, self.more_patterns)
        )?;
        match self.has.as_slice() {
            [] => f.write_str("; it has nothing at all"),
            has => write!(f, "; it has {}", list(has.iter().cloned(), self.has_more)),
        }
    }
}

fn list(shown: impl Iterator<Item = String>, more: usize) -> String {
    let shown: Vec<_> = shown.collect();
    let mut list = shown.join(", ");
    if more > 0 {
        list.push_str(&format!(" and {more} more"));
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    /// What is said of a service with these settings that has these.
    fn said(settings: &str, names: &[&str], services: &[&str]) -> Option<String> {
        let toml = format!("[services.a]\nendpoint = 'http://a'\n{settings}");
        let config = Config::parse(&toml).unwrap();
        let wanted = Wanted::new("a", &config.services["a"], &config.tools);
        let services: Vec<_> = services.iter().map(|&it| it.to_owned()).collect();
        let unmatched = wanted.unmatched(names, &services);
        unmatched.map(|it| it.to_string())
    }

    #[test]
    fn what_is_there_is_not_said() {
        let methods = ["p.Books/Get", "p.Books/List"];
        let grpc = "protocol = 'grpc'\nexpose = ['p.Books/*', '*/Get']";
        assert_eq!(said(grpc, &methods, &["p.Other"]), None);
        assert_eq!(said("expose = ['*']", &["x"], &[]), None);
        assert_eq!(said("", &[], &[]), None);
    }

    #[test]
    fn what_is_not_there_is_said_with_what_is() {
        let methods = ["p.Books/GetBook", "p.Books/List"];
        let others = ["p.Other", "p.Users"];
        for (pattern, expected) in [
            (
                "p.Boks/*",
                "p.Boks/* (did you mean p.Books/*?); it has p.Books, p.Other, p.Users",
            ),
            (
                "p.Other",
                "p.Other (did you mean p.Other/*?); it has p.Books, p.Other, p.Users",
            ),
            (
                "p.Books/GetBok",
                "p.Books/GetBok (did you mean p.Books/GetBook?); \
                 it has p.Books/GetBook, p.Books/List, p.Other, p.Users",
            ),
            (
                "acme.v1.Search/*",
                "acme.v1.Search/*; it has p.Books, p.Other, p.Users",
            ),
        ] {
            let settings = format!("protocol = 'grpc'\nexpose = ['{pattern}', 'p.Books/List']");
            let expected = format!("it has nothing to expose for {expected}");
            assert_eq!(said(&settings, &methods, &others), Some(expected));
        }
        let settings = "expose = ['serch', 'kb.*']\nhide = ['kb.*']";
        let expected = "it has nothing to expose for serch (did you mean search?), kb.*; \
                        it has kb.x, search";
        assert_eq!(said(settings, &["search", "kb.x"], &[]).unwrap(), expected);
        let expected = "it has nothing to expose for *; it has nothing at all";
        assert_eq!(said("expose = ['*']", &[], &[]).unwrap(), expected);
    }

    /// However much there is of it, and whatever a stranger calls it.
    #[test]
    fn it_is_one_short_line() {
        let patterns: Vec<_> = (0..200).map(|n| format!("'q{n}'")).collect();
        let settings = format!("expose = [{}]", patterns.join(", "));
        let names: Vec<_> = (0..5000)
            .map(|n| format!("{n:05}\n{}", "x".repeat(500)))
            .collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let said = said(&settings, &names, &[]).unwrap();
        assert!(said.starts_with("it has nothing to expose for q0, q1, q2, q3, q4 and 195 more;"));
        assert!(said.ends_with(" and 4995 more"), "{said}");
        assert!(said.len() < 1000 && !said.contains('\n'), "{said}");
    }
}
