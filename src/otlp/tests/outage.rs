//! Collectors that are down, slow, or recover.

use super::*;

#[tokio::test]
async fn unreachable_collector_delays_nothing() {
    for protocol in PROTOCOLS {
        let closed = ReservedPort::new().unwrap();
        let mut settings = settings(&format!("http://{}", closed.address()), protocol);
        (settings.queue_size, settings.batch_size) = (64, 16);
        let traced = Traced::start(&settings);
        let begun = Instant::now();
        traced.spans(10_000);
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(5), "{took:?} for 10000 spans");
        traced.until("a failed batch", |totals| totals.failed > 0).await;
        let totals = traced.totals();
        assert!(totals.dropped > 9_000 && totals.queued <= 64 + 16, "{totals:?}");
        let begun = Instant::now();
        let totals = traced.end(Duration::from_millis(300)).await;
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        assert_eq!((totals.ended, totals.exported), (10_000, 0), "{totals:?}");
    }
}

#[tokio::test]
async fn recovered_collector_gets_later_spans() {
    for protocol in PROTOCOLS {
        let receiver = receiver(protocol);
        let traced = Traced::start(&settings(&receiver.endpoint(), protocol));
        traced.spans(1);
        traced.until("an exported span", |totals| totals.exported == 1).await;
        receiver.pause();
        traced.spans(2);
        traced.until("failed spans", |totals| totals.failed == 2).await;
        receiver.resume();
        traced.spans(3);
        traced.until("exported spans", |totals| totals.exported == 4).await;
        let totals = traced.end(TEST_TIMEOUT).await;
        assert_eq!(totals, SpanTotals { ended: 6, queued: 0, exported: 4, dropped: 0, failed: 2 });
        assert_eq!(receiver.spans().len(), 4);
    }
}

#[tokio::test]
async fn short_outage_loses_no_span() {
    for protocol in PROTOCOLS {
        let receiver = receiver(protocol);
        receiver.refuse();
        let traced = Traced::start(&settings(&receiver.endpoint(), protocol));
        traced.spans(2);
        while receiver.requests().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        receiver.accept();
        traced.until("spans exported by the second attempt", |totals| totals.exported == 2).await;
        assert!(receiver.requests().len() >= 2);
        traced.end(TEST_TIMEOUT).await;
    }
}

#[tokio::test]
async fn slow_collector_loses_the_batch() {
    for protocol in PROTOCOLS {
        let receiver = receiver(protocol);
        receiver.slow(TEST_TIMEOUT);
        let mut settings = settings(&receiver.endpoint(), protocol);
        settings.timeout = Duration::from_millis(200);
        let traced = Traced::start(&settings);
        traced.spans(4);
        traced.until("a batch that timed out", |totals| totals.failed == 4).await;
        receiver.accept();
        traced.spans(1);
        traced.until("an exported span", |totals| totals.exported > 0).await;
        traced.end(TEST_TIMEOUT).await;
    }
}

#[tokio::test]
async fn shutdown_exports_until_its_deadline() {
    for protocol in PROTOCOLS {
        let receiver = receiver(protocol);
        let mut settings = settings(&receiver.endpoint(), protocol);
        (settings.queue_size, settings.batch_size, settings.delay) = (2_000, 600, TEST_TIMEOUT * 2);
        let traced = Traced::start(&settings);
        traced.spans(500);
        assert_eq!(traced.totals().queued, 500);
        assert_eq!(traced.end(TEST_TIMEOUT).await.exported, 500);
        assert_eq!(receiver.spans().len(), 500);

        receiver.slow(TEST_TIMEOUT);
        let traced = Traced::start(&settings);
        traced.spans(1500);
        let begun = Instant::now();
        let totals = traced.end(Duration::from_millis(300)).await;
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        assert_eq!((totals.failed, totals.dropped), (600, 900), "{totals:?}");
    }
}

#[tokio::test]
async fn dropped_pipeline_counts_its_spans() {
    let receiver = Receiver::http();
    let mut settings = settings(&receiver.endpoint(), Protocol::HttpProtobuf);
    settings.delay = TEST_TIMEOUT;
    let traced = Traced::start(&settings);
    traced.spans(7);
    let accounts = Arc::clone(&traced.pipeline.accounts()[0]);
    drop(traced.pipeline);
    let begun = Instant::now();
    while accounts.totals().queued > 0 {
        assert!(begun.elapsed() < TEST_TIMEOUT, "{:?}", accounts.totals());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_consistent(accounts.totals());
}
