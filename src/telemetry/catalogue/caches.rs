//! The metrics of caches in front of a pool.

use super::{Kind, Metric};
use crate::labels::{CacheError, CacheResult, Direction, Outcome};
use crate::telemetry::caches::CacheTotals;
use crate::telemetry::clock::{seconds, to_f64};

/// Defines a metric with a sample for each cache: `$of` its [`CacheTotals`].
macro_rules! of_caches {
    ($name:literal, $kind:ident, $help:literal, $of:expr) => {
        Metric::of_pool($name, Kind::$kind, &["cache"], $help, |pool, sink| {
            let of: fn(&CacheTotals) -> f64 = $of;
            for cache in &pool.caches {
                sink.value(&[&cache.name], of(cache));
            }
        })
    };
}

pub(super) const LOOKUPS_STARTED: Metric = of_caches!(
    "poolscope_cache_lookups_started_total",
    Counter,
    "Lookups begun. At every scrape equal to the sum of poolscope_cache_lookups_total plus those in flight. At most 50 caches per pool; further ones are counted as other. The pool is that whose load the cache saves (CacheBuilder::loads_from), or else that of the cache itself.",
    |cache| to_f64(cache.started)
);

pub(super) const LOOKUPS: Metric = Metric::of_pool(
    "poolscope_cache_lookups_total",
    Kind::Counter,
    &["cache", "result"],
    "Lookups by what the cache answered: hit, stale (the time to live had passed), negative (stored information that there is no value), miss (the caller's loader was called), coalesced (the result of another caller's load was shared), bypassed (the cache could not be read in time, and the caller's loader was called) or cancelled (dropped before the answer). The result of the load does not matter.",
    |pool, sink| {
        for cache in &pool.caches {
            for result in CacheResult::ALL {
                sink.value(&[&cache.name, result.as_str()], to_f64(cache.results[result.index()]));
            }
        }
    },
);

pub(super) const LOAD_DURATION: Metric = Metric::of_pool(
    "poolscope_cache_load_duration_seconds",
    Kind::Histogram,
    &["cache", "outcome"],
    "Duration of loads, from the call of the loader to its end, including those that refresh a stale value, by outcome: ok, error (also a panic), cancelled (dropped), or shed (refused because the maximum number of loads was running; the duration is the wait).",
    |pool, sink| {
        for cache in &pool.caches {
            for outcome in Outcome::ALL {
                let durations = &cache.loads[outcome.index()];
                if durations.count() > 0 {
                    sink.histogram(&[&cache.name, outcome.as_str()], durations);
                }
            }
        }
    },
);

pub(super) const LOADS_IN_FLIGHT: Metric = of_caches!(
    "poolscope_cache_loads_in_flight",
    Gauge,
    "Loads currently running, or waiting for their turn.",
    |cache| to_f64(cache.loads_in_flight)
);

pub(super) const LOADS_MAX: Metric = of_caches!(
    "poolscope_cache_loads_max",
    Gauge,
    "Maximum number of concurrent loads: CacheBuilder::max_loads.",
    |cache| to_f64(cache.max_loads)
);

pub(super) const SAVED: Metric = of_caches!(
    "poolscope_cache_saved_seconds_total",
    Counter,
    "Estimated time of loads that the cache made unnecessary: for each hit, stale, negative and coalesced answer, the time that loading its value took. The rate is the mean number of loads that would run without the cache.",
    |cache| seconds(cache.saved_nanos)
);

pub(super) const ERRORS: Metric = Metric::of_pool(
    "poolscope_cache_errors_total",
    Kind::Counter,
    &["cache", "kind"],
    "Errors of the cache, by kind: timeout (no reply within the deadline), unavailable (no connection, or it broke), server (the command was refused, for example because the memory is full), encode, decode (counts as a miss) or too_large (the value is not stored).",
    |pool, sink| {
        for cache in &pool.caches {
            for error in CacheError::ALL {
                sink.value(&[&cache.name, error.as_str()], to_f64(cache.errors[error.index()]));
            }
        }
    },
);

pub(super) const BYTES: Metric = Metric::of_pool(
    "poolscope_cache_bytes_total",
    Kind::Counter,
    &["cache", "direction"],
    "Bytes of values: sent (stored) and received (read), without keys and protocol.",
    |pool, sink| {
        for cache in &pool.caches {
            for direction in Direction::ALL {
                sink.value(&[&cache.name, direction.as_str()], to_f64(cache.bytes[direction.index()]));
            }
        }
    },
);
