//! The annotations of alerts: texts and links of notifications.

use super::alert::{Alert, Scope};
use super::contributor::Contributor;
use crate::monitoring::names::{POOL_LABEL, SCRAPES};

/// Grafana's default address.
const DEFAULT_GRAFANA: &str = "http://localhost:3000";

/// The base addresses of links in notifications.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Links {
    /// The base address of the runbooks, or `None` for the exporter of the alert's instance.
    pub runbooks: Option<String>,
    /// Grafana's address, or `None` for its default.
    pub grafana: Option<String>,
}

/// Returns the annotations of an alert, in the order of the file.
#[must_use]
pub fn annotations(alert: &Alert, links: &Links) -> [(&'static str, String); 4] {
    [
        ("summary", alert.summary.to_owned()),
        ("description", description(alert)),
        ("runbook_url", runbook_url(alert, links)),
        ("dashboard_url", dashboard_url(alert, links)),
    ]
}

fn description(alert: &Alert) -> String {
    let mut text = match alert.scope {
        Scope::Pool => format!("Pool {{{{ $labels.{POOL_LABEL} }}}} of {{{{ $labels.instance }}}}: "),
        Scope::Fleet => format!("Pools {{{{ $labels.{POOL_LABEL} }}}} of job {{{{ $labels.job }}}}: "),
        Scope::Instance | Scope::Target => "{{ $labels.instance }} of job {{ $labels.job }}: ".to_owned(),
        Scope::Job => "{{ with $labels.job }}Job {{ . }}{{ else }}All jobs{{ end }}: ".to_owned(),
    };
    text.push_str(&alert.description);
    text.extend(alert.contributors.iter().map(Contributor::template));
    text
}

/// Returns the runbook's URL: under the configured address, or at the exporter of the alert's instance. If that instance is
/// down, or if there are several, the URL points to any exporter that answers, since all serve the same runbooks.
fn runbook_url(alert: &Alert, links: &Links) -> String {
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

fn dashboard_url(alert: &Alert, links: &Links) -> String {
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
    format!("{base}/d/{}?{variables}&viewPanel={}", alert.panel.dashboard().uid(), alert.panel.number())
}
