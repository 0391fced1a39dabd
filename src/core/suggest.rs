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

/// How much may be spent on finding what was meant by some names, in characters compared.
#[derive(Debug)]
pub struct Effort(usize);

impl Default for Effort {
    /// Some milliseconds: a few names among 5,000 that are much alike.
    fn default() -> Self {
        Self(4_000_000)
    }
}

impl Effort {
    /// Spends so much, and returns whether there was so much.
    fn spend(&mut self, effort: usize) -> bool {
        match self.0.checked_sub(effort) {
            Some(left) => self.0 = left,
            None => self.0 = 0,
        }
        self.0 > 0
    }
}

/// The name among `known` that was probably meant by `name`: the same but for case and
/// separators; one that has it before or behind a separator, or that it has so; else the
/// [`nearest`]. `None` as well once the effort is spent.
pub fn nearest_name<'k>(
    name: &str,
    known: impl Iterator<Item = &'k str>,
    effort: &mut Effort,
) -> Option<&'k str> {
    /// What it costs to look at a name.
    const LOOK: usize = 16;
    if name.len() > MAX_BYTES {
        return None;
    }
    let close_enough = name.len().div_ceil(3);
    let mut best = None;
    for known in known {
        if !effort.spend(LOOK) {
            return None;
        }
        let rank = if is_spelled_as(name, known) {
            (0, 0)
        } else if is_part_of(name, known) || is_part_of(known, name) {
            (1, known.len())
        } else if known.len() <= MAX_BYTES && known.len().abs_diff(name.len()) <= close_enough {
            let (name, known) = without_ends(name, known);
            if !effort.spend(name.len() * known.len()) {
                return None;
            }
            (2, edit_distance(name, known))
        } else {
            continue;
        };
        if rank <= (2, close_enough) && best.is_none_or(|best| (rank, known) < best) {
            best = Some((rank, known));
        }
    }
    best.map(|(_, known)| known)
}

fn is_spelled_as(one: &str, other: &str) -> bool {
    let folded = |name: &str| {
        let letters = name.bytes().filter(u8::is_ascii_alphanumeric);
        letters
            .map(|letter| letter.to_ascii_lowercase())
            .collect::<Vec<_>>()
    };
    one.len().abs_diff(other.len()) <= 4 && folded(one) == folded(other)
}

/// Whether it is what stands before or behind a separator.
fn is_part_of(part: &str, whole: &str) -> bool {
    /// Shorter ones say too little.
    const MIN_BYTES: usize = 3;
    let separator = |byte: u8| matches!(byte, b'_' | b'-' | b'.' | b'/');
    let behind = whole.strip_suffix(part);
    let behind = behind.and_then(|before| before.bytes().last());
    let before = whole.strip_prefix(part);
    let before = before.and_then(|behind| behind.bytes().next());
    part.len() >= MIN_BYTES && (behind.is_some_and(separator) || before.is_some_and(separator))
}

/// Both without how they begin and end alike, which costs nothing.
fn without_ends<'a, 'b>(a: &'a str, b: &'b str) -> (&'a str, &'b str) {
    let alike = |(a, b): &(char, char)| a == b;
    let begin = a.chars().zip(b.chars()).take_while(alike);
    let begin: usize = begin.map(|(a, _)| a.len_utf8()).sum();
    let (a, b) = (&a[begin..], &b[begin..]);
    let end = a.chars().rev().zip(b.chars().rev()).take_while(alike);
    let end: usize = end.map(|(a, _)| a.len_utf8()).sum();
    (&a[..a.len() - end], &b[..b.len() - end])
}

/// How many characters to insert, delete, replace, or swap with their neighbour, to get from
/// `a` to `b` (optimal string alignment).
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    let mut last = None;
    for (i, from) in a.chars().enumerate() {
        let mut next = Vec::with_capacity(row.len());
        next.push(i + 1);
        for (j, &to) in b.iter().enumerate() {
            let replaced = row[j] + usize::from(from != to);
            let mut least = replaced.min(row[j + 1] + 1).min(next[j] + 1);
            if j > 0 && last == Some(to) && b[j - 1] == from {
                least = least.min(before[j - 1] + 1);
            }
            next.push(least);
        }
        before = mem::replace(&mut row, next);
        last = Some(from);
    }
    row[b.len()]
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

    #[test]
    fn neighbours_that_changed_places_are_one_slip() {
        for (a, b, distance) in [
            ("", "", 0),
            ("", "abc", 3),
            ("sied", "side", 1),
            ("weahter", "weather", 1),
            ("kitten", "sitting", 3),
            ("ca", "abc", 3),
        ] {
            assert_eq!(edit_distance(a, b), distance, "{a} {b}");
            assert_eq!(edit_distance(b, a), distance, "{b} {a}");
        }
    }

    #[test]
    fn a_name_is_found_by_its_parts_however_it_is_spelled() {
        let known = [
            "weather.get_weather",
            "search",
            "search_all",
            "get_book",
            "get_books",
            "translate",
        ];
        let found = |name| nearest_name(name, known.into_iter(), &mut Effort::default());
        for (name, meant) in [
            ("get_weather", Some("weather.get_weather")),
            ("weather_get_weather", Some("weather.get_weather")),
            ("weatherGetWeather", Some("weather.get_weather")),
            ("functions.search", Some("search")),
            ("Search", Some("search")),
            ("serach", Some("search")),
            ("getBook", Some("get_book")),
            ("get_boks", Some("get_books")),
            ("transalte", Some("translate")),
            ("all", Some("search_all")),
            ("delete_everything", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(found(name), meant, "{name}");
        }
        assert_eq!(found(&"search".repeat(30)), None);
    }

    #[test]
    fn names_of_strangers_cost_no_more_than_the_effort() {
        let known: Vec<_> = (0..5000)
            .map(|index| format!("service_{index}.do_something_{index}"))
            .collect();
        let known = || known.iter().map(String::as_str);
        let mut effort = Effort::default();
        let first = nearest_name("service_7.do_somethign_7", known(), &mut effort);
        assert_eq!(first, Some("service_7.do_something_7"));
        for _ in 0..256 {
            nearest_name(&"service_1.do_".repeat(9), known(), &mut effort);
        }
        assert_eq!(effort.0, 0);
        assert_eq!(
            nearest_name("search", ["search_"].into_iter(), &mut effort),
            None
        );
    }
}
