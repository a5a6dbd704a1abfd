//! Is anybody still watching?

use super::{Alert, Scope, Severity, uses};
use crate::monitoring::names::{BUILD_INFO, SPANS_DROPPED, SPANS_ENDED, SPANS_FAILED, WIRES_LOST};
use crate::monitoring::rules::recording::INSTANCE_LABELS;
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
        // Which targets have a pool nobody needs to configure: those that said so.
        expr: format!("up == 0\nand on (job, instance)\nlast_over_time({BUILD_INFO}[{known}])"),
        pending: t.for_page.clone(),
        summary: "A process with a connection pool cannot be scraped.",
        says: format!("it cannot be scraped, and told of its pools within the last {known}."),
        blame: Vec::new(),
        meaning: format!("A target that told of its pools within the last {known} cannot be scraped."),
        thresholds: uses([known]),
        comes_with: &[&["PoolscopeMetricsAbsent"]],
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
        pending: t.for_page.clone(),
        summary: "Nothing tells of connection pools any more.",
        says: format!("no target tells of a pool, as some did within the last {known}, or none has for that long."),
        blame: Vec::new(),
        meaning: format!(
            "None of a job's targets tells of its pools, although one did within the last {known}; or no target of any \
             job did within that time."
        ),
        thresholds: uses([known]),
        comes_with: &[&["PoolscopeTargetDown"]],
    }
}

fn wires_lost(t: &Thresholds) -> Alert {
    let window = &t.window_rare;
    Alert {
        name: "PoolscopeWiresLost",
        severity: Severity::Warning,
        scope: Scope::Pool,
        expr: format!("increase({WIRES_LOST}[{window}]) > 0"),
        pending: t.for_event.clone(),
        summary: "What passes on connections is not understood, so that less is known of them.",
        says: format!("{{{{ $value | humanize }}}} connections of the last {window} are read no further."),
        blame: Vec::new(),
        meaning: format!("In the last {window} something passed on a connection that was not understood."),
        thresholds: uses([window]),
        comes_with: &[],
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
        pending: t.for_ticket.clone(),
        summary: "Traces are incomplete: spans are lost on their way to the collector.",
        says: format!(
            "{{{{ $value | humanizePercentage }}}} of the spans of the last {window} did not reach their destination, \
             {{{{ $labels.destination }}}}."
        ),
        blame: Vec::new(),
        meaning: format!(
            "Of the spans that ended in the last {window}, more than {} were dropped, or sent in vain.",
            t.span_loss_share.human()
        ),
        thresholds: uses([&t.span_loss_share, window]),
        comes_with: &[],
    }
}
