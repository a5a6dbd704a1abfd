//! The settings of pools in the configuration.

use std::ops::Range;

use poolscope::Settings;
use poolscope::config::{ConfigError, Setting, settings};
use toml::Spanned;
use toml::de::DeValue;

use super::error::ServeError;
use crate::document::{Entry, InvalidEntry};

/// Returns the setting of a pool called `name`.
pub(super) fn setting(name: &str) -> Option<&'static Setting> {
    settings().find(|setting| setting.name() == name)
}

/// Applies the entries of a table, each of which is a setting of a pool.
pub(super) fn apply(settings: Settings, text: &str, mut entries: Vec<Entry<'_, '_>>) -> Result<Settings, ServeError> {
    // The URL first: other keys take precedence over its query.
    entries.sort_by_key(|(key, _)| &**key.get_ref() != "database_url");
    entries.into_iter().try_fold(settings, |settings, (key, value)| {
        if let (DeValue::Table(_), Some(setting)) = (value.get_ref(), setting(key.get_ref())) {
            return Err(InvalidEntry::value(text, value, setting.name(), "a table", setting.range()).into());
        }
        let range = key.span().start..value.span().end;
        // Alone, so that the time is linear in the length of the text; only an error needs the place.
        match text.get(range.clone()).map(|entry| settings.clone().apply_toml(entry)) {
            Some(Ok(applied)) => Ok(applied),
            _ => Ok(settings.apply_toml(&only(text, range))?),
        }
    })
}

/// Returns `text` with blanks outside of `range`, which thus keeps its line and column.
fn only(text: &str, range: Range<usize>) -> String {
    let blank = |at, c| if range.contains(&at) || c == '\n' { c } else { ' ' };
    text.char_indices().map(|(at, c)| blank(at, c)).collect()
}

/// Checks the name of a database, which becomes the name of its pool.
pub(super) fn check_name<T>(text: &str, key: &Spanned<T>, name: &str) -> Result<(), ServeError> {
    match Settings::default().set("name", name) {
        Err(ConfigError::Invalid { value, expected, .. }) => {
            Err(InvalidEntry::value(text, key, "name", value, expected).into())
        }
        result => Ok(result?),
    }
}
