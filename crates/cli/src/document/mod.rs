//! Configuration files in TOML: their entries, and errors with line and column.

mod invalid_entry;
#[cfg(test)]
mod reference;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

pub(crate) use self::invalid_entry::InvalidEntry;
#[cfg(test)]
pub(crate) use self::reference::assert_keys_current;

/// A key of a table, with its value.
pub(crate) type Entry<'a, 't> = (&'a Spanned<DeString<'t>>, &'a Spanned<DeValue<'t>>);

/// Parses a document.
pub(crate) fn parse(text: &str) -> Result<DeTable<'_>, InvalidEntry> {
    // Only the parser's message is used: its `Display` quotes the line of the error, which may hold a URL.
    DeTable::parse(text).map(Spanned::into_inner).map_err(|error| {
        let offset = error.span().map_or(0, |span| span.start);
        InvalidEntry::at(text, offset, format!("invalid TOML: {}", error.message()))
    })
}

/// Returns the entries of a table in the order of the text.
pub(crate) fn entries<'a, 't>(table: &'a DeTable<'t>) -> Vec<Entry<'a, 't>> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
}

/// Returns the table that is the value of `key`.
pub(crate) fn table<'a, 't>(
    key: &str,
    expected: &str,
    text: &str,
    value: &'a Spanned<DeValue<'t>>,
) -> Result<&'a DeTable<'t>, InvalidEntry> {
    match value.get_ref() {
        DeValue::Table(table) => Ok(table),
        other => Err(InvalidEntry::value(text, value, key, type_name(other), expected)),
    }
}

/// Returns the type of a value, for an error.
pub(crate) const fn type_name(value: &DeValue<'_>) -> &'static str {
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
