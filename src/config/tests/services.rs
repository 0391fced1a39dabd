//! The settings of tool services: one endpoint or several, TLS and its files.

use std::{fs, path::PathBuf, time::Duration};

use http::Uri;
use tempfile::TempDir;

use super::{Config, Service, assert_refused, mistaken_keys, problem};
use crate::config::Compression;

fn uris<const N: usize>(uris: [&str; N]) -> Vec<Uri> {
    uris.map(|uri| uri.parse().unwrap()).into()
}

fn service(keys: &str) -> String {
    format!("[services.a]\n{keys}\n")
}

#[test]
fn every_setting_of_a_service_can_be_set() {
    let text = r#"
        [services.a]
        endpoints = ["http://[::1]", "https://b:1"]
        connect_timeout = "2s"
        keepalive_interval = "3s"
        keepalive_timeout = "4s"
        max_connections_per_address = 5
        max_streams_per_connection = 6
        connection_idle_timeout = "7s"
        dns_refresh_interval = "8s"
        eject_after_failures = 9
        ejection_time = "10s"
        max_ejection_time = "11s"
        max_ejected_percent = 12
        compression = "gzip"
        [services.a.tls]
        server_name = "c"
    "#;
    let config = Config::parse(text).unwrap();

    let service = Service {
        endpoints: uris(["http://[::1]", "https://b:1"]),
        connect_timeout: Duration::from_secs(2),
        keepalive_interval: Duration::from_secs(3),
        keepalive_timeout: Duration::from_secs(4),
        max_connections_per_address: Some(5),
        max_streams_per_connection: 6,
        connection_idle_timeout: Duration::from_secs(7),
        dns_refresh_interval: Duration::from_secs(8),
        eject_after_failures: 9,
        ejection_time: Duration::from_secs(10),
        max_ejection_time: Duration::from_secs(11),
        max_ejected_percent: 12,
        compression: Compression::Gzip,
        tls: config.services["a"].tls.clone(),
        ..Service::new(Uri::default())
    };
    assert_eq!(config.services["a"], service);
    let name = service.tls.as_ref().unwrap().server_name().unwrap();
    assert_eq!(name.to_str(), "c");
    assert_eq!(Config::parse(&config.to_toml()), Ok(config));
}

#[test]
fn there_is_one_endpoint_or_there_are_several() {
    let config = Config::parse(&service("endpoint = 'http://b:1'")).unwrap();
    assert_eq!(config.services["a"].endpoints, uris(["http://b:1"]));

    assert_refused(&service(""), "services.a.endpoint");
    let both = "endpoint = 'http://b'\nendpoints = ['http://c']";
    assert_refused(&service(both), "services.a.endpoints");
    let many: Vec<_> = (1..=65).map(|port| format!("'http://b:{port}'")).collect();
    let (most, too_many) = (many[..64].join(", "), many.join(", "));
    assert!(Config::parse(&service(&format!("endpoints = [{most}]"))).is_ok());
    let same = "'http://b', 'http://b'";
    for bad in ["", "1", "'b'", "'http://b', 'ftp://c'", same, &too_many] {
        let text = service(&format!("endpoints = [{bad}]"));
        assert_refused(&text, "services.a.endpoints");
    }
    assert!(problem(&service("endpoints = ['http://b', 'c']")).contains("(not \"c\")"));
    // Each points to the other where that is meant.
    let several = problem(&service("endpoint = ['http://b', 'http://c']"));
    let expected = "expected an endpoint such as \"http://host:50051\" (or `endpoints`, for \
                    several), got [\"http://b\", \"http://c\"]";
    assert_eq!(several, expected);
    let one = problem(&service("endpoints = 'http://b'"));
    assert!(
        one.contains("(or `endpoint`, for a single one), got \"http://b\""),
        "{one}"
    );
}

#[test]
fn the_longest_ejection_is_no_shorter_than_the_first() {
    let longer = "endpoint = 'http://b'\nejection_time = '2m'\n";
    let config = Config::parse(&service(longer)).unwrap();
    let service_a = &config.services["a"];
    assert_eq!(service_a.max_ejection_time, Duration::from_secs(120));

    let text = service(longer) + "max_ejection_time = '119s'";
    assert_refused(&text, "services.a.max_ejection_time");
    let text = service(longer) + "max_ejected_percent = 101";
    assert_refused(&text, "services.a.max_ejected_percent");
}

/// A folder with an authority, a certificate of it, its key, and another key.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        let key = || rcgen::KeyPair::generate().unwrap();
        let (ca, client, other) = (key(), key(), key());
        let params = || rcgen::CertificateParams::new(["a".to_owned()]).unwrap();
        let authority = params().self_signed(&ca).unwrap();
        let issuer = rcgen::Issuer::new(params(), ca);
        let certificate = params().signed_by(&client, &issuer).unwrap();
        let files = Self(tempfile::tempdir().unwrap());
        files.write("ca.pem", &authority.pem());
        files.write("cert.pem", &certificate.pem());
        files.write("key.pem", &client.serialize_pem());
        files.write("other.pem", &other.serialize_pem());
        files.write("no.pem", "no certificate");
        files
    }

    fn write(&self, name: &str, content: &str) {
        fs::write(self.path(name), content).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A service with these keys, each `key = file`.
    fn service(&self, keys: &[(&str, &str)]) -> String {
        let mut text = service("endpoint = 'https://b'\n[services.a.tls]");
        for (key, name) in keys {
            text += &format!("{key} = '{}'\n", self.path(name).display());
        }
        text
    }
}

#[test]
fn tls_files_are_read_with_the_configuration() {
    let files = Files::new();
    let keys = [
        ("ca_file", "ca.pem"),
        ("cert_file", "cert.pem"),
        ("key_file", "key.pem"),
    ];
    let config = Config::parse(&files.service(&keys)).unwrap();

    let tls = config.services["a"].tls.as_ref().unwrap();
    assert_eq!(tls.ca_file(), Some(files.path("ca.pem").as_path()));
    let (cert, key) = (files.path("cert.pem"), files.path("key.pem"));
    assert_eq!(tls.identity(), Some((cert.as_path(), key.as_path())));
    assert_eq!(Config::parse(&config.to_toml()), Ok(config));
}

#[test]
fn tls_files_that_are_no_good_are_named() {
    let files = Files::new();
    let wrong = [
        ("ca_file", "absent.pem"),
        ("cert_file", "key.pem"),
        ("key_file", "no.pem"),
    ];
    let text = files.service(&wrong);
    assert_eq!(
        mistaken_keys(&text),
        ["ca_file", "cert_file", "key_file"].map(|key| format!("services.a.tls.{key}"))
    );
    let error = Config::parse(&text).unwrap_err().to_string();
    for (_, name) in wrong {
        assert!(error.contains(name), "{error}");
    }

    let cert = ("cert_file", "cert.pem");
    let foreign = files.service(&[cert, ("key_file", "other.pem")]);
    assert_refused(&foreign, "services.a.tls.key_file");
    assert_refused(&files.service(&[cert]), "services.a.tls.cert_file");
    let key = ("key_file", "key.pem");
    assert_refused(&files.service(&[key]), "services.a.tls.key_file");
    let text = service("endpoint = 'https://b'\ntls.server_name = 'a b'");
    assert_refused(&text, "services.a.tls.server_name");
}

#[test]
fn tls_settings_need_an_endpoint_with_tls() {
    let text = service("endpoint = 'http://b'\n[services.a.tls]");
    assert_refused(&text, "services.a.tls");
    assert_refused(
        &service("endpoint = 'https://b'\ntls = 1"),
        "services.a.tls",
    );
    let plain = Config::parse(&service("endpoint = 'https://b'")).unwrap();
    assert_eq!(plain.services["a"].tls, None);
}
