//! The settings of a cache.

use std::time::Duration;

use super::error::CacheConfigError;

const MILLISECOND: Duration = Duration::from_millis(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// The settings of a cache, with the names of the builder's methods, which describe them.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct CacheSettings {
    pub(super) time_to_live: Duration,
    pub(super) jitter: f64,
    pub(super) stale_window: Duration,
    /// Zero to not store that there is no value.
    pub(super) negative_time_to_live: Duration,
    pub(super) max_value_bytes: usize,
    pub(super) key_prefix: String,
    pub(super) version: u32,
    pub(super) deadline: Duration,
    pub(super) max_loads: usize,
    pub(super) load_wait: Duration,
    pub(super) lock: Option<Duration>,
}

impl Default for CacheSettings {
    fn default() -> Self {
        Self {
            time_to_live: MINUTE,
            jitter: 0.1,
            stale_window: Duration::ZERO,
            negative_time_to_live: Duration::ZERO,
            max_value_bytes: 1 << 20,
            key_prefix: "poolscope".to_owned(),
            version: 1,
            deadline: Duration::from_millis(100),
            max_loads: 10,
            load_wait: Duration::from_secs(5),
            lock: None,
        }
    }
}

impl CacheSettings {
    /// Returns the beginning of each key in the store.
    pub(super) fn prefix(&self, cache: &str) -> String {
        format!("{}:{cache}:v{}:", self.key_prefix, self.version)
    }

    /// Returns the beginning of each lock's key, with which no value's key begins.
    pub(super) fn lock_prefix(&self, cache: &str) -> String {
        format!("{}:{cache}:v{}-lock:", self.key_prefix, self.version)
    }

    /// Returns the longest time for which a value remains in the store.
    pub(super) fn longest_stay(&self) -> Duration {
        (self.time_to_live + self.stale_window).max(self.negative_time_to_live)
    }

    pub(super) fn validate(&self, cache: &str) -> Result<(), CacheConfigError> {
        let within = |time: Duration, min: Duration, max: Duration| (min..=max).contains(&time);
        let checks = [
            ("name", (1..=64).contains(&cache.len()), "1 to 64 bytes long"),
            ("key_prefix", !self.key_prefix.is_empty(), "not empty"),
            ("time_to_live", within(self.time_to_live, MILLISECOND, YEAR), "1 ms to 365 days"),
            ("jitter", (0.0..=1.0).contains(&self.jitter), "0 to 1"),
            ("stale_window", within(self.stale_window, Duration::ZERO, YEAR), "0 to 365 days"),
            ("negative_time_to_live", within(self.negative_time_to_live, Duration::ZERO, YEAR), "0 to 365 days"),
            ("max_value_bytes", (1..=512 << 20).contains(&self.max_value_bytes), "1 byte to 512 MiB"),
            ("deadline", within(self.deadline, MILLISECOND, MINUTE), "1 ms to 1 min"),
            ("max_loads", (1..=10_000).contains(&self.max_loads), "1 to 10000"),
            ("load_wait", within(self.load_wait, Duration::ZERO, HOUR), "0 to 1 h"),
            ("lock_across_processes", self.lock.is_none_or(|time| within(time, MILLISECOND, HOUR)), "1 ms to 1 h"),
        ];
        match checks.into_iter().find(|(_, is_valid, _)| !is_valid) {
            Some((setting, _, expected)) => Err(CacheConfigError { cache: cache.to_owned(), setting, expected }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_settings_are_named() {
        let valid = CacheSettings::default();
        assert_eq!(valid.validate("products"), Ok(()));
        assert_eq!(valid.validate("").unwrap_err().setting, "name");
        let invalid = CacheSettings { jitter: f64::NAN, ..valid.clone() };
        let error = invalid.validate("products").unwrap_err();
        assert_eq!(error.to_string(), "cache `products`: jitter must be 0 to 1");
        for invalid in [
            CacheSettings { time_to_live: Duration::ZERO, ..valid.clone() },
            CacheSettings { max_loads: 0, ..valid.clone() },
            CacheSettings { deadline: Duration::ZERO, ..valid.clone() },
            CacheSettings { lock: Some(Duration::ZERO), ..valid },
        ] {
            assert!(invalid.validate("products").is_err(), "{invalid:?}");
        }
    }

    #[test]
    fn keys_contain_name_and_version() {
        let settings = CacheSettings { version: 3, ..CacheSettings::default() };
        assert_eq!(settings.prefix("products"), "poolscope:products:v3:");
    }
}
