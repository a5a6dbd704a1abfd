//! What became of spans, by destination.

use super::{Kind, Metric};

pub(super) const ENDED: Metric = Metric::of_spans(
    "poolscope_spans_ended_total",
    Kind::Counter,
    "Sampled spans that ended, by where they go: otlp (a collector), page (the demo's own). At every scrape: the sum of the queued, exported, dropped and failed ones. Missing while nothing takes spans.",
    |spans| spans.ended,
);

pub(super) const QUEUED: Metric = Metric::of_spans(
    "poolscope_spans_queued",
    Kind::Gauge,
    "Spans that currently wait to be exported, or are being exported.",
    |spans| spans.queued,
);

pub(super) const EXPORTED: Metric =
    Metric::of_spans("poolscope_spans_exported_total", Kind::Counter, "Spans that their destination took.", |spans| {
        spans.exported
    });

pub(super) const DROPPED: Metric = Metric::of_spans(
    "poolscope_spans_dropped_total",
    Kind::Counter,
    "Spans that were not sent at all: the queue was full, or the process ended first.",
    |spans| spans.dropped,
);

pub(super) const FAILED: Metric = Metric::of_spans(
    "poolscope_spans_failed_total",
    Kind::Counter,
    "Spans that were sent in vain: the destination was away, too slow or refused them, retries included.",
    |spans| spans.failed,
);
