//! Settings from TOML: flat keys, the settings' own names.

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::Settings;
use super::error::{ConfigError, Origin, quoted};
use super::table::{self, Setting};
use super::value::Kind;

/// A key of a table, with its value.
pub(crate) type Entry<'a, 't> = (&'a Spanned<DeString<'t>>, &'a Spanned<DeValue<'t>>);

pub(super) fn apply(settings: &mut Settings, text: &str) -> Result<(), ConfigError> {
    apply_entries(settings, text, entries(&parse(text)?))
}

/// Reads a text that is to be TOML.
pub(crate) fn parse(text: &str) -> Result<DeTable<'_>, ConfigError> {
    // The parser's error quotes the line it stumbled over, which may hold the URL: only its message is taken.
    DeTable::parse(text).map(Spanned::into_inner).map_err(|error| ConfigError::Toml {
        origin: Origin::toml(text, error.span().map_or(0, |span| span.start)),
        problem: error.message().to_owned(),
    })
}

/// What a table holds, in the order in which it stands there.
pub(crate) fn entries<'a, 't>(table: &'a DeTable<'t>) -> Vec<Entry<'a, 't>> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
}

/// Takes over settings that stand in `text`.
pub(crate) fn apply_entries<'a, 't: 'a>(
    settings: &mut Settings,
    text: &str,
    entries: impl IntoIterator<Item = Entry<'a, 't>>,
) -> Result<(), ConfigError> {
    let mut found: Vec<(&Setting, String, Origin)> = Vec::new();
    for (key, value) in entries {
        let origin = Origin::toml(text, key.span().start);
        let setting = table::find(key.get_ref(), &origin)?;
        let origin = Origin::toml(text, value.span().start);
        let text = text_of(setting.kind(), value.get_ref()).map_err(|value| setting.invalid(value, &origin))?;
        found.push((setting, text, origin));
    }
    // The URL first: a key of its own wins over the URL's query.
    found.sort_by_key(|(setting, ..)| !setting.is_url());
    for (setting, text, origin) in found {
        settings.assign(setting, &text, &origin)?;
    }
    Ok(())
}

/// The value as a kind reads it; or, if its type does not go with the kind, what it is.
pub(crate) fn text_of(kind: Kind, value: &DeValue<'_>) -> Result<String, String> {
    match (kind, value) {
        (Kind::Count { .. }, DeValue::Integer(number)) => Ok(decimal(number)),
        (Kind::Switch, DeValue::Boolean(on)) => Ok(on.to_string()),
        (Kind::Count { .. }, DeValue::String(text)) => Err(format!("the text {}", quoted(text))),
        (_, DeValue::String(text)) => Ok(text.clone().into_owned()),
        (Kind::Duration { .. } | Kind::OptionalDuration { .. }, DeValue::Integer(number)) => {
            // Only zero needs no unit.
            Some(decimal(number)).filter(|number| number == "0").ok_or_else(|| decimal(number))
        }
        (_, other) => Err(type_of(other).to_owned()),
    }
}

/// The integer in base 10; whole as it was written if it is too large to be read, which no range admits.
fn decimal(number: &toml::de::DeInteger<'_>) -> String {
    i128::from_str_radix(number.as_str(), number.radix()).map_or_else(|_| number.to_string(), |n| n.to_string())
}

pub(crate) const fn type_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a fractional number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::tests::message;
    use super::*;

    #[test]
    fn toml_takes_each_type_for_the_kinds_it_fits() {
        let settings = Settings::from_toml(
            "name = 'orders'\npool_size = 1_0\nmax_overflow = 0x10\npre_ping = 'off'\nrecycle_after = \"off\"\npre_ping_idle = 0\n",
        )
        .unwrap();
        assert_eq!((settings.pool_size, settings.max_overflow), (10, 16));
        assert_eq!((settings.pre_ping, settings.recycle_after), (false, None));
        assert_eq!(settings.name.as_deref(), Some("orders"));

        for (text, problem) in [
            ("pool_size = 1.5", "line 1, column 13: pool_size cannot be a fractional number: give a whole"),
            ("pool_size = '5'", "line 1, column 13: pool_size cannot be the text \"5\": give a whole"),
            ("pool_size = true", "pool_size cannot be true or false: give a whole"),
            ("pool_size = 99999999999999999999999", "pool_size cannot be"),
            ("name = 5", "name cannot be a number: give 1 to 200 bytes"),
            ("pre_ping = 1", "pre_ping cannot be a number: give on or off"),
            ("recycle_after = false", "recycle_after cannot be true or false: give a time"),
            ("checkout_timeout = 30", "checkout_timeout cannot be 30: give a time with its unit"),
            ("checkout_timeout = 2020-01-01", "checkout_timeout cannot be a date"),
            ("database_url = ['a']", "database_url cannot be a list: give a URL"),
            ("name = {}", "name cannot be a table"),
        ] {
            let error = message(Settings::from_toml(text));
            assert!(error.contains(problem), "{text}: {error}");
        }
    }

    #[test]
    fn a_toml_error_says_line_and_column() {
        for (text, place) in [
            ("\n\n  pool_siz = 5", "line 3, column 3: there is no setting `pool_siz`: did you mean `pool_size`?"),
            ("name = 'größe'\npool_size = 0", "line 2, column 13: pool_size cannot be \"0\""),
            ("pool_size = 5\npool_size = 6", "line 2, column 1: not valid TOML: duplicate key"),
            ("pool_size 5", "line 1, column"),
            ("[pool]\nsize = 5", "line 1, column 2: there is no setting `pool`"),
            ("database_url = 'mysql://x'", "line 1, column 16: begins with neither postgres://"),
            (
                "database_url = 'postgres://h?sslmode=on'",
                "line 1, column 16, parameter `sslmode`: sslmode cannot be \"on\"",
            ),
        ] {
            let error = message(Settings::from_toml(text));
            assert!(error.starts_with(place), "{text}: {error}");
        }
    }

    #[test]
    fn a_toml_error_does_not_quote_the_line_that_holds_the_password() {
        for text in [
            "database_url = postgres://app:hunter2@db/shop",
            "database_url = \"postgres://app:hunter2@db/shop",
            "database_url = 'postgres://app:hunter2@db/shop' x",
            "database_url = 'postgres://app:hunter2@db/shop?nonsense=1'",
            "database_url = { url = 'postgres://app:hunter2@db/shop' }",
        ] {
            let error = Settings::from_toml(text).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
        }
    }
}
