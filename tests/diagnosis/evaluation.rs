//! Compares the verdicts of a run with what is expected.

use poolscope::recording::Recording;

use crate::cases::{Case, Group};
use crate::recordings::Recorded;

/// The time after the fault by which the verdict has to be there, in seconds.
pub(crate) const IN_TIME_SECONDS: f64 = 30.0;

/// The verdict at a second of a recording.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Diagnosed {
    pub(crate) at: f64,
    pub(crate) cause: &'static str,
    pub(crate) operation: Option<String>,
}

impl Diagnosed {
    fn is_problem(&self) -> bool {
        !matches!(self.cause, "healthy" | "not_enough_data")
    }
}

/// How a run was diagnosed.
#[derive(Clone, Debug)]
pub(crate) struct Assessment {
    /// The cause at most seconds from 30 s after the fault on; of a healthy run the first problem, if any.
    pub(crate) diagnosed: &'static str,
    /// Whether the cause and the operation were right from 30 s after the fault on; of a healthy run, at each second.
    pub(crate) is_right: bool,
    /// Problems that were diagnosed before the fault.
    pub(crate) false_alarm: Option<&'static str>,
    /// The first problem that was diagnosed after the fault.
    pub(crate) first: Option<&'static str>,
    /// Whether that, or one before the fault, was the expected cause with the right operation.
    pub(crate) is_first_right: bool,
    /// The seconds from the fault to the right verdict.
    pub(crate) delay: Option<f64>,
}

/// Passes a recording through the diagnosis.
pub(crate) fn diagnose(recording: &Recording) -> Vec<Diagnosed> {
    let verdicts = recording.replay().map(|(second, verdict)| Diagnosed {
        at: second.at_seconds,
        cause: verdict.cause.as_str(),
        operation: verdict.operation.as_deref().map(str::to_owned),
    });
    verdicts.collect()
}

/// Describes when the verdict changed.
pub(crate) fn changes(verdicts: &[Diagnosed]) -> String {
    let mut described: Vec<String> = Vec::new();
    let mut last: Option<&Diagnosed> = None;
    for verdict in verdicts {
        let is_same = last.is_some_and(|last| (last.cause, &last.operation) == (verdict.cause, &verdict.operation));
        if !is_same {
            let operation = verdict.operation.as_deref().map_or_else(String::new, |name| format!(" {name}"));
            described.push(format!("{:.0} {}{operation}", verdict.at, verdict.cause));
            last = Some(verdict);
        }
    }
    described.join(", ")
}

pub(crate) fn assess(case: &Case, recorded: &Recorded) -> Assessment {
    let fault_at = recorded.conditions.fault_at;
    let is_expected = |verdict: &&Diagnosed| {
        verdict.cause == case.cause && (case.operation.is_none() || verdict.operation.as_deref() == case.operation)
    };
    let (before, after): (Vec<_>, Vec<_>) = recorded.verdicts.iter().partition(|verdict| verdict.at < fault_at);
    let first_problem =
        |verdicts: &[&Diagnosed]| verdicts.iter().find(|verdict| verdict.is_problem()).map(|verdict| verdict.cause);
    let (false_alarm, first) = (first_problem(&before), first_problem(&after));
    let is_first_right = recorded
        .verdicts
        .iter()
        .find(|verdict| verdict.is_problem())
        .is_some_and(|verdict| verdict.at >= fault_at && is_expected(&verdict));
    if case.group == Group::Healthy {
        let problem = false_alarm.or(first);
        let is_right = problem.is_none() && !after.is_empty();
        return Assessment {
            diagnosed: problem.unwrap_or("healthy"),
            is_right,
            false_alarm,
            first,
            is_first_right,
            delay: None,
        };
    }
    let late: Vec<_> = after.iter().copied().filter(|verdict| verdict.at >= fault_at + IN_TIME_SECONDS).collect();
    let count = |cause: &str| late.iter().filter(|verdict| verdict.cause == cause).count();
    let diagnosed = late.iter().map(|verdict| verdict.cause).max_by_key(|cause| count(cause)).unwrap_or("none");
    Assessment {
        diagnosed,
        is_right: !late.is_empty() && late.iter().all(is_expected),
        false_alarm,
        first,
        is_first_right,
        delay: after.iter().copied().find(is_expected).map(|verdict| verdict.at - fault_at),
    }
}
