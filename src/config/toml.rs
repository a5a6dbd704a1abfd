//! Settings from TOML: flat keys with the names of the settings.

use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

use super::assignment::Assignment;
use super::error::ConfigError;
use super::location::{Location, quoted};
use super::table::Setting;
use super::value::Kind;

/// Reads the settings in `text`.
pub(super) fn read(text: &str) -> Result<Vec<Assignment>, ConfigError> {
    // Only the parser's message is used: its `Display` quotes the line of the error, which may hold the URL.
    let table = DeTable::parse(text).map(Spanned::into_inner).map_err(|error| ConfigError::Toml {
        location: Location::toml(text, error.span().map_or(0, |span| span.start)).to_string(),
        problem: error.message().to_owned(),
    })?;
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    let assignments = entries.into_iter().map(|(key, value)| {
        let setting = Setting::require(key.get_ref(), &Location::toml(text, key.span().start))?;
        let location = Location::toml(text, value.span().start);
        match value_text(setting.kind(), value.get_ref()) {
            Ok(text) => Assignment::parse(setting, &text, &location),
            Err(value) => Err(setting.invalid(value, &location)),
        }
    });
    assignments.collect()
}

/// Returns the value as text that `kind` parses; or a description of the value if it has the wrong type.
fn value_text(kind: Kind, value: &DeValue<'_>) -> Result<String, String> {
    match (kind, value) {
        (Kind::Count { .. }, DeValue::Integer(number)) => Ok(decimal(number)),
        (Kind::Switch, DeValue::Boolean(on)) => Ok(on.to_string()),
        (Kind::Count { .. }, DeValue::String(text)) => Err(format!("the text {}", quoted(text))),
        (_, DeValue::String(text)) => Ok(text.clone().into_owned()),
        (Kind::Duration { .. } | Kind::OptionalDuration { .. }, DeValue::Integer(number)) => {
            // Only zero needs no unit.
            Some(decimal(number)).filter(|number| number == "0").ok_or_else(|| decimal(number))
        }
        (_, other) => Err(type_name(other).to_owned()),
    }
}

/// Returns the integer in base 10, or as it was written if it does not fit into an `i128`, which is out of every range.
fn decimal(number: &DeInteger<'_>) -> String {
    i128::from_str_radix(number.as_str(), number.radix()).map_or_else(|_| number.to_string(), |n| n.to_string())
}

const fn type_name(value: &DeValue<'_>) -> &'static str {
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

    use super::super::Settings;
    use super::super::tests::message;

    #[test]
    fn value_types_match_kinds() {
        let settings = Settings::from_toml(
            "name = 'orders'\npool_size = 1_0\nmax_overflow = 0x10\npre_ping = 'off'\nrecycle_after = \"off\"\npre_ping_idle = 0\n",
        )
        .unwrap();
        assert_eq!((settings.pool_size, settings.max_overflow), (10, 16));
        assert_eq!((settings.pre_ping, settings.recycle_after), (false, None));
        assert_eq!(settings.name.as_deref(), Some("orders"));

        for (text, problem) in [
            ("pool_size = 1.5", "line 1, column 13: invalid pool_size: a fractional number, expected a whole"),
            ("pool_size = '5'", "line 1, column 13: invalid pool_size: the text \"5\", expected a whole"),
            ("pool_size = true", "invalid pool_size: true or false, expected a whole"),
            ("pool_size = 99999999999999999999999", "invalid pool_size: "),
            ("name = 5", "invalid name: a number, expected 1 to 200 bytes"),
            ("pre_ping = 1", "invalid pre_ping: a number, expected on or off"),
            ("recycle_after = false", "invalid recycle_after: true or false, expected a duration"),
            ("checkout_timeout = 30", "invalid checkout_timeout: 30, expected a duration with its unit"),
            ("checkout_timeout = 2020-01-01", "invalid checkout_timeout: a date"),
            ("database_url = ['a']", "invalid database_url: a list, expected a URL"),
            ("name = {}", "invalid name: a table"),
        ] {
            let error = message(Settings::from_toml(text));
            assert!(error.contains(problem), "{text}: {error}");
        }
    }

    #[test]
    fn error_has_line_and_column() {
        for (text, place) in [
            ("\n\n  pool_siz = 5", "line 3, column 3: unknown setting `pool_siz`: did you mean `pool_size`?"),
            ("name = 'größe'\npool_size = 0", "line 2, column 13: invalid pool_size: \"0\""),
            ("pool_size = 5\npool_size = 6", "line 2, column 1: invalid TOML: duplicate key"),
            ("pool_size 5", "line 1, column"),
            ("[pool]\nsize = 5", "line 1, column 2: unknown setting `pool`"),
            ("database_url = 'mysql://x'", "line 1, column 16: begins with neither postgres://"),
            (
                "database_url = 'postgres://h?sslmode=on'",
                "line 1, column 16, parameter `sslmode`: invalid sslmode: \"on\"",
            ),
        ] {
            let error = message(Settings::from_toml(text));
            assert!(error.starts_with(place), "{text}: {error}");
        }
    }

    #[test]
    fn error_does_not_quote_the_password() {
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
