//! The runbooks of the alerts, carried along, so that a notification's link leads somewhere although nobody hosts them.

/// A runbook, in Markdown that reads well as it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Runbook {
    /// The name of its alert.
    pub(super) name: &'static str,
    /// The file, whole.
    pub(super) text: &'static str,
}

impl Runbook {
    /// What is wrong, in a sentence: what stands beneath its title.
    pub(super) fn summary(self) -> &'static str {
        self.text.lines().skip(1).map(str::trim).find(|line| !line.is_empty() && !line.starts_with('<')).unwrap_or("")
    }
}

/// Puts a file of `docs/runbooks/` beneath the name of its alert.
macro_rules! runbooks {
    ($($name:literal,)+) => {
        &[$(Runbook { name: $name, text: include_str!(concat!("../../docs/runbooks/", $name, ".md")) },)+]
    };
}

/// Every runbook, by name.
pub(super) const RUNBOOKS: &[Runbook] = runbooks![
    "PoolscopeCheckoutWaitHigh",
    "PoolscopeConnectingFails",
    "PoolscopeConnectionChurn",
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

/// The runbook of this alert.
pub(super) fn find(name: &str) -> Option<&'static Runbook> {
    RUNBOOKS.iter().find(|runbook| runbook.name == name)
}

/// What an unknown name is answered with.
pub(super) fn none_of_that_name() -> String {
    let mut answer = String::from("There is no runbook of this name; those that exist are:\n\n");
    for runbook in RUNBOOKS {
        answer.push_str(runbook.name);
        answer.push('\n');
    }
    answer
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;

    use super::*;

    #[test]
    fn every_file_is_carried_and_in_order() {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/runbooks");
        let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut files: Vec<_> = entries.collect();
        files.sort();
        let carried: Vec<_> = RUNBOOKS.iter().map(|runbook| format!("{}.md", runbook.name)).collect();
        assert_eq!(carried, files);
    }
}
