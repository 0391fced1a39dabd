//! `RUST_LOG`: which lines are written.

use std::env::{self, VarError};

use tracing_subscriber::{EnvFilter, filter::LevelFilter};

/// How the targets of our own lines begin.
pub(super) const OURS: &str = "fanfare";

/// Which lines are written.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) filter: EnvFilter,
    /// Whether `debug` is on for all our own lines: then none of them is throttled.
    pub(super) all_of_ours: bool,
}

/// What `RUST_LOG` says; by default, lines of `default_level` and above.
///
/// # Errors
/// If `RUST_LOG` can't be read, with the directive.
pub(super) fn from_env(default_level: &str) -> Result<Wanted, String> {
    match env::var(EnvFilter::DEFAULT_ENV) {
        Ok(directives) if !directives.trim().is_empty() => wanted(&directives),
        Ok(_) | Err(VarError::NotPresent) => wanted(default_level),
        Err(VarError::NotUnicode(_)) => Err("RUST_LOG: expected UTF-8".to_owned()),
    }
}

/// A level below `info` for everything counts only for our own lines. Libraries, which would
/// log each frame, need a directive of their own.
pub(super) fn wanted(directives: &str) -> Result<Wanted, String> {
    let parse = |directives: &str| EnvFilter::builder().parse(directives);
    let (mut general, mut rest) = (String::new(), Vec::new());
    let (mut all, mut own) = (false, None);
    for directive in directives.split(',').map(str::trim) {
        let level = |text: &str| text.parse::<LevelFilter>().ok();
        match level(directive).filter(|_| !directive.is_empty()) {
            Some(level) if level > LevelFilter::INFO => {
                general = format!("info,{OURS}={level},");
                all = true;
            }
            _ => rest.push(directive),
        }
        match directive.strip_prefix(OURS) {
            // A target without a level means all levels.
            Some("") => own = Some(true),
            Some(rest) => {
                let level = rest.strip_prefix('=').and_then(level);
                own = level.map(|level| level > LevelFilter::INFO).or(own);
            }
            None => {}
        }
    }
    let filter = parse(&(general + &rest.join(","))).map_err(|error| {
        // The error does not say in which directive.
        let mistaken = directives.split(',').find(|one| parse(one).is_err());
        let mistaken = mistaken.unwrap_or(directives);
        format!("RUST_LOG: {error}: {mistaken:?}")
    })?;
    Ok(Wanted {
        filter,
        all_of_ours: own.unwrap_or(all),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_below_info_is_for_our_lines() {
        let cases = [
            ("debug", "info,fanfare=debug", true),
            ("TRACE", "info,fanfare=trace", true),
            ("4", "info,fanfare=debug", true),
            ("info", "info", false),
            ("warn,fanfare::net=debug", "warn,fanfare::net=debug", false),
            ("debug,h2=trace", "info,fanfare=debug,h2=trace", true),
            ("fanfare=warn,debug", "info,fanfare=warn", false),
            ("debug,fanfare=warn", "info,fanfare=warn", false),
            ("h2=debug", "h2=debug", false),
            ("fanfare", "fanfare", true),
            ("fanfare=debug", "fanfare=debug", true),
            ("off", "off", false),
        ];
        for (directives, same, all_of_ours) in cases {
            let wanted = wanted(directives).unwrap();
            let same = EnvFilter::builder().parse(same).unwrap();
            assert_eq!(wanted.filter.to_string(), same.to_string(), "{directives}");
            assert_eq!(wanted.all_of_ours, all_of_ours, "{directives}");
        }
    }
}
