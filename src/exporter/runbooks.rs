//! The runbooks of the alerts, built in, so that the links in notifications work without hosting them elsewhere.

/// A runbook, in Markdown.
#[derive(Clone, Copy, Debug)]
pub(super) struct Runbook {
    /// The name of the alert.
    pub(super) name: &'static str,
    /// The content of the file.
    pub(super) text: &'static str,
}

impl Runbook {
    /// Returns the sentence beneath the title, which says what is wrong.
    pub(super) fn summary(self) -> &'static str {
        self.text.lines().skip(1).map(str::trim).find(|line| !line.is_empty() && !line.starts_with('<')).unwrap_or("")
    }
}

/// Includes the files of `docs/runbooks/` for these alerts.
macro_rules! runbooks {
    ($($name:literal,)+) => {
        &[$(Runbook { name: $name, text: include_str!(concat!("../../docs/runbooks/", $name, ".md")) },)+]
    };
}

/// All runbooks, sorted by name.
pub(super) const RUNBOOKS: &[Runbook] = runbooks![
    "PoolscopeCacheDown",
    "PoolscopeCacheHitRatioLow",
    "PoolscopeCheckoutErrors",
    "PoolscopeCheckoutWaitHigh",
    "PoolscopeConnectingFails",
    "PoolscopeConnectionChurn",
    "PoolscopeDiagnosedBurst",
    "PoolscopeDiagnosedCacheDown",
    "PoolscopeDiagnosedChurn",
    "PoolscopeDiagnosedConnectSlow",
    "PoolscopeDiagnosedHeldIdle",
    "PoolscopeDiagnosedIdleInTransaction",
    "PoolscopeDiagnosedLeak",
    "PoolscopeDiagnosedLockWait",
    "PoolscopeDiagnosedRetryStorm",
    "PoolscopeDiagnosedRuntimeStalled",
    "PoolscopeDiagnosedSelfDeadlock",
    "PoolscopeDiagnosedServerDown",
    "PoolscopeDiagnosedServerFull",
    "PoolscopeDiagnosedSlowQueries",
    "PoolscopeDiagnosedUndersized",
    "PoolscopeDirtyReturns",
    "PoolscopeHeldIdle",
    "PoolscopeIdleInTransaction",
    "PoolscopeManyCheckouts",
    "PoolscopeMetricsAbsent",
    "PoolscopePoolExhausted",
    "PoolscopePoolSaturated",
    "PoolscopeRequestsShed",
    "PoolscopeRetryBudgetSpent",
    "PoolscopeRetryStorm",
    "PoolscopeSelfDeadlock",
    "PoolscopeServerDown",
    "PoolscopeServerFull",
    "PoolscopeServerSlotsLow",
    "PoolscopeServerSlotsShort",
    "PoolscopeSlowQueries",
    "PoolscopeSpanExportFailing",
    "PoolscopeSuspectedLeak",
    "PoolscopeTargetDown",
    "PoolscopeTimeoutBudgetBurns",
    "PoolscopeTimeoutBudgetBurnsFast",
    "PoolscopeWaitBudgetBurns",
    "PoolscopeWaitBudgetBurnsFast",
    "PoolscopeWaitersSustained",
    "PoolscopeWiresLost",
];

/// Returns the runbook of an alert.
pub(super) fn find(name: &str) -> Option<&'static Runbook> {
    RUNBOOKS.iter().find(|runbook| runbook.name == name)
}

/// Returns the response to an unknown name.
pub(super) fn not_found() -> String {
    let mut text = String::from("Runbook not found. Available runbooks:\n\n");
    for runbook in RUNBOOKS {
        text.push_str(runbook.name);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;

    use super::*;

    #[test]
    fn every_file_is_included_in_order() {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/runbooks");
        let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut files: Vec<_> = entries.collect();
        files.sort();
        let included: Vec<_> = RUNBOOKS.iter().map(|runbook| format!("{}.md", runbook.name)).collect();
        assert_eq!(included, files);
    }
}
