//! What the tools that services have are called here, and which of them can't be.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::source::{MAX_TOOLS, Offer, Told, Unusable, methods::Shape};
use crate::{
    config::{self, Protocol},
    core::call::ToolName,
};

/// A tool that gets its name from its service.
#[derive(Debug, PartialEq)]
pub(super) struct Exposed {
    pub(super) service: String,
    pub(super) name: ToolName,
    pub(super) offer: Arc<Offer>,
}

/// What becomes of all that services told.
#[derive(Debug, Default)]
pub(super) struct Names {
    pub(super) exposed: Vec<Exposed>,
    /// By service.
    pub(super) left_out: BTreeMap<String, BTreeSet<Unusable>>,
}

impl Names {
    /// Names what `services` `told`. A tool that has a section of its own among `tools` has
    /// a name already.
    pub(super) fn new(
        services: &BTreeMap<String, config::Service>,
        tools: &BTreeMap<ToolName, config::Tool>,
        told: &BTreeMap<String, Told>,
    ) -> Self {
        let mut this = Self::default();
        let with_section: BTreeSet<(&str, &str)> = tools
            .iter()
            .map(|(name, tool)| (tool.service.as_str(), tool.remote(name)))
            .collect();
        let mut by_name = BTreeMap::<ToolName, Vec<(&String, &Arc<Offer>)>>::new();
        for (service, told) in told {
            let Some(config) = services.get(service) else {
                continue;
            };
            let wanted = |remote: &str| {
                let is_in =
                    |patterns: &[config::Pattern]| patterns.iter().any(|it| it.matches(remote));
                let has_section = with_section.contains(&(service.as_str(), remote));
                !has_section && is_in(&config.expose) && !is_in(&config.hide)
            };
            for unusable in told.unusable.iter().filter(|it| wanted(&it.what)) {
                this.leave_out(service, unusable.clone());
            }
            for (count, offer) in told
                .offers
                .iter()
                .filter(|it| wanted(&it.remote))
                .enumerate()
            {
                if count >= MAX_TOOLS {
                    let why = format!("the service has over {MAX_TOOLS} tools");
                    this.leave_out(service, Unusable::new(&offer.remote, why));
                    continue;
                }
                let streams = offer.shape.as_ref().is_some_and(Shape::streams);
                let collects = config
                    .tool_defaults
                    .as_ref()
                    .is_some_and(|it| it.stream.is_some());
                if streams && !collects {
                    let why = "it answers with a stream, and `stream` is not set";
                    this.leave_out(service, Unusable::new(&offer.remote, why));
                    continue;
                }
                match ToolName::try_new(name(config, &offer.remote)) {
                    Ok(name) => by_name.entry(name).or_default().push((service, offer)),
                    Err(why) => {
                        let why = format!("its name {why}");
                        this.leave_out(service, Unusable::new(&offer.remote, why));
                    }
                }
            }
        }
        for (name, offers) in by_name {
            match *offers {
                [(service, offer)] if !tools.contains_key(&name) => this.exposed.push(Exposed {
                    service: service.clone(),
                    name,
                    offer: Arc::clone(offer),
                }),
                _ => this.leave_out_namesakes(&name, &offers),
            }
        }
        this
    }

    fn leave_out_namesakes(&mut self, name: &ToolName, offers: &[(&String, &Arc<Offer>)]) {
        for &(service, offer) in offers {
            let other = offers
                .iter()
                .find(|(_, other)| !Arc::ptr_eq(other, offer))
                .map(|(service, other)| format!("{} of {service}", other.remote));
            let other = other.unwrap_or_else(|| format!("[tools.{name}]"));
            let why = format!(
                "it would be {name}, as {other}: give it a section [tools.NAME] with `remote`"
            );
            self.leave_out(service, Unusable::new(&offer.remote, why));
        }
    }

    /// Notes that `service` has a tool that can't be used.
    pub(super) fn leave_out(&mut self, service: &str, unusable: Unusable) {
        let left_out = self.left_out.entry(service.to_owned()).or_default();
        left_out.insert(unusable);
    }
}

/// What a tool that `service` calls `remote` is called here.
fn name(service: &config::Service, remote: &str) -> String {
    let own = match service.protocol {
        Protocol::Fanfare => remote.to_owned(),
        Protocol::Grpc => snake_case(remote.rsplit('/').next().unwrap_or(remote)),
    };
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/');
    let own = own.chars().map(|c| if allowed(c) { c } else { '_' });
    service.prefix.chars().chain(own).collect()
}

/// `GetHTTPBook2` as `get_http_book2`.
fn snake_case(name: &str) -> String {
    let chars: Vec<char> = name.chars().collect();
    let mut snake = String::with_capacity(name.len() + 8);
    for (at, &c) in chars.iter().enumerate() {
        let before = at.checked_sub(1).map(|before| chars[before]);
        let begins_word = |before: char| {
            let ends_acronym = chars.get(at + 1).is_some_and(char::is_ascii_lowercase);
            before.is_ascii_lowercase()
                || before.is_ascii_digit()
                || (before.is_ascii_uppercase() && ends_acronym)
        };
        if c.is_ascii_uppercase() && before.is_some_and(begins_word) {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
    }
    snake
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn methods_are_named_in_snake_case() {
        for (method, expected) in [
            ("GetBook", "get_book"),
            ("getBook", "get_book"),
            ("get_book", "get_book"),
            ("GetHTTPBook", "get_http_book"),
            ("HTTPGet", "http_get"),
            ("ListV2Books", "list_v2_books"),
            ("Get", "get"),
            ("GETALL", "getall"),
            ("Get2", "get2"),
            ("EmptyCall", "empty_call"),
        ] {
            assert_eq!(snake_case(method), expected);
        }
    }

    fn told(remotes: &[&str]) -> Told {
        let offer = |remote: &&str| {
            Arc::new(Offer {
                remote: (*remote).to_owned(),
                ..Offer::default()
            })
        };
        Told {
            offers: remotes.iter().map(offer).collect(),
            ..Told::default()
        }
    }

    /// The names, and what is left out, of services `a` and `b` that have these settings
    /// and have told these.
    fn names(toml: &str, a: &[&str], b: &[&str]) -> (Vec<String>, Vec<String>) {
        let toml =
            format!("services.a.endpoint = 'http://a'\nservices.b.endpoint = 'http://b'\n{toml}");
        let config = Config::parse(&toml).unwrap();
        let told = [("a".to_owned(), told(a)), ("b".to_owned(), told(b))].into();
        let names = Names::new(&config.services, &config.tools, &told);
        let exposed = names.exposed.iter().map(|it| it.name.as_str().to_owned());
        let left_out = names.left_out.iter().flat_map(|(service, unusable)| {
            unusable
                .iter()
                .map(move |it| format!("{service} {}: {}", it.what, it.why))
        });
        (exposed.collect(), left_out.collect())
    }

    #[test]
    fn a_name_is_the_prefix_and_what_the_service_says() {
        let settings = "services.a.expose = ['*']\nservices.a.prefix = 'a.'\n\
                        services.b.protocol = 'grpc'\nservices.b.expose = ['p.S/*']\n\
                        services.b.hide = ['*/Get*']";
        let (exposed, left_out) = names(
            settings,
            &["search", "two words", "\u{e9}"],
            &["p.S/GetBook", "p.S/ListBooks", "q.S/ListAll"],
        );
        assert_eq!(exposed, ["a._", "a.search", "a.two_words", "list_books"]);
        assert!(left_out.is_empty(), "{left_out:?}");
    }

    #[test]
    fn two_of_one_name_are_both_left_out_unless_a_section_tells_them_apart() {
        let both = "services.a.expose = ['*']\nservices.b.expose = ['*']\n";
        let (exposed, left_out) = names(both, &["search", "x y", "x_y"], &["search", "other"]);
        assert_eq!(exposed, ["other"]);
        assert_eq!(left_out.len(), 4);
        assert_eq!(
            left_out[0],
            "a search: it would be search, as search of b: give it a section [tools.NAME] \
             with `remote`"
        );
        let apart = format!("{both}tools.search_a = {{ service = 'a', remote = 'search' }}");
        let (exposed, left_out) = names(&apart, &["search"], &["search"]);
        assert_eq!((exposed, left_out.len()), (vec!["search".to_owned()], 0));
        // A name of the file is the file's.
        let taken = format!("{both}tools.search = {{ service = 'a', remote = 'find' }}");
        let (exposed, left_out) = names(&taken, &["find", "search"], &[]);
        assert!(exposed.is_empty());
        assert!(left_out[0].contains("as [tools.search]"), "{left_out:?}");
    }

    #[test]
    fn what_can_t_be_named_is_left_out_alone() {
        let settings = "services.a.expose = ['*']\nservices.a.prefix = 'abc'";
        let long = "x".repeat(126);
        let (exposed, left_out) = names(settings, &["x", &long], &["not_exposed"]);
        assert_eq!(exposed, ["abcx"]);
        assert_eq!(left_out.len(), 1);
        assert!(left_out[0].contains("at most 128"), "{left_out:?}");
        let many: Vec<_> = (0..MAX_TOOLS + 2).map(|n| format!("t{n:05}")).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        let (exposed, left_out) = names(settings, &many, &[]);
        assert_eq!((exposed.len(), left_out.len()), (MAX_TOOLS, 2));
    }
}
