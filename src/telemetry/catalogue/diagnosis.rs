//! Metrics of the diagnosis.

use super::{Kind, Metric};
use crate::labels::Cause;

pub(super) const CAUSE: Metric = Metric::of_pool(
    "poolscope_diagnosis",
    Kind::Gauge,
    &["cause"],
    "1 for the cause that the pool is diagnosed with, healthy if there is no problem, and 0 for every other. docs/diagnosis.md lists the causes and their conditions.",
    |pool, sink| {
        let diagnosed = pool.diagnosis.as_ref().map_or(Cause::NotEnoughData, |verdict| verdict.cause);
        for cause in Cause::ALL {
            sink.value(&[cause.as_str()], if *cause == diagnosed { 1.0 } else { 0.0 });
        }
    },
);

pub(super) const SECONDS: Metric = Metric::of_pool(
    "poolscope_diagnosis_seconds",
    Kind::Gauge,
    &["cause", "operation", "call_site"],
    "For how long the pool has been diagnosed with its cause, with the operation and the call site responsible, which are empty where there is none. One series per pool.",
    |pool, sink| {
        if let Some(verdict) = &pool.diagnosis {
            let operation = verdict.operation.as_deref().unwrap_or_default();
            let call_site = verdict.call_site.as_deref().unwrap_or_default();
            sink.value(&[verdict.cause.as_str(), operation, call_site], verdict.lasting.as_secs_f64());
        }
    },
);

pub(super) const EVIDENCE: Metric = Metric::of_pool(
    "poolscope_diagnosis_evidence",
    Kind::Gauge,
    &["measure", "unit"],
    "The measured values that the pool's diagnosis rests on, in the unit of the label: only those that the current cause needs. docs/diagnosis.md explains the measures.",
    |pool, sink| {
        for evidence in pool.diagnosis.iter().flat_map(|verdict| &verdict.evidence) {
            sink.value(&[evidence.name, evidence.unit], evidence.value);
        }
    },
);

pub(super) const EVIDENCE_USUAL: Metric = Metric::of_pool(
    "poolscope_diagnosis_evidence_usual",
    Kind::Gauge,
    &["measure", "unit"],
    "The usual value of poolscope_diagnosis_evidence: its mean while the pool was healthy. Missing where that is unknown.",
    |pool, sink| {
        for evidence in pool.diagnosis.iter().flat_map(|verdict| &verdict.evidence) {
            if let Some(usual) = evidence.usual {
                sink.value(&[evidence.name, evidence.unit], usual);
            }
        }
    },
);
