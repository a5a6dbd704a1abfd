//! The annotations of alerts: texts and links of notifications.

use super::alert::{Alert, Scope};
use super::contributor::Contributor;
use super::links::{Links, Runbooks};
use super::verdict;
use crate::monitoring::names::{POOL_LABEL, SCRAPES};

/// Returns the annotations of an alert, in the order of the file.
#[must_use]
pub fn annotations(alert: &Alert, links: &Links) -> Vec<(&'static str, String)> {
    let mut annotations = vec![
        ("summary", alert.summary.to_owned()),
        ("description", description(alert)),
        ("runbook_url", runbook_url(alert, &links.runbooks)),
    ];
    annotations.extend(links.grafana.as_deref().map(|base| ("dashboard_url", dashboard_url(alert, base))));
    annotations
}

fn description(alert: &Alert) -> String {
    if let Some(diagnosed) = &alert.diagnosed {
        return verdict::description(diagnosed.cause);
    }
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

/// Returns the runbook's URL. If the instance whose exporter serves it is down, or if there are several, the URL points to
/// any exporter that answers, since all serve the same runbooks.
fn runbook_url(alert: &Alert, runbooks: &Runbooks) -> String {
    let name = alert.name;
    match (runbooks, alert.scope) {
        (Runbooks::Published, _) => published(name),
        (Runbooks::At(base), _) => format!("{}/{name}", base.trim_end_matches('/')),
        (Runbooks::Exporter, Scope::Pool | Scope::Instance) => {
            format!("http://{{{{ $labels.instance }}}}/runbooks/{name}")
        }
        (Runbooks::Exporter, Scope::Fleet | Scope::Target | Scope::Job) => format!(
            "{{{{ with query `{SCRAPES}{{code=\"200\"}}` | sortByLabel \"instance\" }}}}\
             http://{{{{ . | first | label \"instance\" }}}}/runbooks/{name}\
             {{{{ else }}}}{}{{{{ end }}}}",
            published(name)
        ),
    }
}

/// Returns the address of a runbook in the library's documentation.
fn published(name: &str) -> String {
    format!("https://docs.rs/poolscope/latest/poolscope/runbooks/{name}/index.html")
}

fn dashboard_url(alert: &Alert, base: &str) -> String {
    let base = base.trim_end_matches('/');
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
