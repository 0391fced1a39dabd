//! Makes text from others harmless for a terminal.

/// Whether the character could steer a terminal, or reorder what it shows: control
/// characters, line separators, directional overrides.
pub(super) fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// `text` with all such characters escaped.
pub fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if steers(c) {
            escaped.extend(c.escape_default());
        } else {
            escaped.push(c);
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_steer_a_terminal_is_escaped() {
        assert_eq!(
            escaped("\x1b[2Ja\r\nb\u{7f}\u{9b}\u{202e}\u{2028}"),
            r"\u{1b}[2Ja\r\nb\u{7f}\u{9b}\u{202e}\u{2028}"
        );
        assert_eq!(escaped(r"grüß \n 東京"), r"grüß \n 東京");
    }
}
