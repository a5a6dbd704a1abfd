use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

/// The samples of `poolscope_scrapes_total`: served, failed, unavailable, abandoned.
fn counts(answer: &Answer) -> [f64; 4] {
    ["200", "500", "503", "499"].map(|code| {
        let series = format!("poolscope_scrapes_total{{code=\"{code}\"}}");
        answer.sample(&series).unwrap()
    })
}

#[tokio::test]
async fn a_scrape_counts_once_it_has_ended() {
    let running = Running::start(&Exporter::new(Registry::new())).await;
    let first = running.get("/metrics").await;
    assert_eq!(counts(&first), [0.0; 4]);
    let second = running.get("/metrics").await;
    assert_eq!(counts(&second), [1.0, 0.0, 0.0, 0.0]);
    let duration = second.sample("poolscope_scrape_duration_seconds_count");
    assert_eq!(duration, Some(1.0));
}

#[tokio::test(flavor = "current_thread")]
async fn a_slow_collector_does_not_block_the_runtime() {
    let (registry, mut gate) = Gate::new();
    let running = Running::start(&Exporter::new(registry)).await;
    let mut scraper = running.connect().await;
    scraper.ask("GET", "/metrics").await;
    gate.entered().await;

    // The runtime's only thread answers this, while the collector blocks another.
    assert_eq!(running.get("/-/healthy").await.status, 200);

    gate.release_one();
    assert_eq!(scraper.answer(true).await.status, 200);
}

#[tokio::test]
async fn a_panicking_collector_costs_one_scrape() {
    let panics = AtomicBool::new(true);
    let registry = scripted(move || assert!(!panics.swap(false, Ordering::Relaxed), "a secret"));
    let running = Running::start(&Exporter::new(registry)).await;

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
async fn metrics_that_cannot_be_written_are_named() {
    struct Nameless(IntGauge);

    impl Collector for Nameless {
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
    let running = Running::start(&Exporter::new(registry)).await;

    let answer = running.get("/metrics").await;
    assert_eq!(answer.status, 500);
    assert!(answer.body.starts_with("The metrics cannot be written: metrics without a name: xxx"));
    assert!(answer.body.len() < 300, "only the start of it is quoted");
}

#[tokio::test]
async fn scrapes_that_find_no_turn_are_told_to_come_back() {
    let (registry, mut gate) = Gate::new();
    let mut exporter = Exporter::new(registry);
    exporter.limits.scrapes = 2;
    exporter.limits.turn_wait = SHORT;
    let running = Running::start(&exporter).await;
    let mut scrapers = [running.connect().await, running.connect().await];
    for scraper in &scrapers {
        scraper.ask("GET", "/metrics").await;
        gate.entered().await;
    }

    let refused = running.get("/metrics").await;
    assert_eq!(refused.status, 503);
    assert_eq!(refused.headers["retry-after"], "5");
    assert!(refused.body.starts_with("Too many scrapes are under way: 2 are gathering, and none ended within 50ms."));

    gate.open();
    for scraper in &mut scrapers {
        assert_eq!(scraper.answer(true).await.status, 200);
    }
    let after = running.get("/metrics").await;
    assert_eq!(counts(&after), [2.0, 0.0, 1.0, 0.0]);
}

#[tokio::test]
async fn a_scrape_whose_client_left_keeps_its_turn_and_counts_as_abandoned() {
    let (registry, mut gate) = Gate::new();
    let mut exporter = Exporter::new(registry);
    exporter.limits.scrapes = 1;
    exporter.limits.turn_wait = SHORT;
    let running = Running::start(&exporter).await;
    let scraper = running.connect().await;
    scraper.ask("GET", "/metrics").await;
    gate.entered().await;
    drop(scraper);

    assert_eq!(running.get("/metrics").await.status, 503);

    gate.open();
    // The server learns of the departure when it next looks at that connection.
    let abandoned = async {
        loop {
            let answer = running.get("/metrics").await;
            if answer.status == 200 && counts(&answer)[3] > 0.0 {
                return counts(&answer)[3];
            }
        }
    };
    assert_eq!(patiently(abandoned).await, 1.0);
}
