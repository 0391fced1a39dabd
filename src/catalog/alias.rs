//! Names that every provider of models takes: 1 to 64 of `A-Z a-z 0-9 _ -`, beginning with
//! a letter or `_`.
//!
//! An alias depends on its tool's name alone, unless others would get the same: then all of
//! them get a hash of their names, but for one that has it as its name. So what a model was
//! told stays true, whatever order tools are found in.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt::Write as _,
};

use ring::digest::{SHA256, digest};

use crate::core::call::ToolName;

/// The longest that every provider takes.
const MAX_BYTES: usize = 64;
/// How much of a hash is in an alias, in bytes.
const HASH_BYTES: usize = 4;
/// What is kept of a longer name, before and behind the hash.
const BEGINNING: usize = 24;
const END: usize = MAX_BYTES - BEGINNING - 2 * HASH_BYTES - 2;

/// The aliases of tools with these names, in their order: each is unique, and the name of
/// no other tool.
pub(super) fn aliases<'a>(names: impl Iterator<Item = &'a ToolName>) -> Vec<String> {
    let names: Vec<&str> = names.map(ToolName::as_str).collect();
    let mut taken: HashSet<String> = names.iter().map(|&name| name.to_owned()).collect();
    let mut aliases: Vec<String> = names.iter().map(|name| plain(name)).collect();
    let mut unsettled: Vec<usize> = Vec::new();
    for (index, (name, alias)) in names.iter().zip(&mut aliases).enumerate() {
        if alias.len() > MAX_BYTES {
            *alias = hashed(name, alias, 0);
        }
        // Names are unique already.
        if alias != name {
            unsettled.push(index);
        }
    }
    // Each round has other hashes, and there are only so many names to run into.
    for round in 1.. {
        if unsettled.is_empty() {
            break;
        }
        let mut count = HashMap::<&str, usize>::new();
        for &index in &unsettled {
            *count.entry(&aliases[index]).or_default() += 1;
        }
        let is_free = |alias: &str| count[alias] == 1 && !taken.contains(alias);
        let (settled, again): (Vec<usize>, Vec<usize>) = unsettled
            .into_iter()
            .partition(|&index| is_free(&aliases[index]));
        taken.extend(settled.into_iter().map(|index| aliases[index].clone()));
        for &index in &again {
            aliases[index] = hashed(names[index], &plain(names[index]), round);
        }
        unsettled = again;
    }
    aliases
}

/// The tools that have another alias than their name, by that.
pub(super) fn by_alias<'a>(
    named: impl Iterator<Item = (&'a ToolName, &'a str)>,
) -> BTreeMap<String, ToolName> {
    named
        .filter(|(name, alias)| name.as_str() != *alias)
        .map(|(name, alias)| (alias.to_owned(), name.clone()))
        .collect()
}

/// `name` in the characters of an alias, as long as that may be.
fn plain(name: &str) -> String {
    let mut plain = String::with_capacity(name.len() + 2);
    if !name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
        plain.push_str("t_");
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    plain.extend(name.chars().map(|c| if allowed(c) { c } else { '_' }));
    plain
}

/// `plain`, or what fits of it, with a hash of `name` that is another in each round.
fn hashed(name: &str, plain: &str, round: usize) -> String {
    let mut input = name.to_owned();
    if round > 1 {
        // No name has a blank. Writing to a String does not fail.
        let _ = write!(input, " {round}");
    }
    let mut hash = String::with_capacity(2 * HASH_BYTES);
    for byte in &digest(&SHA256, input.as_bytes()).as_ref()[..HASH_BYTES] {
        let _ = write!(hash, "{byte:02x}");
    }
    // All of it is ASCII.
    if plain.len() + 1 + hash.len() <= MAX_BYTES {
        format!("{plain}_{hash}")
    } else {
        let end = &plain[plain.len() - END..];
        format!("{}_{hash}_{end}", &plain[..BEGINNING])
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn aliases_of(names: &[&str]) -> Vec<String> {
        let names: Vec<_> = names
            .iter()
            .map(|name| ToolName::try_new((*name).to_owned()).unwrap())
            .collect();
        aliases(names.iter())
    }

    #[test]
    fn what_providers_take_stays_as_it_is() {
        let longest = "a".repeat(64);
        let names = ["get_weather", "_x", "A-b", longest.as_str()];
        assert_eq!(aliases_of(&names), names);
    }

    #[test]
    fn other_characters_become_underscores() {
        let names = ["weather.get/now", "9lives", "-x", "a.b"];
        let expected = ["weather_get_now", "t_9lives", "t_-x", "a_b"];
        assert_eq!(aliases_of(&names), expected);
    }

    #[test]
    fn long_names_keep_their_beginning_and_their_end() {
        let name = "x".repeat(30) + "/" + &"y".repeat(97);
        let alias = &aliases_of(&[&name])[0];
        assert_eq!(
            *alias,
            "x".repeat(24) + "_" + &alias[25..33] + "_" + &"y".repeat(30)
        );
        assert_eq!(alias.len(), 64);
        assert!(alias[25..33].bytes().all(|b| b.is_ascii_hexdigit()));
        // The same one beside others, and another one for another name of that form.
        let other = "x".repeat(30) + "." + &"y".repeat(97);
        let both = aliases_of(&[&other, &name]);
        assert_eq!(both[1], *alias);
        assert_ne!(both[0], *alias);
    }

    #[test]
    fn all_that_collide_get_a_hash_but_the_one_whose_name_it_is() {
        let [dot, slash] = ["a.b", "a/b"].map(|name| aliases_of(&[name, "a_b"])[0].clone());
        // printf a.b | sha256sum
        assert_eq!(dot, "a_b_2e7336dc");
        assert_eq!(aliases_of(&["a.b", "a/b"]), [dot.as_str(), &slash]);
        assert_eq!(aliases_of(&["a.b", "a/b", "a_b"]), [&dot, &slash, "a_b"]);
        assert_eq!(aliases_of(&["a_b", "a/b"]), ["a_b", &slash]);
    }

    #[test]
    fn an_alias_is_never_the_name_of_another_tool() {
        let first = aliases_of(&["a.b", "a/b"]).remove(0);
        let aliases = aliases_of(&["a.b", "a/b", &first]);
        assert_eq!(aliases[2], first);
        assert_ne!(aliases[0], first);
        assert!(aliases[0].starts_with("a_b_"));
    }

    proptest! {
        #[test]
        fn aliases_are_unique_valid_and_do_not_depend_on_the_order(
            names in prop::collection::btree_set("([ab./_-]{1,4}|[a./]{62,128}|9[a._]{63})", 1..60)
        ) {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let aliases = aliases_of(&names);
            let unique: BTreeSet<_> = aliases.iter().collect();
            prop_assert_eq!(unique.len(), names.len());
            for (name, alias) in names.iter().zip(&aliases) {
                let begins = alias.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
                let valid = alias.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
                prop_assert!(begins && valid && alias.len() <= 64, "{}", alias);
                prop_assert!(alias == name || !names.contains(&alias.as_str()));
            }
            let reversed: Vec<&str> = names.iter().rev().copied().collect();
            let mut of_reversed = aliases_of(&reversed);
            of_reversed.reverse();
            prop_assert_eq!(of_reversed, aliases);
        }
    }
}
