//! Pipelines that export to a collector in this process.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::Dispatch;
use tracing_subscriber::prelude::*;

use super::{Pipeline, Protocol, Settings};
use crate::telemetry::spans::SpanTotals;

mod export;
mod outage;
mod settings;

use poolscope_testing::otlp::Receiver;
use poolscope_testing::ports::ReservedPort;

/// Long enough for a busy machine: only a failing test waits for it.
const TEST_TIMEOUT: Duration = Duration::from_secs(30);

const PROTOCOLS: [Protocol; 2] = [Protocol::Grpc, Protocol::HttpProtobuf];

fn receiver(protocol: Protocol) -> Receiver {
    if protocol == Protocol::Grpc { Receiver::grpc() } else { Receiver::http() }
}

/// Returns settings for an endpoint, with a short delay.
fn settings(endpoint: &str, protocol: Protocol) -> Settings {
    let mut settings = Settings::new("shop");
    let path = if protocol == Protocol::Grpc { "" } else { "/v1/traces" };
    settings.endpoint = Some(format!("{endpoint}{path}"));
    settings.protocol = protocol;
    settings.delay = Duration::from_millis(20);
    settings.timeout = Duration::from_secs(20);
    settings
}

/// A pipeline, and a subscriber with its layer.
struct Traced {
    pipeline: Pipeline,
    dispatch: Dispatch,
}

impl Traced {
    fn start(settings: &Settings) -> Self {
        let pipeline = Pipeline::start(settings).unwrap();
        let dispatch = Dispatch::new(tracing_subscriber::registry().with(pipeline.layer()));
        Self { pipeline, dispatch }
    }

    /// Runs `work` with the subscriber.
    fn trace<T>(&self, work: impl FnOnce() -> T) -> T {
        tracing::dispatcher::with_default(&self.dispatch, work)
    }

    /// Begins and ends `count` spans.
    fn spans(&self, count: usize) {
        self.trace(|| (0..count).for_each(|_| drop(tracing::info_span!("work"))));
    }

    /// Returns the counts, which are consistent.
    fn totals(&self) -> SpanTotals {
        totals(&self.pipeline)
    }

    async fn until(&self, what: &str, holds: impl Fn(SpanTotals) -> bool) {
        let begun = Instant::now();
        while !holds(self.totals()) {
            assert!(begun.elapsed() < TEST_TIMEOUT, "still waiting for: {what}; {:?}", self.totals());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Shuts the pipeline down, and returns the final counts.
    async fn end(self, within: Duration) -> SpanTotals {
        let accounts = Arc::clone(&self.pipeline.accounts()[0]);
        self.pipeline.shutdown(within).await;
        let totals = accounts.totals();
        assert_consistent(totals);
        assert_eq!(totals.queued, 0, "{totals:?}");
        totals
    }
}

fn totals(pipeline: &Pipeline) -> SpanTotals {
    let totals = pipeline.accounts()[0].totals();
    assert_consistent(totals);
    totals
}

#[track_caller]
fn assert_consistent(totals: SpanTotals) {
    let SpanTotals { ended, queued, exported, dropped, failed } = totals;
    assert_eq!(ended, queued + exported + dropped + failed, "{totals:?}");
}
