//! What a notification says, and where it leads.

use super::alerts::{Alert, Scope};
use super::blame::Blame;
use crate::monitoring::dashboards::{Dashboard, Panel, panel_id};
use crate::monitoring::names::{POOL_LABEL, SCRAPES};

/// Where Grafana listens by itself.
const DEFAULT_GRAFANA: &str = "http://localhost:3000";

/// Where the links of notifications lead.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Links {
    /// The address beneath which the runbooks are; none for the exporter of the instance that an alert is about.
    pub runbooks: Option<String>,
    /// Grafana's address; none for the one it has by itself.
    pub grafana: Option<String>,
}

/// The panel that shows what an alert is about. A test holds that each has one.
#[must_use]
pub fn panel(alert: &str) -> Option<Panel> {
    let panel = match alert {
        "PoolscopePoolExhausted" | "PoolscopePoolSaturated" => Panel::Saturated,
        "PoolscopeWaitersSustained" => Panel::WhoWaits,
        "PoolscopeCheckoutWaitHigh" => Panel::WaitTime,
        "PoolscopeTimeoutBudgetBurns"
        | "PoolscopeTimeoutBudgetBurnsFast"
        | "PoolscopeWaitBudgetBurns"
        | "PoolscopeWaitBudgetBurnsFast" => Panel::Objective,
        "PoolscopeConnectingFails" | "PoolscopeServerFull" => Panel::ConnectionErrors,
        "PoolscopeServerSlotsShort" => Panel::Slots,
        "PoolscopeServerDown" => Panel::ServersDown,
        "PoolscopeServerSlotsLow" => Panel::ServerSlots,
        "PoolscopeConnectionChurn" => Panel::ChurnShare,
        "PoolscopeSlowQueries" => Panel::QueryTime,
        "PoolscopeHeldIdle" => Panel::HeldForNothing,
        "PoolscopeIdleInTransaction" => Panel::WhoHolds,
        "PoolscopeSuspectedLeak" => Panel::SuspectedLeaks,
        "PoolscopeDirtyReturns" => Panel::DirtyReturns,
        "PoolscopeSelfDeadlock" => Panel::SelfDeadlocks,
        "PoolscopeRequestsShed" => Panel::FailedCheckouts,
        "PoolscopeManyCheckouts" => Panel::Checkouts,
        "PoolscopeRetryStorm" => Panel::Retries,
        "PoolscopeRetryBudgetSpent" => Panel::RetryBudget,
        "PoolscopeTargetDown" | "PoolscopeMetricsAbsent" => Panel::FleetUp,
        "PoolscopeWiresLost" => Panel::WiresLost,
        "PoolscopeSpanExportFailing" => Panel::Spans,
        _ => return None,
    };
    Some(panel)
}

/// The annotations of an alert, in the order in which they are written.
#[must_use]
pub fn annotations(alert: &Alert, links: &Links) -> [(&'static str, String); 4] {
    [
        ("summary", alert.summary.to_owned()),
        ("description", description(alert)),
        ("runbook_url", runbook(alert, links)),
        ("dashboard_url", dashboard(alert, links)),
    ]
}

fn description(alert: &Alert) -> String {
    let mut text = match alert.scope {
        Scope::Pool => format!("Pool {{{{ $labels.{POOL_LABEL} }}}} of {{{{ $labels.instance }}}}: "),
        Scope::Fleet => format!("Pools {{{{ $labels.{POOL_LABEL} }}}} of job {{{{ $labels.job }}}}: "),
        Scope::Instance | Scope::Target => "{{ $labels.instance }} of job {{ $labels.job }}: ".to_owned(),
        Scope::Job => "{{ with $labels.job }}Job {{ . }}{{ else }}All jobs{{ end }}: ".to_owned(),
    };
    text.push_str(&alert.says);
    text.extend(alert.blame.iter().map(Blame::template));
    text
}

/// A place beneath the address that was given. Else at the exporter of the instance; and where that is away, or there are
/// several, at any that answers, since all of them carry the same runbooks.
fn runbook(alert: &Alert, links: &Links) -> String {
    let name = alert.name;
    match (&links.runbooks, alert.scope) {
        (Some(base), _) => format!("{}/{name}", base.trim_end_matches('/')),
        (None, Scope::Pool | Scope::Instance) => format!("http://{{{{ $labels.instance }}}}/runbooks/{name}"),
        (None, Scope::Fleet | Scope::Target | Scope::Job) => format!(
            "{{{{ with query `{SCRAPES}{{code=\"200\"}}` | sortByLabel \"instance\" }}}}\
             http://{{{{ . | first | label \"instance\" }}}}/runbooks/{name}\
             {{{{ else }}}}docs/runbooks/{name}.md{{{{ end }}}}"
        ),
    }
}

fn dashboard(alert: &Alert, links: &Links) -> String {
    let base = links.grafana.as_deref().unwrap_or(DEFAULT_GRAFANA).trim_end_matches('/');
    let variable = |name: &str, label: &str| format!("var-{name}={{{{ $labels.{label} | urlquery }}}}");
    let (job, instance, pool) =
        (variable("job", "job"), variable("instance", "instance"), variable("pool", POOL_LABEL));
    let variables = match alert.scope {
        Scope::Pool => format!("{job}&{instance}&{pool}"),
        Scope::Fleet => format!("{job}&{pool}"),
        Scope::Instance | Scope::Target => format!("{job}&{instance}"),
        Scope::Job => "var-job={{ with $labels.job }}{{ . | urlquery }}{{ else }}$__all{{ end }}".to_owned(),
    };
    match panel(alert.name) {
        Some(panel) => {
            format!("{base}/d/{}?{variables}&viewPanel={}", panel.dashboard().uid(), panel_id(panel))
        }
        None => format!("{base}/d/{}?{variables}", Dashboard::Fleet.uid()),
    }
}
