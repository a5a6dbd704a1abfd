//! The row with caches in front of the pool, beside the load that they leave to the database.

use crate::monitoring::dashboards::layout::Row;
use crate::monitoring::dashboards::panel::{Description, NEUTRAL, PanelBuilder, WARNING};
use crate::monitoring::dashboards::panel_id::PanelId;
use crate::monitoring::dashboards::query::{metric, sum, sum_by, unless_zero};
use crate::monitoring::dashboards::unit::Unit;
use crate::monitoring::names::POOL_LABEL;
use crate::monitoring::thresholds::Thresholds;

/// The results of lookups that find something, and those that the cache answered.
const FOUND: &str = r#"result=~"hit|stale|negative""#;
const ANSWERED: &str = r#"result=~"hit|stale|negative|miss""#;

pub(super) fn row(thresholds: &Thresholds) -> Row {
    let panels = vec![lookups(), cache_and_database(), hit_share(thresholds), loads(), saved(), errors(), bytes()];
    Row::open("Cache and database", panels)
}

fn lookups() -> PanelBuilder {
    let description = Description {
        shows: "Lookups of the caches in front of the pool per second, by what the cache answered, stacked. coalesced: the \
                result of another caller's load was shared. bypassed: the cache did not answer in time.",
        normal: "Mostly hit. bypassed means that the cache is away, and that the database has its load.",
        action: "bypassed: check Redis and the network; the errors beside have the kind. Many misses: check the time to \
                 live, the memory and the evictions of Redis.",
    };
    PanelBuilder::lines(PanelId::CacheLookups, "Cache lookups by result", description)
        .size(12, 8)
        .query(unless_zero(sum_by(&["result"], metric!("poolscope_cache_lookups_total").rate())), "{{result}}")
        .unit(Unit::PerSecond)
        .stacked()
        .colors(&[
            ("hit", "blue"),
            ("negative", "light-blue"),
            ("stale", "purple"),
            ("coalesced", "#6e7079"),
            ("miss", "yellow"),
            ("bypassed", "red"),
            ("cancelled", "orange"),
        ])
}

fn cache_and_database() -> PanelBuilder {
    let description = Description {
        shows: "Lookups of the caches, the loads that they cause, and all checkouts of the pools that they are in front of \
                (CacheBuilder::loads_from), per second.",
        normal: "Loads far below lookups. If loads rise towards lookups, checkouts rise with them: the cache's misses are \
                 the pool's load.",
        action: "If the checkouts rise and the loads do not, the cause is not the cache.",
    };
    let loads = metric!("poolscope_cache_load_duration_seconds").count().rate();
    let lookups = metric!("poolscope_cache_lookups_started_total");
    // Without those of the Redis pool.
    let checkouts = format!(
        "{} and on (job, instance, {POOL_LABEL}) {lookups}",
        sum_by(&["job", "instance", POOL_LABEL], metric!("poolscope_checkouts_started_total").rate())
    );
    PanelBuilder::lines(PanelId::CacheAndDatabase, "Cache lookups, loads and database checkouts", description)
        .size(12, 8)
        .query(sum(lookups.rate()), "lookups")
        .query(sum(loads), "loads")
        .query(sum(checkouts), "checkouts")
        .unit(Unit::PerSecond)
        .colors(&[("lookups", "blue"), ("loads", "yellow"), ("checkouts", "orange")])
}

fn hit_share(thresholds: &Thresholds) -> PanelBuilder {
    let description = Description {
        shows: "Share of the lookups answered by the cache that found something (hit, stale or negative), by cache. The \
                orange line is the alert threshold.",
        normal: "Above 80 % for reads that are worth caching. Low after a restart of Redis, until it is filled.",
        action: "Low all the time: keys that are seldom read twice within the time to live are not worth caching.",
    };
    let of = |results| sum_by(&["cache"], metric!("poolscope_cache_lookups_total").only(results).rate());
    PanelBuilder::lines(PanelId::CacheHitShare, "Cache hit ratio", description)
        .query(format!("{} / {}", of(FOUND), of(ANSWERED)), "{{cache}}")
        .unit(Unit::Share)
        .full_scale()
        .threshold(WARNING, &thresholds.cache_hit_share)
}

fn loads() -> PanelBuilder {
    let description = Description {
        shows: "Loads in flight of all caches, including those that wait for their turn, and the maximum that may run at a \
                time (dashed).",
        normal: "Far below the maximum. At the maximum, loads wait, and fail with TooManyLoads after load_wait: the \
                 database is protected from more.",
        action: "Find out why the cache does not answer, or why loads take long (panel of operations).",
    };
    PanelBuilder::lines(PanelId::CacheLoads, "Loads in flight", description)
        .query(sum(metric!("poolscope_cache_loads_in_flight")), "in flight")
        .query(sum(metric!("poolscope_cache_loads_max")), "maximum")
        .colors(&[("in flight", "yellow")])
        .limit("maximum", NEUTRAL)
}

fn saved() -> PanelBuilder {
    let description = Description {
        shows: "Loads that would run at the same time without the cache, on average, by cache: the time that loading took \
                of each value that was found.",
        normal: "About the number of connections that the cache saves. Near 0, the cache is not needed.",
        action: "Compare it with the pool's size before removing a cache, and after adding one.",
    };
    PanelBuilder::lines(PanelId::CacheSaved, "Loads saved", description)
        .query(sum_by(&["cache"], metric!("poolscope_cache_saved_seconds_total").rate()), "{{cache}}")
}

fn errors() -> PanelBuilder {
    let description = Description {
        shows: "Errors of the caches per second, by kind.",
        normal: "0. No request fails because of them.",
        action: "timeout, unavailable: check Redis and the network. server: check maxmemory and its policy. decode: increase \
                 the cache's version when the type of its values changes. too_large: raise max_value_bytes, or cache less.",
    };
    PanelBuilder::lines(PanelId::CacheErrors, "Cache errors by kind", description)
        .query(unless_zero(sum_by(&["kind"], metric!("poolscope_cache_errors_total").rate())), "{{kind}}")
        .unit(Unit::PerSecond)
        .colors(&[
            ("timeout", "orange"),
            ("unavailable", "red"),
            ("server", "purple"),
            ("encode", "light-blue"),
            ("decode", "yellow"),
            ("too_large", "blue"),
        ])
}

fn bytes() -> PanelBuilder {
    let description = Description {
        shows: "Bytes of values per second: received (read from the cache) and sent (stored).",
        normal: "Received far above sent: each value is read many times. If both are close, values are hardly reused.",
        action: "High for few lookups: values are large; cache only the fields that are needed.",
    };
    PanelBuilder::lines(PanelId::CacheBytes, "Cache traffic", description)
        .query(sum_by(&["direction"], metric!("poolscope_cache_bytes_total").rate()), "{{direction}}")
        .unit(Unit::BytesPerSecond)
        .colors(&[("received", "blue"), ("sent", "yellow")])
}
