//! Without the feature `axum`, no framework's route is known.

use super::route::Head;

pub(super) fn matched_path<'a>(_: &Head<'a>) -> Option<&'a str> {
    None
}
