//! The sampler of a pipeline, and the notice that nothing is sampled.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};

use opentelemetry::trace::{Link, SpanKind, TraceContextExt as _, TraceId};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{Sampler, SamplingDecision, SamplingResult, ShouldSample};

use super::settings::Sampling;

/// The number of traces of callers, of which none is sampled, after which the notice is due.
const UNSAMPLED_CALLERS: u64 = 10;

/// The expected number of sampled traces, if none is, after which the notice is due: less likely than 0.1 % by chance.
const EXPECTED_SAMPLES: f64 = 7.0;

/// Counts the traces that are not sampled until one is.
#[derive(Debug)]
pub(super) struct SamplingWatch {
    settings: Sampling,
    unsampled: AtomicU64,
    has_sampled: AtomicBool,
    was_logged: AtomicBool,
}

impl SamplingWatch {
    pub(super) fn new(settings: Sampling) -> Arc<Self> {
        let (unsampled, has_sampled, was_logged) = (AtomicU64::new(0), AtomicBool::new(false), AtomicBool::new(false));
        Arc::new(Self { settings, unsampled, has_sampled, was_logged })
    }

    /// Records the decision for the first span of a trace in this process.
    fn record(&self, is_sampled: bool) {
        if self.has_sampled.load(Relaxed) {
            return;
        }
        if is_sampled {
            self.has_sampled.store(true, Relaxed);
        } else {
            self.unsampled.fetch_add(1, Relaxed);
        }
    }

    /// Returns the number of traces if none was sampled so far, although some were to be expected, or the ratio is zero.
    fn unsampled(&self) -> Option<u64> {
        let Sampling { ratio, .. } = self.settings;
        let due = match ratio {
            0.0 => 1.0,
            ratio => (EXPECTED_SAMPLES / ratio).ceil().max(UNSAMPLED_CALLERS as f64),
        };
        let unsampled = self.unsampled.load(Relaxed);
        (!self.has_sampled.load(Relaxed) && unsampled as f64 >= due).then_some(unsampled)
    }

    /// Logs once that nothing is exported because nothing is sampled. Not called by the sampler: a line that is logged while a
    /// span is created would enter the layer that creates it.
    pub(super) fn log(&self) {
        let Some(traces) = self.unsampled() else { return };
        if !self.was_logged.swap(true, Relaxed) {
            let Sampling { ratio, parent_based } = self.settings;
            tracing::warn!(
                traces,
                ratio,
                parent_based,
                "no span is exported, because no trace is sampled; check OTEL_TRACES_SAMPLER, OTEL_TRACES_SAMPLER_ARG and the \
                 sampling of callers"
            );
        }
    }

    #[cfg(test)]
    pub(super) fn was_logged(&self) -> bool {
        self.was_logged.load(Relaxed)
    }
}

/// A sampler whose decisions are counted.
#[derive(Clone, Debug)]
pub(super) struct WatchedSampler {
    sampler: Sampler,
    watch: Arc<SamplingWatch>,
}

impl WatchedSampler {
    pub(super) fn new(watch: Arc<SamplingWatch>) -> Self {
        let Sampling { ratio, parent_based } = watch.settings;
        let root = Sampler::TraceIdRatioBased(ratio);
        let sampler = if parent_based { Sampler::ParentBased(Box::new(root)) } else { root };
        Self { sampler, watch }
    }
}

impl ShouldSample for WatchedSampler {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace_id: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let result = self.sampler.should_sample(parent, trace_id, name, kind, attributes, links);
        let is_first = parent.filter(|parent| parent.has_active_span()).is_none_or(|parent| {
            let span = parent.span();
            span.span_context().is_remote() || !span.span_context().is_valid()
        });
        if is_first {
            self.watch.record(result.decision == SamplingDecision::RecordAndSample);
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unsampled(ratio: f64, decisions: &[bool]) -> Option<u64> {
        let watch = SamplingWatch::new(Sampling { ratio, parent_based: true });
        decisions.iter().for_each(|sampled| watch.record(*sampled));
        watch.unsampled()
    }

    #[test]
    fn notice_is_due_when_samples_were_to_be_expected() {
        for (ratio, due) in [(0.0, 1), (1.0, 10), (0.5, 14), (0.01, 700)] {
            assert_eq!(unsampled(ratio, &vec![false; due - 1]), None, "{ratio}");
            assert_eq!(unsampled(ratio, &vec![false; due]), Some(due as u64), "{ratio}");
            assert_eq!(unsampled(ratio, &[vec![false; due], vec![true]].concat()), None, "{ratio}");
        }
    }
}
