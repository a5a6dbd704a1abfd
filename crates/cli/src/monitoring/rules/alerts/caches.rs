//! Alerts on caches in front of a pool.

use crate::monitoring::dashboards::PanelId;
use crate::monitoring::names::CACHE_LOOKUPS;
use crate::monitoring::rules::alert::{Alert, Scope, Severity, cloned};
use crate::monitoring::rules::contributor::Contributor;
use crate::monitoring::thresholds::{Threshold, Thresholds};

/// The results of lookups that find something.
const FOUND: &str = "hit|stale|negative";

pub(super) fn alerts(t: &Thresholds) -> Vec<Alert> {
    vec![cache_down(t), hit_ratio_low(t)]
}

/// Returns the lookups of each cache per second with these results.
fn lookups(results: &str, window: &Threshold) -> String {
    format!("sum without (result) (rate({CACHE_LOOKUPS}{{result=~\"{results}\"}}[{window}]))")
}

fn cache_down(t: &Thresholds) -> Alert {
    let now = &t.window_now;
    let (bypassed, all) = (lookups("bypassed", now), lookups(&format!("bypassed|miss|{FOUND}"), now));
    Alert {
        name: "PoolscopeCacheDown",
        severity: Severity::Warning,
        scope: Scope::Pool,
        expr: format!(
            "max without (cache) (\n  {bypassed}\n  /\n  ({all} > {})\n)\n> {}",
            t.cache_floor, t.cache_bypassed_share
        ),
        for_duration: t.for_ticket.clone(),
        keep_firing_for: None,
        summary: "A cache does not answer: its reads load the database.",
        description: format!(
            "a cache did not answer {{{{ $value | humanizePercentage }}}} of its lookups in time over the last {now}; they \
             were loaded without it."
        ),
        contributors: vec![Contributor::bypassed_cache(t)],
        condition: format!(
            "Over the last {now}, more than {} of a cache's lookups bypassed it because it did not answer in time, and \
             lookups exceeded {}.",
            t.cache_bypassed_share.human(),
            t.cache_floor.human()
        ),
        thresholds: cloned([&t.cache_bypassed_share, &t.cache_floor, now]),
        panel: PanelId::CacheLookups,
        diagnosed: None,
        related: &[&[
            "PoolscopeCacheHitRatioLow",
            "PoolscopePoolSaturated",
            "PoolscopePoolExhausted",
            "PoolscopeCheckoutWaitHigh",
            // Of the Redis pool.
            "PoolscopeServerDown",
            "PoolscopeDiagnosedServerDown",
            "PoolscopeConnectingFails",
            "PoolscopeCheckoutErrors",
        ]],
    }
}

fn hit_ratio_low(t: &Thresholds) -> Alert {
    let window = &t.window;
    // Without those that the cache did not answer, for which there is another alert.
    let (found, answered) = (lookups(FOUND, window), lookups(&format!("miss|{FOUND}"), window));
    Alert {
        name: "PoolscopeCacheHitRatioLow",
        severity: Severity::Warning,
        scope: Scope::Pool,
        expr: format!(
            "min without (cache) (\n  {found}\n  /\n  ({answered} > {})\n)\n< {}",
            t.cache_floor, t.cache_hit_share
        ),
        for_duration: t.for_ticket.clone(),
        keep_firing_for: None,
        summary: "A cache finds few of the values that are looked up.",
        description: format!(
            "a cache found {{{{ $value | humanizePercentage }}}} of the values that were looked up over the last {window}."
        ),
        contributors: vec![Contributor::missing_cache(t)],
        condition: format!(
            "Over the last {window}, a cache found less than {} of the values that it was asked for, and lookups exceeded {}.",
            t.cache_hit_share.human(),
            t.cache_floor.human()
        ),
        thresholds: cloned([&t.cache_hit_share, &t.cache_floor, window]),
        panel: PanelId::CacheHitShare,
        diagnosed: None,
        related: &[&["PoolscopeCacheDown", "PoolscopePoolSaturated", "PoolscopeCheckoutWaitHigh"]],
    }
}
