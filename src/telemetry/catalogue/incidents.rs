//! The metrics of incident files.

use super::{Kind, Metric, Source};

pub(super) const FILES: Metric = Metric {
    name: "poolscope_incident_files_total",
    kind: Kind::Counter,
    labels: &[],
    help: "Incident files written completely. Missing unless they are enabled.",
    source: Source::Incidents(|totals| totals.files),
};

pub(super) const ERRORS: Metric = Metric {
    name: "poolscope_incident_errors_total",
    kind: Kind::Counter,
    labels: &[],
    help: "Failures to write incident files, such as on a full disk, and samples that are missing in them because the disk does not keep up. Nothing else is affected.",
    source: Source::Incidents(|totals| totals.errors),
};
