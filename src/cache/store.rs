//! What a cache needs of the server that stores its values.

use std::time::Duration;

use crate::labels::{CacheError, ErrorCode};

/// A failed command. It has no text of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StoreError {
    pub(super) kind: CacheError,
    pub(super) code: ErrorCode,
}

impl StoreError {
    pub(super) const TIMEOUT: Self = Self { kind: CacheError::Timeout, code: ErrorCode::TIMEOUT };
}

/// A server that stores values by key, each for a limited time. The cache limits the time of each call, by dropping its
/// future: what it has sent may be executed later.
pub(super) trait Store: Send + Sync + 'static {
    fn get(&self, key: &str) -> impl Future<Output = Result<Option<Vec<u8>>, StoreError>> + Send;

    fn set(
        &self,
        key: &str,
        value: &[u8],
        time_to_live: Duration,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    fn delete(&self, key: &str) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Takes a lock unless it is taken, and returns whether it did. It ends after this time.
    fn lock(
        &self,
        key: &str,
        token: &str,
        time_to_live: Duration,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Releases a lock if it is still held with this token.
    fn unlock(&self, key: &str, token: &str) -> impl Future<Output = Result<(), StoreError>> + Send;
}
