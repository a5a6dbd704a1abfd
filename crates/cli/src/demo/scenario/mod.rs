//! Scenarios: what the demo brings about, so that it can be seen in the metrics.
//!
//! [`table`] says what there is, [`Director`] plays one: a calm load, then the fault, then the calm load again. A fault
//! is any of a flaw in the shop's code, another load, and something that is done to the server (`act`).

mod act;
mod director;
mod fires;
#[cfg(test)]
mod reference;
mod table;

use std::time::Duration;

use self::act::Act;
pub(super) use self::director::{Cast, Director, Phase};
pub use self::fires::Fires;
use self::table::SCENARIOS;
use super::shop::Manner;
use super::workload::Load;

/// How long the load is calm before the fault, unless it is said.
pub const CALM_FOR: Duration = Duration::from_secs(10);

/// Something that the demo can bring about.
#[derive(Debug)]
pub struct Scenario {
    name: &'static str,
    about: &'static str,
    shows: &'static str,
    /// The pool's settings, where nobody gave others.
    settings: &'static [(&'static str, &'static str)],
    /// Before and after the fault.
    manner: Manner,
    load: &'static Load,
    fault: Option<Fault>,
}

/// What goes wrong.
#[derive(Debug)]
struct Fault {
    manner: Manner,
    load: &'static Load,
    act: Act,
    /// How long, unless it is said; `None` for until the end.
    lasts: Option<Duration>,
    fires: Fires,
}

impl Scenario {
    /// Every scenario; the first is the one that is played when none is asked for.
    #[must_use]
    pub fn all() -> &'static [Self] {
        SCENARIOS
    }

    /// The scenario of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        SCENARIOS.iter().find(|scenario| scenario.name == name)
    }

    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// What it brings about, in a phrase.
    #[must_use]
    pub const fn about(&self) -> &'static str {
        self.about
    }

    /// Where it is to be seen.
    pub(super) const fn shows(&self) -> &'static str {
        self.shows
    }

    /// The pool's settings in it, where nobody gave others: names and values.
    pub(super) const fn settings(&self) -> &'static [(&'static str, &'static str)] {
        self.settings
    }

    /// The alerts that its fault makes fire, if it has one.
    #[must_use]
    pub fn fires(&self) -> Option<&Fires> {
        self.fault.as_ref().map(|fault| &fault.fires)
    }

    /// How many come before something goes wrong.
    pub(super) const fn load(&self) -> &'static Load {
        self.load
    }

    /// Why it needs a server of the demo's own, if it does.
    #[must_use]
    pub fn needs_private_server(&self) -> Option<&'static str> {
        self.fault.as_ref()?.act.needs_private_server()
    }
}

/// A scenario, and when its fault comes and goes.
#[derive(Clone, Copy, Debug)]
pub struct Play {
    /// What is played.
    pub scenario: &'static Scenario,
    /// When.
    pub timing: Timing,
}

impl Play {
    /// After which time the fault comes, and how long it lasts, if that ends before the demo does.
    pub(super) fn fault(&self) -> Option<(Duration, Option<Duration>)> {
        let fault = self.scenario.fault.as_ref()?;
        Some((self.timing.after, self.timing.lasts.or(fault.lasts)))
    }
}

/// When the fault of a scenario comes and goes.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// How long the load is calm before.
    pub after: Duration,
    /// How long the fault lasts; `None` for as long as the scenario has it.
    pub lasts: Option<Duration>,
}

impl Default for Timing {
    fn default() -> Self {
        Self { after: CALM_FOR, lasts: None }
    }
}
