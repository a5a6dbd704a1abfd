//! Quoting of values that may hold a URL with a password.

use std::borrow::Cow;

/// Returns whether the text may hold a URL.
pub(crate) fn may_be_url(text: &str) -> bool {
    text.contains("://")
}

/// Returns the text, cut after the scheme if it may hold a URL.
pub(crate) fn masked(text: &str) -> Cow<'_, str> {
    match text.find("://") {
        Some(at) => Cow::Owned(format!("{}://…", &text[..at])),
        None => Cow::Borrowed(text),
    }
}

/// Quotes a value for an error message: escaped, shortened, and of a URL only the scheme.
pub(crate) fn quoted(value: &str) -> String {
    const MAX_CHARS: usize = 60;
    let value = &*masked(value);
    match value.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => format!("\"{}…\"", value[..end].escape_debug()),
        None => format!("\"{}\"", value.escape_debug()),
    }
}
