//! An alert for each cause of the diagnosis, which inhibits the alerts on its symptoms.
//!
//! What a cause explains follows from the library's table of rules: the symptoms of the cause itself, and of each cause that
//! it explains, are inhibited; the causes that it explains are not alerted, also shortly after it.

use poolscope::causes::{Description, descriptions};
use poolscope::labels::Cause;

use crate::monitoring::dashboards::PanelId;
use crate::monitoring::names::{DIAGNOSIS_SECONDS, POOL_LABEL};
use crate::monitoring::rules::alert::{Alert, Diagnosed, EXHAUSTION_SYMPTOMS, Scope, Severity, cloned};
use crate::monitoring::thresholds::Thresholds;

/// The beginning of the names of these alerts.
pub const PREFIX: &str = "PoolscopeDiagnosed";

pub(super) fn alerts(t: &Thresholds) -> Vec<Alert> {
    let problems: Vec<Description> = descriptions().filter(|description| !description.advice.is_empty()).collect();
    problems
        .iter()
        .filter_map(|description| alert(t, description, explanations(&problems, description.cause)))
        .collect()
}

/// Returns the causes that explain another one. A ticket does not replace a page.
fn explanations(problems: &[Description], cause: Cause) -> Vec<Cause> {
    let is_page = |cause| severity(cause) == Some(Severity::Critical);
    let explains = problems.iter().filter(|by| by.explains.contains(&cause) && (is_page(by.cause) || !is_page(cause)));
    explains.map(|by| by.cause).collect()
}

/// Returns the alert of a cause.
///
/// What follows from a cause while it lasts, or in the minutes after it, is not reported as another one. This is a part of the
/// expression: Alertmanager cannot distinguish a cause that has ended, whose alert is kept firing, from one that lasts.
fn alert(t: &Thresholds, description: &Description, explained_by: Vec<Cause>) -> Option<Alert> {
    let cause = description.cause;
    let (name, severity, summary) = identity(cause)?;
    let (window, alerted) = (&t.window, t.for_diagnosis.value);
    let label = cause.as_str();
    let mut expr = format!("max without (operation, call_site) ({DIAGNOSIS_SECONDS}{{cause=\"{label}\"}}) >= 0");
    let mut unless = String::new();
    if !explained_by.is_empty() {
        let causes: Vec<_> = explained_by.iter().map(|cause| cause.as_str()).collect();
        expr += &format!(
            "\nunless on (job, instance, {POOL_LABEL})\nmax_over_time({DIAGNOSIS_SECONDS}{{cause=~\"{}\"}}[{window}]) \
             >= {alerted}",
            causes.join("|")
        );
        unless = format!(
            " and within the last {window} was not one that explains it, for at least {}: `{}`",
            t.for_diagnosis,
            causes.join("`, `")
        );
    }
    let mut inhibits: Vec<_> = description.explains.iter().chain([&cause]).flat_map(|cause| symptoms(*cause)).collect();
    inhibits.sort_unstable();
    inhibits.dedup();
    Some(Alert {
        name,
        severity,
        scope: Scope::Pool,
        expr,
        for_duration: t.for_diagnosis.clone(),
        keep_firing_for: Some(t.keep_diagnosis.clone()),
        summary,
        description: String::new(),
        contributors: Vec::new(),
        condition: format!(
            "The pool's diagnosis is `{label}`{unless}; docs/diagnosis.md has its conditions. The alert fires until {} \
             after the last time.",
            t.keep_diagnosis
        ),
        thresholds: if explained_by.is_empty() { Vec::new() } else { cloned([window]) },
        panel: PanelId::Causes,
        related: &[],
        diagnosed: Some(Diagnosed { cause, inhibits, explained_by }),
    })
}

/// Returns the severity of a cause's alert; `None` for what is no problem.
pub(in crate::monitoring) fn severity(cause: Cause) -> Option<Severity> {
    identity(cause).map(|(_, severity, _)| severity)
}

/// Returns name, severity and summary of a cause's alert; `None` for what is no problem.
///
/// A cause is critical if its conditions include that requests fail or wait for long.
const fn identity(cause: Cause) -> Option<(&'static str, Severity, &'static str)> {
    use Severity::{Critical, Warning};
    Some(match cause {
        Cause::Undersized => {
            ("PoolscopeDiagnosedUndersized", Critical, "Diagnosis: the pool is too small for its load.")
        }
        Cause::Burst => ("PoolscopeDiagnosedBurst", Warning, "Diagnosis: peaks of the load exceed the pool."),
        Cause::SlowQueries => ("PoolscopeDiagnosedSlowQueries", Critical, "Diagnosis: slow queries occupy the pool."),
        Cause::LockWait => ("PoolscopeDiagnosedLockWait", Critical, "Diagnosis: queries wait for a lock."),
        Cause::HeldIdle => ("PoolscopeDiagnosedHeldIdle", Critical, "Diagnosis: connections are held without a query."),
        Cause::IdleInTransaction => {
            ("PoolscopeDiagnosedIdleInTransaction", Critical, "Diagnosis: connections are held idle in a transaction.")
        }
        Cause::Leak => ("PoolscopeDiagnosedLeak", Warning, "Diagnosis: connections are not returned."),
        Cause::SelfDeadlock => (
            "PoolscopeDiagnosedSelfDeadlock",
            Critical,
            "Diagnosis: tasks that hold a connection wait for another one.",
        ),
        Cause::ServerDown => ("PoolscopeDiagnosedServerDown", Critical, "Diagnosis: the server cannot be reached."),
        Cause::ServerFull => ("PoolscopeDiagnosedServerFull", Critical, "Diagnosis: the server has no free slots."),
        Cause::ConnectSlow => ("PoolscopeDiagnosedConnectSlow", Warning, "Diagnosis: connecting takes long."),
        Cause::Churn => {
            ("PoolscopeDiagnosedChurn", Warning, "Diagnosis: connections are closed and replaced all the time.")
        }
        Cause::RetryStorm => {
            ("PoolscopeDiagnosedRetryStorm", Critical, "Diagnosis: a large share of the load is retries.")
        }
        Cause::RuntimeStalled => {
            ("PoolscopeDiagnosedRuntimeStalled", Critical, "Diagnosis: the runtime does not poll its tasks in time.")
        }
        Cause::CacheDown => {
            ("PoolscopeDiagnosedCacheDown", Critical, "Diagnosis: a cache is away, and its load is on the database.")
        }
        // No problem.
        _ => return None,
    })
}

/// Returns the alerts that report the symptoms of a cause.
fn symptoms(cause: Cause) -> Vec<&'static str> {
    let own: &[&str] = match cause {
        Cause::Undersized | Cause::Burst => {
            return [&["PoolscopePoolExhausted", "PoolscopeRequestsShed"], EXHAUSTION_SYMPTOMS].concat();
        }
        Cause::SlowQueries => &["PoolscopeSlowQueries"],
        Cause::HeldIdle => &["PoolscopeHeldIdle"],
        Cause::IdleInTransaction => &["PoolscopeIdleInTransaction"],
        // A task that leaks its connection waits for the next one.
        Cause::Leak => &["PoolscopeSuspectedLeak", "PoolscopeSelfDeadlock"],
        Cause::SelfDeadlock => &["PoolscopeSelfDeadlock"],
        Cause::ServerDown => &["PoolscopeServerDown", "PoolscopeConnectingFails", "PoolscopeCheckoutErrors"],
        Cause::ServerFull => {
            &["PoolscopeServerFull", "PoolscopeServerSlotsLow", "PoolscopeConnectingFails", "PoolscopeCheckoutErrors"]
        }
        Cause::CacheDown => &["PoolscopeCacheDown", "PoolscopeCheckoutWaitHigh"],
        Cause::ConnectSlow => &["PoolscopeCheckoutWaitHigh"],
        Cause::Churn => &["PoolscopeConnectionChurn", "PoolscopeCheckoutWaitHigh"],
        Cause::RetryStorm => &["PoolscopeRetryStorm", "PoolscopeRetryBudgetSpent", "PoolscopeManyCheckouts"],
        _ => &[],
    };
    own.to_vec()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn every_problem_has_an_alert_named_after_it() {
        let alerts = alerts(&Thresholds::committed().unwrap());
        assert_eq!(alerts.len(), Cause::ALL.len() - 2);
        for alert in alerts {
            let cause = alert.diagnosed.unwrap().cause.as_str().replace('_', "");
            assert_eq!(alert.name.strip_prefix(PREFIX).unwrap().to_lowercase(), cause);
        }
    }

    /// An alert that is kept firing has no live cause, and must not mute the next verdict.
    #[test]
    fn causes_inhibit_no_other_cause() {
        let alerts = alerts(&Thresholds::committed().unwrap());
        for alert in &alerts {
            let inhibits = &alert.diagnosed.as_ref().unwrap().inhibits;
            assert!(!inhibits.iter().any(|name| name.starts_with(PREFIX)), "{}: {inhibits:?}", alert.name);
        }
        let explained = |name: &str| alerts.iter().find(|alert| alert.name == name).unwrap().expr.clone();
        let slow_queries = explained("PoolscopeDiagnosedSlowQueries");
        assert!(slow_queries.contains("server_down") && !slow_queries.contains("leak"), "{slow_queries}");
        // A leak is a ticket, and must not replace a page.
        assert!(!explained("PoolscopeDiagnosedUndersized").contains("leak"));
        assert!(explained("PoolscopeDiagnosedBurst").contains("leak"));
    }
}
