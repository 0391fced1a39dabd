//! The configuration file: TOML text becomes a [`Config`] that is right by
//! construction, or a [`Mistakes`] that names every mistake at once.
//!
//! A section is a file in `config/`: its type, its keys and what is checked about them.
//! A key is declared once, and reading, writing and the files of `deploy/config/`
//! follow from its declaration (see `config/section.rs`). The TOML comes parsed from
//! `toml`, with positions; what is made of it is our own, as serde and the libraries on
//! top of it stop at the first mistake or lose the positions.
//!
//! Binding, connecting and applying the limits is up to those who read the settings.

mod breaker;
mod compression;
mod docs;
mod endpoint;
mod form;
mod hedge;
mod kind;
mod limits;
mod memory;
mod pattern;
mod reader;
mod retry;
mod retry_budget;
mod schema_file;
mod section;
mod server;
mod service;
mod source;
#[cfg(test)]
mod tests;
mod text;
mod tls;
mod tool;
mod tool_defaults;
mod units;

use std::{collections::BTreeMap, fs, path::Path};

use toml::de::DeTable;

use self::{
    reader::{Files, Reader},
    section::Section as _,
};
use crate::{
    core::call::ToolName,
    mistakes::{Mistake, Mistakes, Position},
};

pub(crate) use self::kind::duration_from;
pub(crate) use self::service::max_connections_per_address;
pub use self::{
    breaker::Breaker,
    compression::Compression,
    docs::{SectionDocs, sections},
    form::Form,
    hedge::HedgeDelay,
    limits::Limits,
    pattern::Pattern,
    retry::Retry,
    retry_budget::RetryBudget,
    schema_file::InputSchema,
    section::Key,
    server::{MAX_WORKERS, Server},
    service::Service,
    source::{Descriptors, FromSource, Protocol, Stream},
    tls::Tls,
    tool::Tool,
    tool_defaults::ToolDefaults,
};

/// All settings of the service.
///
/// ```
/// use fanfare::config::Config;
///
/// let config = Config::parse(
///     r#"
///     [services.weather]
///     endpoint = "http://weather.tools.svc:50051"
///     [tools.get_weather]
///     service = "weather"
///     timeout = "5s"
///     "#,
/// )?;
/// assert_eq!(config.tools["get_weather"].timeout.as_secs(), 5);
/// assert_eq!(config.limits.max_calls_per_request, 256);
///
/// let error = Config::parse("[limits]\nmax_calls_per_request = 0").unwrap_err();
/// assert_eq!(error.mistakes()[0].key, "limits.max_calls_per_request");
/// # Ok::<(), fanfare::mistakes::Mistakes>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// `[server]`: where and how callers connect.
    pub server: Server,
    /// `[limits]`: what one request and this process may use.
    pub limits: Limits,
    /// `[services.NAME]`: the remote tool services.
    pub services: BTreeMap<String, Service>,
    /// `[tools.NAME]`: what may be called. May be empty: then every call is of
    /// an unknown tool.
    pub tools: BTreeMap<ToolName, Tool>,
}

impl Config {
    /// Reads settings from TOML text. An empty text is a service with the
    /// defaults and without tools.
    ///
    /// # Errors
    /// Every mistake in the text, in its order; or, if it is no TOML, the
    /// syntax errors alone.
    pub fn parse(text: &str) -> Result<Self, Mistakes> {
        Ok(Self::read(text, Files::Read)?.0)
    }

    /// As [`Config::parse`], on another machine than the one that it is for: files
    /// that settings name are not read. Also gives these settings, each with its
    /// path, such as `services.weather.tls.ca_file: /tls/ca.crt`.
    ///
    /// # Errors
    /// As [`Config::parse`].
    pub fn parse_offline(text: &str) -> Result<(Self, Vec<String>), Mistakes> {
        Self::read(text, Files::Elsewhere)
    }

    fn read(text: &str, files: Files) -> Result<(Self, Vec<String>), Mistakes> {
        let (root, syntax_errors) = DeTable::parse_recoverable(text);
        if !syntax_errors.is_empty() {
            return Err(syntax_mistakes(text, &syntax_errors));
        }
        reader::read(text, root.into_inner(), files, read)
    }

    /// Reads settings from a file.
    ///
    /// # Errors
    /// If the file can't be read, a single mistake that names its path; else as
    /// [`Config::parse`].
    pub fn load(path: &Path) -> Result<Self, Mistakes> {
        match fs::read_to_string(path) {
            Ok(text) => Self::parse(&text),
            Err(error) => Err(Mistakes::new(vec![Mistake {
                position: None,
                key: String::new(),
                problem: format!("can't read {}: {error}", path.display()),
            }])),
        }
    }

    /// All settings, with those that were left to their defaults, as TOML that
    /// [`Config::parse`] reads back to an equal value.
    pub fn to_toml(&self) -> String {
        let mut tables = vec![
            section::write("server", &self.server.entries()),
            section::write("limits", &self.limits.entries()),
        ];
        for (name, service) in &self.services {
            tables.extend(service::write(name, service));
        }
        for (name, tool) in &self.tools {
            tables.extend(tool::write(name, tool));
        }
        tables.join("\n")
    }
}

fn read(root: &mut Reader<'_, '_>) -> Config {
    let server = root.table("server", server::read);
    let limits = root.table("limits", limits::read);
    let services = root.named("services", service::name, |_, table| {
        service::read(table, &limits)
    });
    let tools = root.named("tools", tool::name, |name, table| {
        tool::read(name, table, &services, &limits)
    });
    Config {
        server,
        limits,
        services,
        tools,
    }
}

/// The first syntax error of each line: the others mostly follow from it.
fn syntax_mistakes(text: &str, errors: &[toml::de::Error]) -> Mistakes {
    let mistake = |error: &toml::de::Error| Mistake {
        position: error.span().map(|span| Position::of(text, span.start)),
        key: String::new(),
        problem: error.message().replace('\n', ", "),
    };
    let mut mistakes: Vec<_> = errors.iter().map(mistake).collect();
    mistakes.sort_by_key(|mistake| mistake.position);
    mistakes.dedup_by_key(|mistake| mistake.position.map(|position| position.line));
    Mistakes::new(mistakes)
}
