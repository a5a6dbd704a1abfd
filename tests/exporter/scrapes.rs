//! The limit on scrapes, and their failures.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use prometheus::core::Desc;
use prometheus::proto::MetricFamily;
use prometheus::{IntGauge, Registry};

use super::harness::{Client, FrozenClock, Gate, Response, Running, assert_timed_out, exporter, in_time, scripted};

/// The exporter's limit of concurrent scrapes.
const MAX_SCRAPES: usize = 4;

/// The exporter's timeout for a scrape that waits for others.
const SCRAPE_QUEUE_TIMEOUT: Duration = Duration::from_secs(1);

/// The samples of `poolscope_scrapes_total`: served, failed, unavailable, abandoned.
fn counts(response: &Response) -> [f64; 4] {
    ["200", "500", "503", "499"].map(|code| {
        let series = format!("poolscope_scrapes_total{{code=\"{code}\"}}");
        response.sample(&series).unwrap()
    })
}

#[tokio::test]
async fn scrape_is_counted_when_it_ends() {
    let running = Running::start(&exporter()).await;
    let first = running.get("/metrics").await;
    assert_eq!(counts(&first), [0.0; 4]);
    let second = running.get("/metrics").await;
    assert_eq!(counts(&second), [1.0, 0.0, 0.0, 0.0]);
    let duration = second.sample("poolscope_scrape_duration_seconds_count");
    assert_eq!(duration, Some(1.0));
}

#[tokio::test(flavor = "current_thread")]
async fn slow_collector_does_not_block_the_runtime() {
    let (registry, mut gate) = Gate::new();
    let running = Running::start(&exporter().registry(registry)).await;
    let mut scraper = running.connect().await;
    scraper.send_request("GET", "/metrics").await;
    gate.entered().await;

    // The runtime's only thread serves this while the collector blocks another.
    assert_eq!(running.get("/-/healthy").await.status, 200);

    gate.release_one();
    assert_eq!(scraper.response(true).await.status, 200);
}

#[tokio::test]
async fn panicking_collector_fails_one_scrape() {
    let panics = AtomicBool::new(true);
    let registry = scripted(move || assert!(!panics.swap(false, Ordering::Relaxed), "a secret"));
    let running = Running::start(&exporter().registry(registry)).await;

    let mut client = running.connect().await;
    let failed = client.request("GET", "/metrics").await;
    assert_eq!(failed.status, 500);
    assert!(failed.body.starts_with("A collector panicked"));
    assert!(!failed.body.contains("a secret"));

    let served = client.request("GET", "/metrics").await;
    assert_eq!(served.status, 200);
    assert_eq!(counts(&served), [0.0, 1.0, 0.0, 0.0]);
}

#[tokio::test]
async fn encoding_error_is_shown() {
    struct Nameless(IntGauge);

    impl prometheus::core::Collector for Nameless {
        fn desc(&self) -> Vec<&Desc> {
            self.0.desc()
        }

        fn collect(&self) -> Vec<MetricFamily> {
            let mut families = self.0.collect();
            families[0].set_name(String::new());
            families[0].set_help("x".repeat(10_000));
            families
        }
    }

    let registry = Registry::new();
    let gauge = IntGauge::new("nameless", "Has no name.").unwrap();
    registry.register(Box::new(Nameless(gauge))).unwrap();
    let running = Running::start(&exporter().registry(registry)).await;

    let response = running.get("/metrics").await;
    assert_eq!(response.status, 500);
    assert!(response.body.starts_with("The metrics could not be encoded: metric family without a name: xxx"));
    assert!(response.body.len() < 300, "only its start is shown");
}

/// Blocks as many scrapes as may run at once.
async fn blocked_scrapes(running: &Running, gate: &mut Gate) -> Vec<Client> {
    let mut scrapers = Vec::new();
    for _ in 0..MAX_SCRAPES {
        let scraper = running.connect().await;
        scraper.send_request("GET", "/metrics").await;
        gate.entered().await;
        scrapers.push(scraper);
    }
    scrapers
}

#[tokio::test]
async fn scrapes_over_the_limit_are_rejected() {
    let clock = FrozenClock::new();
    let (registry, mut gate) = Gate::new();
    let running = Running::start(&exporter().registry(registry)).await;
    let mut scrapers = blocked_scrapes(&running, &mut gate).await;

    let (refused, elapsed) = clock.advance_until(running.get("/metrics")).await;
    assert_timed_out(elapsed, SCRAPE_QUEUE_TIMEOUT);
    assert_eq!(refused.status, 503);
    assert_eq!(refused.headers["retry-after"], "5");
    assert!(refused.body.starts_with("Too many concurrent scrapes: 4 are running, and none finished within 1s."));

    gate.open();
    for scraper in &mut scrapers {
        assert_eq!(scraper.response(true).await.status, 200);
    }
    let after = running.get("/metrics").await;
    assert_eq!(counts(&after), [4.0, 0.0, 1.0, 0.0]);
}

/// A scrape whose client has gone counts against the limit until its collectors have returned.
#[tokio::test]
async fn abandoned_scrape_counts_against_the_limit() {
    let clock = FrozenClock::new();
    let (registry, mut gate) = Gate::new();
    let running = Running::start(&exporter().registry(registry)).await;
    let mut scrapers = blocked_scrapes(&running, &mut gate).await;
    drop(scrapers.pop());

    let (refused, _) = clock.advance_until(running.get("/metrics")).await;
    assert_eq!(refused.status, 503);

    gate.open();
    // The server detects the closed connection when it next polls it.
    let abandoned = async {
        loop {
            let response = running.get("/metrics").await;
            if response.status == 200 && counts(&response)[3] > 0.0 {
                return counts(&response)[3];
            }
        }
    };
    assert_eq!(in_time(abandoned).await, 1.0);
}
