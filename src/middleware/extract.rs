//! The pool as an argument of axum's handlers.

use std::fmt;

use axum::extract::FromRequestParts;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::request::Parts;

use crate::pool::{Backend, Pool};

/// The layer that puts the pool into requests is not there, or does not put it there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolMissing;

impl fmt::Display for PoolMissing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no pool of this type in the request: add a PoolLayer to the router, with insert_pool on")
    }
}

impl std::error::Error for PoolMissing {}

impl IntoResponse for PoolMissing {
    fn into_response(self) -> Response {
        // What is missing is for the log, and not for whoever asked.
        tracing::error!(error = %self, "a handler cannot be called");
        StatusCode::INTERNAL_SERVER_ERROR.into_response()
    }
}

/// The pool that a [`PoolLayer`](super::PoolLayer) put into the request: `async fn list(pool: Pool) -> …`.
impl<M: Backend, S: Sync> FromRequestParts<S> for Pool<M> {
    type Rejection = PoolMissing;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, PoolMissing> {
        parts.extensions.get::<Self>().cloned().ok_or(PoolMissing)
    }
}
