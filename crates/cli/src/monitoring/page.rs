//! The reference of alerts, `docs/alerts.md`.

use std::fmt::Write as _;

use super::rules::alerts::{Severity, alerts};
use super::rules::recording::{recordings, slow_recordings};
use super::thresholds::Thresholds;

const INTRODUCTION: &str = "\
# Alerts

<!-- Generated from crates/cli/src/monitoring/rules/ and alerts/thresholds.toml.
     `POOLSCOPE_BLESS=1 cargo test -p poolscope-cli --lib monitoring` writes it anew. -->

`poolscope rules` prints them for Prometheus, recording rules first:

```console
$ poolscope rules > /etc/prometheus/rules/poolscope.yml
$ poolscope rules --runbooks-url https://wiki.example/runbooks --grafana-url https://grafana.example
```

`alerts/recording.rules.yml` and `alerts/alerts.rules.yml` are the same, with the addresses that it assumes by itself.
`alerts/alertmanager.yml` is an example of who is told of what, and which alerts mute others.

Each alert is about one pool of one instance, unless it says otherwise, and there is one for each. Its labels are those of its target and
pool, and `severity`. Its description names who is to blame, as Prometheus knows it when the alert is evaluated. `runbook_url` leads to
the exporter of the instance, which serves the runbooks beneath `/runbooks/`, and `dashboard_url` to the pool in Grafana.

Sums over the instances of a job are without `instance`, `pod`, `node` and `host`. A label of another name that tells instances apart
makes a sum for each of them.

`make stack` runs the demo with Prometheus and Alertmanager, for a look at them; `make stack ARGS='--scenario leak'` with something
that goes wrong. So that nobody has to wait, time passes fifteen times as fast there (`PACE=1s`), by rules of
`poolscope rules --pace 1s`: a page comes after 8 s and a ticket after 40, and what is named after 5m is of 20 s. Which alerts each
fault fires, [demo.md](demo.md) says. `make test` brings each about before a Prometheus and an Alertmanager, at that pace, and holds them
to it; and it holds that a healthy load fires none within 300 evaluations, which are as many as 75 minutes have in life.

";

/// `docs/alerts.md`.
#[must_use]
pub fn page(thresholds: &Thresholds) -> String {
    let alerts = alerts(thresholds);
    let mut page = INTRODUCTION.to_owned();
    for (severity, title) in [(Severity::Critical, "Pages"), (Severity::Warning, "Tickets")] {
        let _ = writeln!(page, "## {title}\n\n| alert | fires when | for | thresholds |\n|---|---|---|---|");
        for alert in alerts.iter().filter(|alert| alert.severity == severity) {
            let limits: Vec<_> = alert.thresholds.iter().map(|threshold| format!("`{}`", threshold.name)).collect();
            let _ = writeln!(
                page,
                "| [{name}](runbooks/{name}.md) | {} | {} | {} |",
                alert.meaning,
                alert.pending,
                limits.join(", "),
                name = alert.name,
            );
        }
        page.push('\n');
    }
    page.push_str("## Thresholds\n\n| threshold | value | why |\n|---|---|---|\n");
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

    use super::*;

    #[test]
    fn the_page_of_alerts_is_current_and_no_cell_breaks_its_table() {
        let page = page(&Thresholds::committed().unwrap());
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/alerts.md");
        if std::env::var_os("POOLSCOPE_BLESS").is_some() {
            std::fs::write(path, &page).unwrap();
        }
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            written == page,
            "docs/alerts.md is not what is generated: POOLSCOPE_BLESS=1 cargo test -p poolscope-cli --lib monitoring writes it anew"
        );
        for row in page.lines().filter(|line| line.starts_with("| [")) {
            assert_eq!(row.matches('|').count(), 5, "{row}");
        }
    }
}
