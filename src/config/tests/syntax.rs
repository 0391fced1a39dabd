//! Texts that are no TOML.

use super::*;

#[test]
fn syntax_errors_have_a_place() {
    let error =
        Config::parse("[server]\nlisten = \"127.0.0.1:1\"\nreflection = maybe\n").unwrap_err();
    let place = error.mistakes()[0].position.unwrap();
    assert_eq!((place.line, place.column), (3, 14), "{error}");

    // One mistake a line, in order, however many errors follow from it.
    let error = Config::parse("<<<<<<< HEAD\n[server]\n=======\n").unwrap_err();
    let places = error
        .mistakes()
        .iter()
        .filter_map(|mistake| mistake.position);
    assert_eq!(places.map(|place| place.line).collect::<Vec<_>>(), [1, 3]);

    for text in ["[server", "a = 1\na = 2", "[a]\n[a]", "=", "a = ", "\u{0}"] {
        let error = Config::parse(text).unwrap_err();
        assert!(error.mistakes()[0].position.is_some(), "{text:?}: {error}");
    }
}
