//! The extractor of the pool for axum's handlers.

use std::fmt;

use axum::extract::FromRequestParts;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::request::Parts;

use crate::pool::{Backend, Pool};
use crate::telemetry::log::{Limiter, event};

/// The rejection if the request contains no pool: there is no [`PoolLayer`](super::PoolLayer), or it does not insert the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolMissing;

impl fmt::Display for PoolMissing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no pool of this type in the request: add a PoolLayer with insert_pool enabled to the router")
    }
}

impl std::error::Error for PoolMissing {}

impl IntoResponse for PoolMissing {
    fn into_response(self) -> Response {
        static FAILURES: Limiter = Limiter::new();
        // The cause is logged and not disclosed to the client.
        if let Some(suppressed) = FAILURES.pass_now() {
            event!(error, error = %self, suppressed, "could not extract the pool from a request");
        }
        StatusCode::INTERNAL_SERVER_ERROR.into_response()
    }
}

/// Extracts the pool that a [`PoolLayer`](super::PoolLayer) inserted: `async fn list(pool: Pool) -> …`.
impl<M: Backend, S: Sync> FromRequestParts<S> for Pool<M> {
    type Rejection = PoolMissing;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, PoolMissing> {
        parts.extensions.get::<Self>().cloned().ok_or(PoolMissing)
    }
}
