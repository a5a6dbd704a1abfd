//! The reference page of alerts, `docs/alerts.md`.

use std::fmt::Write as _;

use super::generated::COMMAND;
use super::recording::{recordings, slow_recordings};
use super::rules::alerts::{Severity, alerts};
use super::thresholds::Thresholds;

const INTRODUCTION: &str = "\
`poolscope rules` prints all rules for Prometheus, recording rules first:

```console
$ poolscope rules --server-connections 200 --grafana-url https://grafana.shop.net > /etc/prometheus/rules/poolscope.yml
```

| flag | default | effect |
|---|---|---|
| `--thresholds FILE` | those [below](#thresholds) | A TOML file replaces thresholds. Of each table only `value` is required. |
| `--server-connections N` | 100 | The server's `max_connections`, for servers that no process polls. |
| `--grafana-url URL` | none | Links alerts to the dashboards (`dashboard_url`). |
| `--runbooks-url URL` | docs.rs | Links alerts to another copy of the runbooks; `exporter` for the instance's exporter, which serves them under `/runbooks/`. |

```toml
[slow_query_seconds]
value = 0.5

[for_ticket]
value = \"15m\"
```

`alerts/recording.rules.yml` and `alerts/alerts.rules.yml` contain the same rules for `deploy/compose`, whose Grafana they link to.
`alerts/alertmanager.yml` is an example of routing and inhibition.

## Diagnosed causes and symptoms

Each cause of the [diagnosis](diagnosis.md) has an alert, `PoolscopeDiagnosed…`. Its description starts with the verdict: the finding with
the operation and the call site responsible, for how long, and the advice. All others report symptoms, for pools without a verdict.

With `alerts/alertmanager.yml`, the alert of a cause inhibits those on its symptoms. It fires for `keep_diagnosis` after the last time
(`keep_firing_for`, which needs Prometheus 2.42; vmalert 1.79 does not know it, so remove these lines there), because symptoms are rates
over up to that time. So does `PoolscopePoolExhausted`, which inhibits the alerts on budgets.

A cause that follows from another one is not alerted while that one lasts, or within `window` after it: if it lasts longer, it is a fault of
its own. All this is generated from the table of the diagnosis and what a cause explains there. A ticket suppresses no page: a leak is a
ticket, and pages follow when checkouts fail or the pool is exhausted.

Notifications are grouped by alert, job and pool: a cause on all instances of a job is one notification that lists them. Two recording rules
aggregate verdicts over instances, `cause:poolscope_diagnosis:sum` and `cause:poolscope_diagnosis_seconds:max`: which cause, on how many
instances, for how long.

## Labels and annotations

Unless stated otherwise, an alert concerns one pool of one instance, and fires once for each. Its labels are those of its target and
pool, and `severity`. The description names the top contributor, such as the operation that holds most connections, as of the last
evaluation. `runbook_url` points to the runbook in the library's documentation, and `dashboard_url`, with `--grafana-url`, to the panel
of the pool in Grafana.

Sums over the instances of a job drop `instance`, `pod`, `node` and `host`. If instances differ in another label, each of its values
has its own sum.

## Trying the alerts

`make stack` runs the demo with Prometheus and Alertmanager; `make stack ARGS='--scenario leak'` adds a fault. Time runs fifteen times
as fast (`PACE=1s`, rules from `poolscope rules --pace 1s`): pages fire after 8 s and tickets after 40 s, and series named after 5m
cover 20 s. [demo.md](demo.md) lists the alerts of each fault. `make test` runs each fault against a real Prometheus and Alertmanager
at that pace, and checks that a healthy load fires no alert within 300 evaluations, which correspond to 75 minutes.

";

/// Returns the content of `docs/alerts.md`.
#[must_use]
pub fn page(thresholds: &Thresholds) -> String {
    let alerts = alerts(thresholds);
    let mut page = format!(
        "# Alerts\n\n<!-- Generated from the alert rules and alerts/thresholds.toml. Regenerate with\n     \
         `{COMMAND}`. -->\n\n\
         {INTRODUCTION}"
    );
    // Writing to a string does not fail.
    for (severity, title) in [(Severity::Critical, "Pages"), (Severity::Warning, "Tickets")] {
        let _ = writeln!(page, "## {title}\n\n| alert | condition | for | thresholds |\n|---|---|---|---|");
        for alert in alerts.iter().filter(|alert| alert.severity == severity) {
            let thresholds: Vec<_> = alert.thresholds.iter().map(|threshold| format!("`{}`", threshold.name)).collect();
            let _ = writeln!(
                page,
                "| [{name}](runbooks/{name}.md) | {} | {} | {} |",
                alert.condition,
                alert.for_duration,
                thresholds.join(", "),
                name = alert.name,
            );
        }
        page.push('\n');
    }
    page.push_str("## Thresholds\n\n| threshold | value | reason |\n|---|---|---|\n");
    for threshold in thresholds.all() {
        let _ = writeln!(page, "| `{}` | {} | {} |", threshold.name, threshold.human(), threshold.reason);
    }
    page.push_str("\n## Recorded series\n\n| series | meaning |\n|---|---|\n");
    for rule in recordings(thresholds).iter().chain(&slow_recordings(thresholds)) {
        let _ = writeln!(page, "| `{}` | {} |", rule.name, rule.help);
    }
    page
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::generated::assert_current;
    use super::*;

    #[test]
    fn page_is_current_and_its_tables_are_intact() {
        let page = page(&Thresholds::committed().unwrap());
        assert_current("docs/alerts.md", &page);
        for row in page.lines().filter(|line| line.starts_with("| [")) {
            assert_eq!(row.matches('|').count(), 5, "{row}");
        }
    }
}
