//! What a notification says, and where it leads.

use std::fmt::Write as _;

use super::alerts::{Alert, Scope};
use super::blame::Blame;
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

/// The panel of the alert's dashboard that shows what it is about.
#[must_use]
pub fn panel(_alert: &str) -> Option<u32> {
    None
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
    let mut url = match alert.scope {
        Scope::Pool => format!("{base}/d/poolscope-pool?{job}&{instance}&{pool}"),
        Scope::Fleet => format!("{base}/d/poolscope-fleet?{job}&{pool}"),
        Scope::Instance | Scope::Target => format!("{base}/d/poolscope-exporter?{job}&{instance}"),
        Scope::Job => format!(
            "{base}/d/poolscope-fleet?var-job={{{{ with $labels.job }}}}{{{{ . | urlquery }}}}{{{{ else }}}}$__all{{{{ end }}}}"
        ),
    };
    if let Some(panel) = panel(alert.name) {
        let _ = write!(url, "&viewPanel={panel}");
    }
    url
}
