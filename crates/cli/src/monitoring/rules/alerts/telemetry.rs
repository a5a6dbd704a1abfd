//! Alerts on telemetry itself: scrapes, metrics, protocol observation and span export.

use crate::monitoring::dashboards::PanelId;
use crate::monitoring::names::{BUILD_INFO, SPANS_DROPPED, SPANS_ENDED, SPANS_FAILED, WIRES_LOST};
use crate::monitoring::recording::INSTANCE_LABELS;
use crate::monitoring::rules::alert::{Alert, Scope, Severity, cloned};
use crate::monitoring::thresholds::Thresholds;

pub(super) fn alerts(t: &Thresholds) -> Vec<Alert> {
    vec![target_down(t), metrics_absent(t), wires_lost(t), span_export_failing(t)]
}

fn target_down(t: &Thresholds) -> Alert {
    let known = &t.window_known;
    Alert {
        name: "PoolscopeTargetDown",
        severity: Severity::Critical,
        scope: Scope::Target,
        // Targets with a pool are recognised by their past metrics, without configuration.
        expr: format!("up == 0\nand on (job, instance)\nlast_over_time({BUILD_INFO}[{known}])"),
        for_duration: t.for_page.clone(),
        keep_firing_for: None,
        summary: "An instance with a connection pool cannot be scraped.",
        description: format!("scraping fails, and the target reported pool metrics within the last {known}."),
        contributors: Vec::new(),
        condition: format!("A target that reported pool metrics within the last {known} cannot be scraped."),
        thresholds: cloned([known]),
        panel: PanelId::FleetInstancesDown,
        diagnosed: None,
        related: &[&["PoolscopeMetricsAbsent"]],
    }
}

fn metrics_absent(t: &Thresholds) -> Alert {
    let known = &t.window_known;
    let jobs = |of: &str| format!("count without ({INSTANCE_LABELS}, version) ({of})");
    Alert {
        name: "PoolscopeMetricsAbsent",
        severity: Severity::Critical,
        scope: Scope::Job,
        expr: format!(
            "(\n  {}\nunless\n  {}\n)\nor\nabsent(last_over_time({BUILD_INFO}[{known}]))",
            jobs(&format!("last_over_time({BUILD_INFO}[{known}])")),
            jobs(BUILD_INFO)
        ),
        for_duration: t.for_page.clone(),
        keep_firing_for: None,
        summary: "Pool metrics are missing: the state of the pools is unknown.",
        description: format!(
            "no target reports pool metrics, although one did within the last {known}, or none did in that time."
        ),
        contributors: Vec::new(),
        condition: format!(
            "No target of a job reports pool metrics, although one did within the last {known}; or no target of any \
             job did in that time."
        ),
        thresholds: cloned([known]),
        panel: PanelId::FleetInstancesDown,
        diagnosed: None,
        related: &[&["PoolscopeTargetDown"]],
    }
}

fn wires_lost(t: &Thresholds) -> Alert {
    let window = &t.window_rare;
    Alert {
        name: "PoolscopeWiresLost",
        severity: Severity::Warning,
        scope: Scope::Pool,
        expr: format!("increase({WIRES_LOST}[{window}]) > 0"),
        for_duration: t.for_event.clone(),
        keep_firing_for: None,
        summary: "Protocol observation has stopped on some connections: their activity is unknown.",
        description: format!(
            "observation of {{{{ $value | humanize }}}} connections stopped in the last {window} after an unknown \
             message."
        ),
        contributors: Vec::new(),
        condition: format!(
            "In the last {window}, the protocol observer stopped on a connection after a message that it does not \
             understand."
        ),
        thresholds: cloned([window]),
        panel: PanelId::WiresLost,
        diagnosed: None,
        related: &[],
    }
}

fn span_export_failing(t: &Thresholds) -> Alert {
    let window = &t.window;
    Alert {
        name: "PoolscopeSpanExportFailing",
        severity: Severity::Warning,
        scope: Scope::Instance,
        expr: format!(
            "(\n  rate({SPANS_DROPPED}[{window}])\n+\n  rate({SPANS_FAILED}[{window}])\n)\n/\n\
             (rate({SPANS_ENDED}[{window}]) > 0)\n> {}",
            t.span_loss_share
        ),
        for_duration: t.for_ticket.clone(),
        keep_firing_for: None,
        summary: "Spans are lost: traces are incomplete.",
        description: format!(
            "{{{{ $value | humanizePercentage }}}} of the spans in the last {window} did not reach the destination \
             {{{{ $labels.destination }}}}."
        ),
        contributors: Vec::new(),
        condition: format!(
            "More than {} of the spans that ended in the last {window} were dropped or failed to export.",
            t.span_loss_share.human()
        ),
        thresholds: cloned([&t.span_loss_share, window]),
        panel: PanelId::Spans,
        diagnosed: None,
        related: &[],
    }
}
