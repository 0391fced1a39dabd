//! The sections of the file. A key is declared once, in [`section!`]: its name, type,
//! default, kind of value and documentation. Reading, writing and `deploy/config/`
//! follow from that.

use super::{form::Form, kind::Kind, reader::Reader};

/// A table of the file with the same keys wherever it stands.
pub(super) trait Section {
    /// What it is for.
    const DOCS: &str;

    /// What a table without any key says.
    fn defaults() -> Self;

    /// Reads the keys that the table has; the others stay as they are.
    fn read_keys(&mut self, table: &mut Reader<'_, '_>);

    /// The keys and their values as TOML, in the order of the declaration.
    fn entries(&self) -> Vec<Entry>;

    /// The keys, for the documentation.
    fn keys() -> Vec<Key>;
}

/// A key and its value as TOML.
pub(super) type Entry = (&'static str, String);

/// A key, for the documentation.
#[derive(Clone, Debug)]
pub struct Key {
    /// Its name within the section.
    pub name: &'static str,
    /// What it means, and why its default is what it is.
    pub docs: &'static str,
    /// The values that it may have.
    pub form: Form,
    /// Whether the file must have it.
    pub required: bool,
    /// The default as TOML, unless it is to leave the key out.
    pub default: Option<String>,
}

impl Key {
    pub(super) fn new<T>(
        name: &'static str,
        docs: &'static str,
        kind: Kind<T>,
        default: &T,
    ) -> Self {
        Self {
            name,
            docs,
            default: (kind.write)(default).filter(|_| !kind.required),
            required: kind.required,
            form: kind.form,
        }
    }
}

/// A table as TOML.
pub(super) fn write(header: &str, entries: &[Entry]) -> String {
    let mut table = format!("[{header}]\n");
    for (key, value) in entries {
        table.extend([*key, " = ", value, "\n"]);
    }
    table
}

/// Declares a [`Section`]: a struct with a field for each key, as in
///
/// ```text
/// /// What the key means. Default 5: and why.
/// pub failures: u32 = 5, count();
/// ```
///
/// that is `name: type = default, kind;`. What stands under `beside` are fields that
/// are no keys: `name: type = default;`.
macro_rules! section {
    (
        $(#[doc = $section_docs:literal])*
        $vis:vis struct $Section:ident {
            $(
                $(#[doc = $docs:literal])*
                $key_vis:vis $key:ident: $Type:ty = $default:expr, $kind:expr;
            )*
        }
        $(beside {
            $(
                $(#[doc = $field_docs:literal])*
                $field_vis:vis $field:ident: $Field:ty = $field_default:expr;
            )*
        })?
    ) => {
        $(#[doc = $section_docs])*
        #[derive(Clone, Debug, PartialEq)]
        $vis struct $Section {
            $($(#[doc = $docs])* $key_vis $key: $Type,)*
            $($($(#[doc = $field_docs])* $field_vis $field: $Field,)*)?
        }

        impl $crate::config::section::Section for $Section {
            const DOCS: &str = concat!($($section_docs, "\n"),*);

            fn defaults() -> Self {
                Self {
                    $($key: $default,)*
                    $($($field: $field_default,)*)?
                }
            }

            fn read_keys(&mut self, table: &mut $crate::config::reader::Reader<'_, '_>) {
                $(table.read(stringify!($key), &$kind, &mut self.$key);)*
            }

            fn entries(&self) -> Vec<$crate::config::section::Entry> {
                let entries = [$(
                    ($kind.write)(&self.$key).map(|value| (stringify!($key), value)),
                )*];
                entries.into_iter().flatten().collect()
            }

            fn keys() -> Vec<$crate::config::section::Key> {
                let defaults = Self::defaults();
                vec![$($crate::config::section::Key::new(
                    stringify!($key),
                    concat!($($docs, "\n"),*),
                    $kind,
                    &defaults.$key,
                )),*]
            }
        }
    };
}
pub(super) use section;
