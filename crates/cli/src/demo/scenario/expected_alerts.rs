//! The alerts that fire for a scenario's fault.

/// The alert for an exhausted pool.
pub(super) const EXHAUSTED: &str = "PoolscopePoolExhausted";

/// The alerts that fire while a fault lasts. Tests compare them with the alerts that really fire, and with the runbook of
/// the first one.
#[derive(Clone, Copy, Debug)]
pub struct ExpectedAlerts {
    /// The alert that the diagnosis of the fault fires, unless it is no problem of a pool. It comes first.
    pub diagnosed: Option<ExpectedDiagnosis>,
    /// The alert about the symptom of the fault.
    pub alert: &'static str,
    /// The cause that its description names.
    pub cause: &'static str,
    /// Other alerts that fire each time, by what they have in common.
    pub also: &'static [&'static [&'static str]],
    /// Alerts that fire depending on the load.
    pub possible: &'static [&'static str],
}

impl ExpectedAlerts {
    /// Returns the alerts that fire each time.
    #[must_use]
    pub fn always(&self) -> Vec<&'static str> {
        let diagnosed: Vec<_> = self.diagnosed.iter().map(|diagnosed| diagnosed.alert).collect();
        [&*diagnosed, &[self.alert], &*self.also.concat()].concat()
    }
}

/// The alert on a diagnosed cause.
#[derive(Clone, Copy, Debug)]
pub struct ExpectedDiagnosis {
    /// The alert.
    pub alert: &'static str,
    /// What its description names: the operation responsible, or else the finding.
    pub names: &'static str,
}
