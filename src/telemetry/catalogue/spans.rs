//! The metrics of exported spans.

use super::{Kind, Metric};

pub(super) const ENDED: Metric = Metric::of_spans(
    "poolscope_spans_ended_total",
    Kind::Counter,
    "Sampled spans ended, by destination: otlp (a collector) or page (a page of this process, as in the demo). At every scrape equal to the sum of the queued, exported, dropped and failed spans. Missing unless spans are exported.",
    |spans| spans.ended,
);

pub(super) const QUEUED: Metric = Metric::of_spans(
    "poolscope_spans_queued",
    Kind::Gauge,
    "Spans waiting to be exported or being exported.",
    |spans| spans.queued,
);

pub(super) const EXPORTED: Metric = Metric::of_spans(
    "poolscope_spans_exported_total",
    Kind::Counter,
    "Spans accepted by their destination.",
    |spans| spans.exported,
);

pub(super) const DROPPED: Metric = Metric::of_spans(
    "poolscope_spans_dropped_total",
    Kind::Counter,
    "Spans not sent because the queue was full or the process ended.",
    |spans| spans.dropped,
);

pub(super) const FAILED: Metric = Metric::of_spans(
    "poolscope_spans_failed_total",
    Kind::Counter,
    "Spans whose export failed after all retries: the destination was unreachable, too slow or rejected them.",
    |spans| spans.failed,
);
