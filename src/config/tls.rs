//! `[services.NAME.tls]`: the files are read with the configuration, so that one
//! that is missing or no PEM is found at the start.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio_rustls::rustls::{ClientConfig, pki_types::ServerName};
use toml::de::DeValue;

use super::{
    form::Form,
    kind::{Kind, optional},
    reader::Reader,
    section::{Entry, Section, section},
    text::{quoted, shown_text},
};
use crate::transport::tls::{authorities, certificates, client, mozilla, private_key};

/// What tool services speak (ALPN).
const HTTP_2: [&str; 1] = ["h2"];
const CERTIFICATES: &str = "certificates";
const PRIVATE_KEY: &str = "a private key";

section! {
    /// `[services.NAME.tls]`: how a tool service proves who it is, and how we do.
    ///
    /// Certificates and keys are PEM files, by paths from the working directory; a
    /// change takes a restart.
    pub(super) struct Keys {
        /// The authorities that may have signed the service's certificate.
        ///
        /// Default: those that Mozilla trusts.
        ca_file: Option<PathBuf> = None, optional(pem_file(CERTIFICATES));

        /// Our certificate, followed by those that lead to its authority. Needs
        /// `key_file`.
        ///
        /// Default: none is shown.
        cert_file: Option<PathBuf> = None, optional(pem_file(CERTIFICATES));

        /// The private key of `cert_file`, which it needs.
        ///
        /// Default: none, as there is no certificate.
        key_file: Option<PathBuf> = None, optional(pem_file(PRIVATE_KEY));

        /// The name that the service's certificate must have.
        ///
        /// Default: the endpoint's host.
        server_name: Option<ServerName<'static>> = None, optional(server_name());
    }
}

/// `[services.NAME.tls]`: how a tool service proves who it is, and how we do.
#[derive(Clone, Debug)]
pub struct Tls {
    keys: Keys,
    client: Arc<ClientConfig>,
}

impl Tls {
    /// The authorities that may have signed the service's certificate; `None`: those
    /// that Mozilla trusts.
    pub fn ca_file(&self) -> Option<&Path> {
        self.keys.ca_file.as_deref()
    }

    /// Our certificate and its private key, if we have one.
    pub fn identity(&self) -> Option<(&Path, &Path)> {
        let Keys {
            cert_file,
            key_file,
            ..
        } = &self.keys;
        cert_file.as_deref().zip(key_file.as_deref())
    }

    /// The name that the service's certificate must have; `None`: the endpoint's host.
    pub fn server_name(&self) -> Option<&ServerName<'static>> {
        self.keys.server_name.as_ref()
    }

    /// The client of TLS that these settings make.
    pub fn client(&self) -> &Arc<ClientConfig> {
        &self.client
    }
}

impl Default for Tls {
    fn default() -> Self {
        let client = client(mozilla(), None, &HTTP_2).unwrap_or_else(|never| panic!("{never}"));
        Self {
            keys: Keys::defaults(),
            client: Arc::new(client),
        }
    }
}

/// By the settings: nobody compares what the files had in them.
impl PartialEq for Tls {
    fn eq(&self, other: &Self) -> bool {
        self.keys == other.keys
    }
}

/// `None` if there is a mistake.
pub(super) fn read(table: &mut Reader<'_, '_>) -> Option<Tls> {
    let mut keys = Keys::defaults();
    keys.read_keys(table);
    let roots = load(table, "ca_file", &keys.ca_file, CERTIFICATES, authorities);
    let chain = load(
        table,
        "cert_file",
        &keys.cert_file,
        CERTIFICATES,
        certificates,
    );
    let private = load(table, "key_file", &keys.key_file, PRIVATE_KEY, private_key);
    table.both_or_neither("cert_file", "key_file");
    let identity = chain.zip(private);
    match client(roots.unwrap_or_else(mozilla), identity, &HTTP_2) {
        Ok(client) => Some(Tls {
            keys,
            client: Arc::new(client),
        }),
        Err(error) => {
            let problem = format!("does not go with cert_file: {error}");
            table.refuse("key_file", problem);
            None
        }
    }
}

/// What is in the file that `key` names; `None` if it names none, or one that is a
/// mistake, or if files are not read.
fn load<T>(
    table: &mut Reader<'_, '_>,
    key: &'static str,
    path: &Option<PathBuf>,
    content: &'static str,
    read: impl Fn(&Path) -> Result<T, String>,
) -> Option<T> {
    let path = path.as_deref()?;
    if table.is_offline() {
        table.leave_unread(key, path.display());
        return None;
    }
    let problem = match read(path) {
        Ok(content) => return Some(content),
        Err(problem) => problem,
    };
    let expected = Form::PemFile(content);
    let got = shown_text(&path.to_string_lossy());
    table.refuse(
        key,
        format_args!("expected {expected} ({problem}), got {got}"),
    );
    None
}

pub(super) fn entries(tls: &Tls) -> Vec<Entry> {
    tls.keys.entries()
}

fn pem_file(content: &'static str) -> Kind<PathBuf> {
    let parse = |value: &DeValue<'_>| value.as_str().map(PathBuf::from);
    let write = |path: &PathBuf| quoted(&path.to_string_lossy());
    Kind::new(Form::PemFile(content), parse, write)
}

fn server_name() -> Kind<ServerName<'static>> {
    let parse = |value: &DeValue<'_>| ServerName::try_from(value.as_str()?.to_owned()).ok();
    Kind::new(Form::HostName, parse, |name| quoted(&name.to_str()))
}
