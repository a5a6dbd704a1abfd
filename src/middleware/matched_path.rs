//! The route that axum matched.

use axum::extract::MatchedPath;

use super::route::Head;

/// Returns the route of a request, if axum has matched one.
pub(super) fn matched_path<'a>(head: &Head<'a>) -> Option<&'a str> {
    head.extensions.get::<MatchedPath>().map(MatchedPath::as_str)
}
