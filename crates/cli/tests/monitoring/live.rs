//! The real thing: demos whose faults are really brought about, a Prometheus that scrapes them by the rules, and an
//! Alertmanager that is told.
//!
//! Time passes fifteen times as fast: Prometheus scrapes and evaluates each second, and every range and wait of the rules is
//! shortened in proportion. So a window has as many scrapes as in life, and five minutes are as many evaluations as 75
//! minutes are; what the shorter windows average over is less, so that they forgive less.
//!
//! All is observed once, since it takes minutes, and each test asks something else of what was seen.

mod observed;
mod panels;
mod played;
mod stage;

use std::collections::BTreeSet;
use std::sync::LazyLock;

use poolscope_cli::demo::Scenario;

use self::observed::Observed;
use self::played::Played;

static OBSERVED: LazyLock<Observed> = LazyLock::new(observed::observe);

/// Every scenario with a fault, as it was played.
fn faults() -> impl Iterator<Item = &'static Played> {
    OBSERVED.played.iter().filter(|played| played.scenario.fires().is_some())
}

fn names(of: &[&'static str]) -> BTreeSet<String> {
    of.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn each_fault_fires_the_alerts_that_it_is_said_to_and_no_other() {
    let mut wrong = Vec::new();
    for played in faults() {
        let fires = played.scenario.fires().expect("a fault");
        let must = names(&fires.always());
        let may = names(fires.perhaps);
        let missing: Vec<_> = must.difference(&played.fired).collect();
        let uncalled: Vec<_> =
            played.fired.iter().filter(|name| !must.contains(*name) && !may.contains(*name)).collect();
        if !missing.is_empty() || !uncalled.is_empty() {
            wrong.push(format!("{}: lacks {missing:?}, and has {uncalled:?}", played.scenario.name()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let with_fault = Scenario::all().iter().filter(|scenario| scenario.fires().is_some()).count();
    assert_eq!(faults().count(), with_fault);
}

#[test]
fn what_fires_reaches_alertmanager_with_the_name_of_who_is_to_blame() {
    for played in faults() {
        let fires = played.scenario.fires().expect("a fault");
        for name in fires.always() {
            let notice = played.notices.get(name).unwrap_or_else(|| panic!("{}: no {name}", played.scenario.name()));
            assert!(!notice.descriptions.is_empty(), "{name}");
        }
        let said = &played.notices[fires.alert].descriptions;
        let named = said.iter().any(|description| description.contains(&format!(" {}: ", fires.blames)));
        assert!(named, "{}: nobody says {}: {said:#?}", played.scenario.name(), fires.blames);
    }
}

#[test]
fn what_the_server_explains_is_muted() {
    for (scenario, muted) in [
        ("server_down", "PoolscopeConnectingFails"),
        ("server_down", "PoolscopeRetryBudgetSpent"),
        ("server_full", "PoolscopeServerSlotsLow"),
    ] {
        let notice = &OBSERVED.played(scenario).notices[muted];
        assert!(notice.muted, "{scenario}: {muted} is told of beside what explains it");
    }
    for (scenario, told) in [("server_down", "PoolscopeServerDown"), ("server_full", "PoolscopeServerFull")] {
        assert!(!OBSERVED.played(scenario).notices[told].muted, "{scenario}: nobody is told");
    }
}

#[test]
fn what_fired_resolves_when_the_fault_is_over() {
    for played in faults() {
        assert!(played.unresolved.is_empty(), "{}: {:?}", played.scenario.name(), played.unresolved);
    }
}

#[test]
fn nothing_fires_in_five_minutes_of_a_healthy_load() {
    let healthy = OBSERVED.played("healthy");
    assert!(healthy.fired.is_empty(), "{:?}", healthy.fired);
    assert!(OBSERVED.healthy_scrapes >= 300.0, "{}", OBSERVED.healthy_scrapes);
}

#[test]
fn a_process_that_is_gone_is_missed() {
    assert_eq!(OBSERVED.missed, names(&["PoolscopeMetricsAbsent", "PoolscopeTargetDown"]));
}

#[test]
fn every_panel_has_data_in_the_state_that_it_is_for() {
    assert!(OBSERVED.panels.is_empty(), "{:#?}", OBSERVED.panels);
}
