//! What was probably meant by a word that nobody knows.

use std::mem;

/// Longer words are no slips of the pen; it also bounds the time for words of strangers.
const MAX_BYTES: usize = 128;

/// The one of `known` that `word` was probably meant to be.
pub fn nearest<'k>(word: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    if word.len() > MAX_BYTES {
        return None;
    }
    let length = word.chars().count();
    let close_enough = length.div_ceil(3);
    // The distance is not less than what the lengths differ by.
    let comparable = |known: &&str| {
        known.len() <= MAX_BYTES && known.chars().count().abs_diff(length) <= close_enough
    };
    known
        .filter(comparable)
        .map(|known| (edit_distance(word, known), known))
        .min()
        .filter(|(distance, _)| *distance <= close_enough)
        .map(|(_, known)| known)
}

/// How many characters to insert, delete or replace to get from `a` to `b`.
fn edit_distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = mem::replace(&mut row[0], i + 1);
        for (j, to) in b.chars().enumerate() {
            let replaced = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[row.len() - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_found_if_it_is_near_enough() {
        let known = ["timeout", "endpoint", "größe"];
        let nearest = |word| nearest(word, known.into_iter());
        assert_eq!(nearest("timeuot"), Some("timeout"));
        assert_eq!(nearest("end_point"), Some("endpoint"));
        assert_eq!(nearest("grösse"), Some("größe"));
        assert_eq!(nearest("color"), None);
        assert_eq!(nearest(&"timeout".repeat(100)), None);
        assert_eq!(super::nearest("x", [].into_iter()), None);
    }
}
