//! Scenarios: faults that the demo injects, to show them in the metrics.
//!
//! [`table`] lists the scenarios. [`FaultInjector`] runs one: normal load, then the fault, then normal load again. A fault
//! consists of a fault in the shop's code, another load, and a fault of the server (`server_fault`), or some of them.

mod cache_fault;
mod expected_alerts;
mod injector;
#[cfg(test)]
mod reference;
mod server_fault;
mod table;

use std::time::Duration;

use self::cache_fault::CacheFault;
pub use self::expected_alerts::{ExpectedAlerts, ExpectedDiagnosis};
pub(super) use self::injector::{FaultInjector, Phase, Targets};
use self::server_fault::ServerFault;
use self::table::SCENARIOS;
use super::shop::Behavior;
use super::workload::Load;

/// The default time of normal load before the fault.
pub(crate) const DEFAULT_FAULT_DELAY: &str = "10s";

/// A fault that the demo can inject.
#[derive(Debug)]
pub struct Scenario {
    name: &'static str,
    about: &'static str,
    symptoms: &'static str,
    /// Pool settings that replace the demo's defaults: names and values.
    settings: &'static [(&'static str, &'static str)],
    /// The shop's behavior and load before and after the fault.
    behavior: Behavior,
    load: &'static Load,
    fault: Option<Fault>,
}

/// What changes while the fault lasts.
#[derive(Debug)]
struct Fault {
    behavior: Behavior,
    load: &'static Load,
    server: ServerFault,
    cache: CacheFault,
    /// The default duration; `None` for until the end of the demo.
    lasts: Option<Duration>,
    alerts: ExpectedAlerts,
}

impl Scenario {
    /// Returns all scenarios. The first is the default.
    #[must_use]
    pub fn all() -> &'static [Self] {
        SCENARIOS
    }

    /// Returns the scenario called `name`.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        SCENARIOS.iter().find(|scenario| scenario.name == name)
    }

    /// Returns its name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Describes the fault in a phrase.
    #[must_use]
    pub const fn about(&self) -> &'static str {
        self.about
    }

    /// Returns the metrics that show the fault.
    pub(super) const fn symptoms(&self) -> &'static str {
        self.symptoms
    }

    /// Returns the pool settings that replace the demo's defaults.
    pub(super) const fn settings(&self) -> &'static [(&'static str, &'static str)] {
        self.settings
    }

    /// Returns the alerts that fire for the fault, if there is one.
    #[must_use]
    pub fn expected_alerts(&self) -> Option<&ExpectedAlerts> {
        self.fault.as_ref().map(|fault| &fault.alerts)
    }

    /// Returns the load before and after the fault.
    pub(super) const fn load(&self) -> &'static Load {
        self.load
    }

    /// Returns whether the shop reads products through a cache, as with `--cache`.
    #[must_use]
    pub fn uses_cache(&self) -> bool {
        self.fault.as_ref().is_some_and(|fault| fault.cache != CacheFault::None)
    }

    /// Describes what the scenario does to a server that others may use; `None` if it is harmless.
    pub(super) fn disruption(&self) -> Option<&'static str> {
        self.fault.as_ref()?.server.disruption()
    }
}

/// A scenario with its timing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ScenarioPlan {
    /// The scenario.
    pub(crate) scenario: &'static Scenario,
    /// When its fault is injected and removed.
    pub(crate) timing: Timing,
}

impl ScenarioPlan {
    /// Returns the time before the fault, and its duration unless it lasts until the end of the demo; `None` without a fault.
    pub(super) fn fault_timing(&self) -> Option<(Duration, Option<Duration>)> {
        let fault = self.scenario.fault.as_ref()?;
        Some((self.timing.after, self.timing.lasts.or(fault.lasts)))
    }
}

/// When the fault of a scenario is injected and removed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    /// The time of normal load before the fault.
    pub(crate) after: Duration,
    /// The duration of the fault; `None` for the scenario's default.
    pub(crate) lasts: Option<Duration>,
}
