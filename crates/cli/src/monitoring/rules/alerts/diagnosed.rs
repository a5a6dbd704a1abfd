//! An alert for each cause of the diagnosis, which inhibits the alerts on its symptoms.
//!
//! What a cause explains follows from the library's table of rules: the symptoms of the cause itself, and of each cause that
//! it explains.

use poolscope::causes::{Description, descriptions};
use poolscope::labels::Cause;

use crate::monitoring::dashboards::PanelId;
use crate::monitoring::names::DIAGNOSIS_SECONDS;
use crate::monitoring::rules::alert::{Alert, Diagnosed, EXHAUSTION_SYMPTOMS, Scope, Severity};
use crate::monitoring::thresholds::Thresholds;

/// The beginning of the names of these alerts.
pub const PREFIX: &str = "PoolscopeDiagnosed";

pub(super) fn alerts(t: &Thresholds) -> Vec<Alert> {
    let problems: Vec<Description> = descriptions().filter(|description| !description.advice.is_empty()).collect();
    problems.iter().filter_map(|description| alert(t, description)).collect()
}

fn alert(t: &Thresholds, description: &Description) -> Option<Alert> {
    let cause = description.cause;
    let (name, severity, summary) = identity(cause)?;
    let label = cause.as_str();
    let explained = description.explains.iter().filter_map(|cause| identity(*cause)).map(|(name, ..)| name);
    let symptoms = description.explains.iter().chain([&cause]).flat_map(|cause| symptoms(*cause));
    let mut inhibits: Vec<_> = explained.chain(symptoms).collect();
    inhibits.sort_unstable();
    inhibits.dedup();
    Some(Alert {
        name,
        severity,
        scope: Scope::Pool,
        expr: format!("max without (operation, call_site) ({DIAGNOSIS_SECONDS}{{cause=\"{label}\"}}) >= 0"),
        for_duration: t.for_diagnosis.clone(),
        summary,
        description: String::new(),
        contributors: Vec::new(),
        condition: format!(
            "The pool's diagnosis is `{label}`; docs/diagnosis.md has its conditions. The alert fires until {} after the \
             last time.",
            t.keep_diagnosis
        ),
        thresholds: Vec::new(),
        panel: PanelId::Causes,
        related: &[],
        diagnosed: Some(Diagnosed { cause, keep_firing_for: t.keep_diagnosis.clone(), inhibits }),
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
}
