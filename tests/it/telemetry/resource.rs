use std::{collections::BTreeMap, fmt::Write as _};

use fanfare::telemetry::Telemetry;

use crate::support::{collector::settings, page::Page};

/// The labels of `target_info`, with these resource attributes.
fn target_info(attributes: &[(&str, &str)]) -> BTreeMap<String, String> {
    let mut text = String::new();
    for (key, value) in attributes {
        write!(text, "{}={},", encoded(key), encoded(value)).unwrap();
    }
    let settings = settings(&[("OTEL_RESOURCE_ATTRIBUTES", &text)]);
    let telemetry = Telemetry::start(&settings, 0);
    let page = Page::of(&telemetry);
    let found = page.all("target_info", &[]);
    assert_eq!(found.len(), 1);
    assert_eq!(page.types["target_info"], "gauge");
    assert_eq!(found[0].value, 1.0);
    assert_eq!(found[0].labels["telemetry_sdk_language"], "rust");
    found[0].labels.clone()
}

/// Every byte percent-encoded.
fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        write!(encoded, "%{byte:02x}").unwrap();
        encoded
    })
}

#[tokio::test]
async fn names_of_attributes_become_labels_as_opentelemetry_says() {
    let cases = [
        ("team:owner", "team_owner"),
        ("2fa.enabled", "key_2fa_enabled"),
        ("__name__", "_name_"),
        ("a..b:-c", "a_b_c"),
        ("_private", "_private"),
        ("1", "key_1"),
        ("-1", "_1"),
        ("\u{e9}t\u{e9}", "_t_"),
        ("\u{661}", "_"),
        ("\0", "_"),
        (":", "_"),
    ];
    for (key, label) in cases {
        let labels = target_info(&[(key, "x")]);
        assert_eq!(labels.get(label).map(String::as_str), Some("x"), "{key}");
    }
}

#[tokio::test]
async fn attributes_that_become_the_same_label_are_joined() {
    // In the order of their keys, not of their labels.
    let labels = target_info(&[("a.b", "2"), ("a:b", "3"), ("a__b", "4"), ("a-b", "1")]);
    assert_eq!(labels["a_b"], "1;2;3;4");
    let labels = target_info(&[("1", "x"), ("key.1", "y")]);
    assert_eq!(labels["key_1"], "x;y");
}

#[tokio::test]
async fn every_character_gives_a_page_that_can_be_read() {
    for character in ('\0'..='\u{ff}').chain(['\u{2028}', '\u{1f600}']) {
        let keys = [
            format!("{character}"),
            format!("{character}k"),
            format!("k{character}"),
            format!("k{character}{character}k"),
        ];
        let value = format!("v{character}v");
        let labels = target_info(&keys.each_ref().map(|key| (&**key, &*value)));
        let shown = value.replace('\0', "\u{fffd}");
        let has = labels.values().any(|label| label.contains(&shown));
        assert!(has, "{character:?}: {labels:?}");
    }
}
