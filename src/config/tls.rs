//! `[services.NAME.tls]`: the files are read with the configuration, so that one
//! that is missing or no PEM is found at the start.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio_rustls::rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName},
};
use toml::de::DeValue;

use super::{
    reader::Reader,
    scalar::text,
    sections::{Entry, string},
};
use crate::transport::tls::{authorities, certificates, client, mozilla, private_key};

/// What tool services speak (ALPN).
const HTTP_2: [&str; 1] = ["h2"];

/// `[services.NAME.tls]`: how a tool service proves who it is, and how we do.
///
/// Certificates and keys are PEM files, by paths from the working directory; a
/// change takes a restart.
#[derive(Clone, Debug)]
pub struct Tls {
    ca_file: Option<PathBuf>,
    /// Certificate and key.
    identity: Option<(PathBuf, PathBuf)>,
    server_name: Option<ServerName<'static>>,
    client: Arc<ClientConfig>,
}

impl Tls {
    /// The authorities that may have signed the service's certificate.
    ///
    /// Default: those that Mozilla trusts.
    pub fn ca_file(&self) -> Option<&Path> {
        self.ca_file.as_deref()
    }

    /// `cert_file` and `key_file`: our certificate, with those that lead to its
    /// authority, and its private key. Both or neither. Default: none is shown.
    pub fn identity(&self) -> Option<(&Path, &Path)> {
        let (cert, key) = self.identity.as_ref()?;
        Some((cert, key))
    }

    /// The name that the certificate must have. Default: the endpoint's host.
    pub fn server_name(&self) -> Option<&ServerName<'static>> {
        self.server_name.as_ref()
    }

    /// What comes of these settings.
    pub fn client(&self) -> &Arc<ClientConfig> {
        &self.client
    }
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            ca_file: None,
            identity: None,
            server_name: None,
            client: Arc::new(
                client(mozilla(), None, &HTTP_2).unwrap_or_else(|never| panic!("{never}")),
            ),
        }
    }
}

/// What was read from equal files may differ.
impl PartialEq for Tls {
    fn eq(&self, other: &Self) -> bool {
        self.ca_file == other.ca_file
            && self.identity == other.identity
            && self.server_name == other.server_name
    }
}

/// A file, and what is in it.
type Read<T> = Option<(PathBuf, T)>;

/// `None` if there is a mistake.
pub(super) fn read(table: &mut Reader<'_, '_>) -> Option<Tls> {
    if table.is_offline() {
        Some(read_paths(table))
    } else {
        read_files(table)
    }
}

/// The settings without what is in the files.
fn read_paths(table: &mut Reader<'_, '_>) -> Tls {
    let [mut ca_file, mut cert_file, mut key_file] = [const { None::<PathBuf> }; 3];
    let mut server_name = None;
    let path = |what| {
        move |value: &DeValue<'_>| match text(value) {
            Ok(path) => Ok(Some(PathBuf::from(path))),
            Err(_) => Err(format!("a PEM file with {what}")),
        }
    };
    table.set("ca_file", &mut ca_file, path("certificates"));
    table.set("cert_file", &mut cert_file, path("certificates"));
    table.set("key_file", &mut key_file, path("a private key"));
    table.set("server_name", &mut server_name, name);
    table.both_or_neither("cert_file", "key_file");
    for (key, path) in [
        ("ca_file", &ca_file),
        ("cert_file", &cert_file),
        ("key_file", &key_file),
    ] {
        if let Some(path) = path {
            table.leave_unread(key, path.display());
        }
    }
    Tls {
        ca_file,
        identity: cert_file.zip(key_file),
        server_name,
        ..Tls::default()
    }
}

fn read_files(table: &mut Reader<'_, '_>) -> Option<Tls> {
    let mut roots: Read<RootCertStore> = None;
    let mut chain: Read<Vec<CertificateDer<'static>>> = None;
    let mut key: Read<PrivateKeyDer<'static>> = None;
    let mut server_name = None;
    table.set("ca_file", &mut roots, |value| {
        file(value, "certificates", authorities)
    });
    table.set("cert_file", &mut chain, |value| {
        file(value, "certificates", certificates)
    });
    table.set("key_file", &mut key, |value| {
        file(value, "a private key", private_key)
    });
    table.set("server_name", &mut server_name, name);
    table.both_or_neither("cert_file", "key_file");

    let (ca_file, roots) = roots.unzip();
    let ((cert_file, chain), (key_file, key)) = (chain.unzip(), key.unzip());
    match client(roots.unwrap_or_else(mozilla), chain.zip(key), &HTTP_2) {
        Ok(client) => Some(Tls {
            ca_file,
            identity: cert_file.zip(key_file),
            server_name,
            client: Arc::new(client),
        }),
        Err(error) => {
            table.refuse(
                "key_file",
                format_args!("does not go with cert_file: {error}"),
            );
            None
        }
    }
}

pub(super) fn entries(tls: &Tls) -> Vec<Entry> {
    let path = |path: &Path| string(&path.display());
    let (cert, key) = tls.identity().unzip();
    let entries = [
        ("ca_file", tls.ca_file().map(path)),
        ("cert_file", cert.map(path)),
        ("key_file", key.map(path)),
        (
            "server_name",
            tls.server_name().map(|name| string(&name.to_str())),
        ),
    ];
    let set = |(key, value): (&'static str, Option<String>)| Some((key, value?));
    entries.into_iter().filter_map(set).collect()
}

fn file<T>(
    value: &DeValue<'_>,
    what: &str,
    read: impl Fn(&Path) -> Result<T, String>,
) -> Result<Read<T>, String> {
    let expected = || format!("a PEM file with {what}");
    let path = PathBuf::from(text(value).map_err(|_| expected())?);
    match read(&path) {
        Ok(content) => Ok(Some((path, content))),
        Err(problem) => Err(format!("{} ({problem})", expected())),
    }
}

fn name(value: &DeValue<'_>) -> Result<Option<ServerName<'static>>, String> {
    let name = text(value)
        .ok()
        .and_then(|text| ServerName::try_from(text).ok());
    name.map(Some)
        .ok_or_else(|| "a host name or IP address".to_owned())
}
