//! Scrapes as Prometheus makes them, in turn in both formats, compressed or not.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::net::SocketAddr;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use flate2::read::GzDecoder;
use poolscope::exporter::Format;
use poolscope_testing::http;
use poolscope_testing::scrape::Scrape;

use super::POOL;
use super::pages::{self, Series};

const ACCEPT_TEXT: &str = "Accept: text/plain;version=0.0.4\r\n";
const ACCEPT_OPEN_METRICS: &str = "Accept: application/openmetrics-text;version=1.0.0\r\n";
const ACCEPT_GZIP: &str = "Accept-Encoding: gzip\r\n";

/// The whole page of one scrape in so many is checked. Not a multiple of two or four, so that each format is.
const CHECK_EVERY: usize = 5;

/// What a page shows.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) took: Duration,
    /// Bytes, uncompressed.
    pub(crate) page_len: usize,
    pub(crate) alive_tasks: u64,
    pub(crate) handed_out: u64,
    pub(crate) ok: u64,
    pub(crate) returned: u64,
    pub(crate) used: u64,
    pub(crate) walked: u64,
    pub(crate) work: u64,
    pub(crate) wires_lost: u64,
    pub(crate) recoveries: usize,
    pub(crate) recovery: Duration,
    pub(crate) is_quiet: bool,
}

pub(crate) struct Scraper {
    address: SocketAddr,
    scrapes: usize,
    is_check_due: bool,
    /// Takes a page whenever it is not checking one: that takes longer than the scrape, above all without optimization.
    checker: SyncSender<(Format, String)>,
    thread: JoinHandle<PageCheck>,
}

impl Scraper {
    pub(crate) fn new(address: SocketAddr) -> Self {
        let (checker, pages) = sync_channel::<(Format, String)>(0);
        let thread = thread::spawn(move || {
            let mut check = PageCheck::default();
            pages.iter().for_each(|(format, page)| check.check(format, &page));
            check
        });
        Self { address, scrapes: 0, is_check_due: false, checker, thread }
    }

    /// Scrapes, and checks the page at times.
    pub(crate) fn scrape(&mut self) -> Seen {
        let (format, page, took) = self.get();
        let seen = Seen { took, ..seen(&page) };
        self.is_check_due |= self.scrapes.is_multiple_of(CHECK_EVERY);
        if self.is_check_due {
            match self.checker.try_send((format, page)) {
                Ok(()) => self.is_check_due = false,
                Err(TrySendError::Full(_)) => {}
                Err(TrySendError::Disconnected(_)) => panic!("a page was invalid"),
            }
        }
        seen
    }

    /// Scrapes and checks a page in each format. Returns what it shows, and how many pages were checked.
    pub(crate) fn finish(mut self) -> (Seen, usize) {
        let last = [self.get(), self.get()];
        drop(self.checker);
        let mut check = self.thread.join().expect("valid pages");
        last.iter().for_each(|(format, page, _)| check.check(*format, page));
        (seen(&last[0].1), check.pages)
    }

    fn get(&mut self) -> (Format, String, Duration) {
        self.scrapes += 1;
        let (format, accept) = match self.scrapes % 2 {
            0 => (Format::Text, ACCEPT_TEXT),
            _ => (Format::OpenMetrics, ACCEPT_OPEN_METRICS),
        };
        let encoding = if self.scrapes % 4 < 2 { ACCEPT_GZIP } else { "" };
        let asked = Instant::now();
        let (status, head, body) =
            http::get_with(self.address, "/metrics", &format!("{accept}{encoding}")).expect("a response");
        let took = asked.elapsed();
        assert_eq!(status, 200, "{head}");
        let is_compressed = head.to_lowercase().contains("content-encoding: gzip");
        assert_eq!(is_compressed, !encoding.is_empty(), "{head}");
        assert!(head.contains(format.content_type()), "{head}");
        let mut page = String::new();
        let mut compressed = GzDecoder::new(&*body);
        let mut plain = &*body;
        if is_compressed { compressed.read_to_string(&mut page) } else { plain.read_to_string(&mut page) }
            .expect("text");
        (format, page, took)
    }
}

/// Checks of whole pages.
#[derive(Default)]
struct PageCheck {
    pages: usize,
    /// The counters of the last page.
    reached: BTreeMap<Series, f64>,
}

impl PageCheck {
    /// Checks that the page is valid, that it adds up, and that no counter has decreased or vanished.
    fn check(&mut self, format: Format, page: &str) {
        let mut families = pages::read(format, page);
        families.retain(|family| family.kind == "counter" || family.kind == "histogram");
        let now = pages::samples(&families);
        for (series, before) in &self.reached {
            let value = now.get(series);
            assert!(value.is_some_and(|value| value >= before), "{series:?} decreased from {before} to {value:?}");
        }
        self.reached = now;
        if format == Format::Text {
            Scrape::parse(page).assert_adds_up(POOL);
        }
        self.pages += 1;
    }
}

/// Reads a few values without parsing the rest of the page.
fn seen(page: &str) -> Seen {
    let sum = |name: &str, part: &str| -> f64 {
        let lines = page.lines().filter_map(|line| line.strip_prefix(name)).filter(|rest| rest.starts_with(['{', ' ']));
        let values = lines.filter(|rest| rest.contains(part)).filter_map(|rest| rest.rsplit(' ').next());
        values.map(|value| value.parse::<f64>().expect("a number")).sum()
    };
    let count = |name: &str, part: &str| sum(name, part) as u64;
    Seen {
        took: Duration::ZERO,
        page_len: page.len(),
        alive_tasks: count("soak_alive_tasks", ""),
        handed_out: count("soak_handed_out_total", ""),
        ok: count("poolscope_checkouts_total", ",outcome=\"ok\""),
        returned: count("db_client_connection_use_time_seconds_count", ""),
        used: count("db_client_connection_count", "=\"used\""),
        walked: count("soak_walked_total", ""),
        work: count("soak_work_total", ""),
        wires_lost: count("poolscope_wires_lost_total", ""),
        recoveries: count("soak_recoveries", "") as usize,
        recovery: Duration::from_secs_f64(sum("soak_recovery_seconds", "")),
        is_quiet: count("soak_quiet", "") == 1,
    }
}
