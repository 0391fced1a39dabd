//! How JSON mapping changes names.

/// The name that a field has in JSON unless its descriptor gives it another one: as the
/// compiler has it (`ToJsonName` in `descriptor.cc`).
pub(super) fn lower_camel(name: &str) -> String {
    let mut camel = String::with_capacity(name.len());
    let mut upper = false;
    for c in name.chars() {
        if c == '_' {
            upper = true;
        } else {
            camel.push(if upper { c.to_ascii_uppercase() } else { c });
            upper = false;
        }
    }
    camel
}

/// The path of a field mask as the `.proto` has it. `None` if it can't be told apart.
pub(super) fn snake_path(path: &str) -> Option<String> {
    // A model may write what the `.proto` has, which JSON would not.
    if path.contains('_') {
        let snake = !path.contains(|c: char| c.is_ascii_uppercase());
        return snake.then(|| path.to_owned());
    }
    let mut snake = String::with_capacity(path.len() + 4);
    for c in path.chars() {
        if c.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
    }
    Some(snake)
}

/// The path of a field mask as JSON has it. `None` if it would not be read as the same.
pub(super) fn camel_path(path: &str) -> Option<String> {
    let camel = lower_camel(path);
    let back = snake_path(&camel);
    (back.as_deref() == Some(path)).then_some(camel)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_change_as_the_compiler_changes_them() {
        for (name, camel) in [
            ("foo_bar", "fooBar"),
            ("foo__bar", "fooBar"),
            ("_foo", "Foo"),
            ("foo_", "foo"),
            ("Foo_Bar", "FooBar"),
            ("foo_1bar", "foo1bar"),
            ("FOO", "FOO"),
        ] {
            assert_eq!(lower_camel(name), camel);
        }
        assert_eq!(snake_path("fooBar.baz").as_deref(), Some("foo_bar.baz"));
        assert_eq!(snake_path("foo_bar.baz").as_deref(), Some("foo_bar.baz"));
        assert_eq!(snake_path("foo_barBaz"), None);
        assert_eq!(camel_path("foo_bar.baz").as_deref(), Some("fooBar.baz"));
        for odd in ["fooBar", "foo__bar", "foo_1", "_foo"] {
            assert_eq!(
                camel_path(odd).as_deref(),
                if odd == "_foo" { Some("Foo") } else { None },
                "{odd}"
            );
        }
    }
}
