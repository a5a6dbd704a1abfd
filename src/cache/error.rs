//! Errors of caches.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::store::StoreError;
use crate::error::human;
use crate::labels;

/// Why a value was neither found nor loaded. An unavailable cache is not among the reasons.
#[derive(Debug)]
#[non_exhaustive]
pub enum LoadError<E> {
    /// The loader failed: that of this caller, or of another one that was loading the same key.
    Loader(Arc<E>),
    /// The maximum number of loads was running for [`load_wait`](super::CacheBuilder::load_wait), so that this one did not
    /// begin: the cache is away or cold, and what it protects cannot serve all that is requested. Respond with 503.
    TooManyLoads {
        /// The cache's name.
        cache: Arc<str>,
        /// The maximum number of concurrent loads.
        max: usize,
        /// For how long this one waited for its turn.
        waited: Duration,
    },
}

impl<E> Clone for LoadError<E> {
    fn clone(&self) -> Self {
        match self {
            Self::Loader(error) => Self::Loader(Arc::clone(error)),
            Self::TooManyLoads { cache, max, waited } => {
                Self::TooManyLoads { cache: Arc::clone(cache), max: *max, waited: *waited }
            }
        }
    }
}

impl<E: fmt::Display> fmt::Display for LoadError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Loader(error) => error.fmt(f),
            Self::TooManyLoads { cache, max, waited } => {
                write!(f, "cache `{cache}`: all {max} loads that may run at a time were running for {}", human(*waited))
            }
        }
    }
}

/// Transparent: the loader's error is displayed, and has its own source.
impl<E: std::error::Error> std::error::Error for LoadError<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Loader(error) => error.source(),
            Self::TooManyLoads { .. } => None,
        }
    }
}

/// The error of [`Cache::invalidate`](super::Cache::invalidate): the value may still be stored. This process does not use it;
/// others may, until its time to live and stale window have passed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("cache `{cache}`: the stored value could not be removed ({})", .kind.as_str())]
#[non_exhaustive]
pub struct InvalidateError {
    /// The cache's name.
    pub cache: Arc<str>,
    /// The kind of failure.
    pub kind: labels::CacheError,
}

impl InvalidateError {
    pub(super) fn new(cache: &Arc<str>, error: StoreError) -> Self {
        Self { cache: Arc::clone(cache), kind: error.kind }
    }
}

/// An invalid setting of a cache.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cache `{cache}`: {setting} must be {expected}")]
#[non_exhaustive]
pub struct CacheConfigError {
    /// The cache's name.
    pub cache: String,
    /// The setting: the name of the builder's method.
    pub setting: &'static str,
    /// The valid values.
    pub expected: &'static str,
}
