//! Caches in front of the pool.

use std::time::Duration;

use super::super::interval::{CacheActivity, Interval};
use super::super::totals::Totals;
use super::diagnose;
use super::intervals::{exhausted, healthy};
use crate::labels::{CacheResult, Cause, Outcome};
use crate::telemetry::Limits;
use crate::telemetry::caches::CacheStats;
use crate::telemetry::clock::{Clock, Nanos};
use crate::telemetry::ledger::Ledger;

#[test]
fn cache_that_is_away_explains_the_load() {
    let away = |severe: bool| {
        move || {
            let mut second = if severe { exhausted("get_product", [9.0, 0.5, 0.0]) } else { healthy() };
            second.operations[0].queries = 500.0;
            if !severe {
                (second.started, second.outcomes[Outcome::Ok.index()]) = (300.0, 300.0);
            }
            let most_bypassed = Some("products".into());
            second.caches = Some(CacheActivity { lookups: 210.0, bypassed: 200.0, most_bypassed });
            second
        }
    };
    let verdict = diagnose(away(true));
    assert_eq!((verdict.cause, verdict.operation.as_deref()), (Cause::CacheDown, None));
    assert_eq!(verdict.consequences, [Cause::Undersized]);
    assert_eq!(
        verdict.finding,
        "the cache `products` is away: 95 % of the lookups, 200.0 per second, are loaded from the database"
    );
    assert_eq!(verdict.withheld_by(), Some(Cause::CacheDown));
    // Three times the usual load, that the pool can serve.
    assert_eq!(diagnose(away(false)).cause, Cause::CacheDown);
}

/// A cache that misses, or is away without load, is not away in this sense.
#[test]
fn cache_that_answers_is_no_cause() {
    let with = |lookups: f64, bypassed: f64| {
        move || {
            let mut second = exhausted("get_product", [9.0, 0.5, 0.0]);
            second.operations[0].queries = 500.0;
            second.caches = Some(CacheActivity { lookups, bypassed, most_bypassed: None });
            second
        }
    };
    for (lookups, bypassed) in [(500.0, 0.0), (500.0, 100.0), (0.5, 0.5), (0.0, 0.0)] {
        assert_eq!(diagnose(with(lookups, bypassed)).cause, Cause::Undersized, "{lookups} {bypassed}");
    }
    // The pool serves all without a wait, at its usual rate.
    let verdict = diagnose(|| {
        let caches = Some(CacheActivity { lookups: 50.0, bypassed: 50.0, most_bypassed: None });
        Interval { caches, ..healthy() }
    });
    assert_eq!(verdict.cause, Cause::Healthy);
}

#[test]
fn lookups_are_counted_by_cache() {
    let ledger = Ledger::new("shop".into(), Limits::for_tests(), Clock::new());
    let (products, orders) = (ledger.caches().named("products"), ledger.caches().named("orders"));
    let at = |second: u64| Nanos::from_nanos(second * 1_000_000_000);
    let before = Totals::of(at(1), &ledger.snapshot());
    let answer = |cache: &CacheStats, result: CacheResult, count: usize| {
        (0..count).for_each(|_| cache.answer(result));
    };
    answer(&products, CacheResult::Hit, 5);
    answer(&products, CacheResult::Bypassed, 1);
    answer(&orders, CacheResult::Bypassed, 3);
    answer(&orders, CacheResult::Coalesced, 100);
    let snapshot = ledger.snapshot();
    let now = Totals::of(at(2), &snapshot);
    let caches = Interval::between(&before, &now, Duration::ZERO, &snapshot).caches.unwrap();
    assert_eq!((caches.lookups, caches.bypassed, caches.most_bypassed.as_deref()), (9.0, 4.0, Some("orders")));
}
