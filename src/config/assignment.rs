//! A value that a source gives to a setting.

use super::error::ConfigError;
use super::location::Location;
use super::table::Setting;
use super::url::DatabaseUrl;
use super::value::Value;

/// A value of a setting, parsed and in its range.
#[derive(Debug)]
pub(super) enum Assignment {
    Url(DatabaseUrl),
    Value(&'static Setting, Value),
}

impl Assignment {
    pub(super) fn parse(setting: &'static Setting, text: &str, location: &Location) -> Result<Self, ConfigError> {
        if setting.is_url() {
            DatabaseUrl::parse(text, location).map(Self::Url)
        } else {
            setting.parse(text, location).map(|value| Self::Value(setting, value))
        }
    }
}
