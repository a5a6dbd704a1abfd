//! A collector that is down, slow, or comes back.

use super::*;

#[tokio::test]
async fn a_collector_that_is_down_costs_spans_and_nothing_else() {
    for protocol in PROTOCOLS {
        let mut settings = settings(&unused_endpoint(), protocol);
        (settings.queue_size, settings.batch_size) = (64, 16);
        let traced = Traced::start(&settings);
        let begun = Instant::now();
        traced.spans(10_000);
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(5), "{took:?} for 10000 spans");
        traced.until("a batch that failed", |totals| totals.failed > 0).await;
        let totals = traced.totals();
        assert!(totals.dropped > 9_000 && totals.queued <= 64 + 16, "{totals:?}");
        let begun = Instant::now();
        let totals = traced.end(Duration::from_millis(300)).await;
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        assert_eq!((totals.ended, totals.exported), (10_000, 0), "{totals:?}");
    }
}

#[tokio::test]
async fn a_collector_that_comes_back_gets_what_ends_from_then_on() {
    for protocol in PROTOCOLS {
        let receiver = receiver(protocol);
        let traced = Traced::start(&settings(&receiver.endpoint(), protocol));
        traced.spans(1);
        traced.until("a span that arrived", |totals| totals.exported == 1).await;
        receiver.pause();
        traced.spans(2);
        traced.until("spans that were sent in vain", |totals| totals.failed == 2).await;
        receiver.resume();
        traced.spans(3);
        traced.until("spans that arrived later", |totals| totals.exported == 4).await;
        let totals = traced.end(PATIENCE).await;
        assert_eq!(totals, SpanTotals { ended: 6, queued: 0, exported: 4, dropped: 0, failed: 2 });
        assert_eq!(receiver.spans().len(), 4);
    }
}

#[tokio::test]
async fn a_short_outage_costs_no_span() {
    for protocol in PROTOCOLS {
        let receiver = receiver(protocol);
        receiver.refuse();
        let traced = Traced::start(&settings(&receiver.endpoint(), protocol));
        traced.spans(2);
        while receiver.requests().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        receiver.accept();
        traced.until("spans that arrived at the second attempt", |totals| totals.exported == 2).await;
        assert!(receiver.requests().len() >= 2);
        traced.end(PATIENCE).await;
    }
}

#[tokio::test]
async fn a_collector_that_is_too_slow_costs_the_batch_that_waited_for_it() {
    for protocol in PROTOCOLS {
        let receiver = receiver(protocol);
        receiver.slow(PATIENCE);
        let mut settings = settings(&receiver.endpoint(), protocol);
        settings.timeout = Duration::from_millis(200);
        let traced = Traced::start(&settings);
        traced.spans(4);
        traced.until("a batch that took too long", |totals| totals.failed == 4).await;
        receiver.accept();
        traced.spans(1);
        traced.until("a span that arrived", |totals| totals.exported > 0).await;
        traced.end(PATIENCE).await;
    }
}

#[tokio::test]
async fn a_shutdown_exports_what_waits_and_gives_up_at_its_deadline() {
    for protocol in PROTOCOLS {
        let receiver = receiver(protocol);
        let mut settings = settings(&receiver.endpoint(), protocol);
        (settings.queue_size, settings.batch_size, settings.delay) = (2_000, 600, PATIENCE * 2);
        let traced = Traced::start(&settings);
        traced.spans(500);
        assert_eq!(traced.totals().queued, 500);
        assert_eq!(traced.end(PATIENCE).await.exported, 500);
        assert_eq!(receiver.spans().len(), 500);

        receiver.slow(PATIENCE);
        let traced = Traced::start(&settings);
        traced.spans(1500);
        let begun = Instant::now();
        let totals = traced.end(Duration::from_millis(300)).await;
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        assert_eq!((totals.failed, totals.dropped), (600, 900), "{totals:?}");
    }
}

#[tokio::test]
async fn a_dropped_pipeline_gives_up_what_waits_and_counts_it() {
    let receiver = Receiver::http();
    let mut settings = settings(&receiver.endpoint(), Protocol::HttpProtobuf);
    settings.delay = PATIENCE;
    let traced = Traced::start(&settings);
    traced.spans(7);
    let accounts = Arc::clone(&traced.pipeline.accounts()[0]);
    drop(traced.pipeline);
    let begun = Instant::now();
    while accounts.totals().queued > 0 {
        assert!(begun.elapsed() < PATIENCE, "{:?}", accounts.totals());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_adds_up(accounts.totals());
}
