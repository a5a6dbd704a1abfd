//! The log lines of a cache. None contains a key, a value or a message of the server.

use std::sync::Arc;

use super::store::StoreError;
use crate::labels::CacheError;
use crate::telemetry::clock::Clock;
use crate::telemetry::log::{ConditionLimiter, Limiter, event};

/// The log of one cache.
#[derive(Debug)]
pub(super) struct CacheLog {
    cache: Arc<str>,
    clock: Clock,
    suspension: ConditionLimiter<CacheError>,
    errors: [Limiter; CacheError::COUNT],
    refreshes: Limiter,
}

impl CacheLog {
    pub(super) fn new(cache: Arc<str>) -> Self {
        Self {
            cache,
            clock: Clock::new(),
            suspension: ConditionLimiter::default(),
            errors: Default::default(),
            refreshes: Limiter::default(),
        }
    }

    /// Logs that the cache is not called for a while. Called at each failure while it is.
    #[cold]
    pub(super) fn suspended(&self, error: StoreError) {
        let Some(suppressed) = self.suspension.holds_as(error.kind, self.clock.now()) else { return };
        event!(
            warn,
            cache = &*self.cache,
            kind = error.kind.as_str(),
            error_type = error.code.as_str(),
            suppressed,
            "cache is unavailable; values are loaded without it, and one lookup per second tries it again"
        );
    }

    /// Logs that the cache is called again.
    #[cold]
    pub(super) fn resumed(&self) {
        if self.suspension.ended() {
            event!(info, cache = &*self.cache, "cache is available again");
        }
    }

    /// Logs an error of the cache, by kind.
    #[cold]
    pub(super) fn failed(&self, error: StoreError) {
        let Some(suppressed) = self.errors[error.kind.index()].pass(self.clock.now()) else { return };
        let (cache, kind, error_type) = (&*self.cache, error.kind.as_str(), error.code.as_str());
        event!(warn, cache, kind, error_type, suppressed, "{}", meaning(error.kind));
    }

    /// Logs that the loader failed which was to refresh a stale value.
    #[cold]
    pub(super) fn refresh_failed(&self) {
        let Some(suppressed) = self.refreshes.pass(self.clock.now()) else { return };
        event!(
            warn,
            cache = &*self.cache,
            suppressed,
            "refreshing a stale value failed; it is used until the end of its stale window"
        );
    }
}

const fn meaning(kind: CacheError) -> &'static str {
    match kind {
        CacheError::Encode => "value could not be encoded, and is not stored",
        CacheError::Decode => {
            "stored value could not be decoded, and is loaded again; increase the cache's version when the type of its values changes"
        }
        CacheError::TooLarge => "value is larger than max_value_bytes, and is not stored",
        CacheError::Server => "cache refused a command; check its memory (maxmemory, maxmemory_policy) and its log",
        CacheError::Unavailable => "cache could not be reached",
        _ => "cache did not answer within its deadline",
    }
}
