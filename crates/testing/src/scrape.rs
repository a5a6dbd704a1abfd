//! A parser of the text format, and the invariants of every scrape.

use std::collections::BTreeMap;

const POOL: &str = "db_client_connection_pool_name";

/// A series and its value.
#[derive(Clone, Debug)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

/// The samples of one scrape.
#[derive(Clone, Debug)]
pub struct Scrape(Vec<Sample>);

impl Scrape {
    /// Parses the text format.
    pub fn parse(text: &str) -> Self {
        Self(text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).map(sample).collect())
    }

    /// Returns the sum of the series with this name and at least these labels; zero if there are none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let has = |sample: &&Sample| {
            sample.name == name
                && labels.iter().all(|(label, value)| sample.labels.get(*label).is_some_and(|has| has == value))
        };
        self.0.iter().filter(has).map(|sample| sample.value).sum()
    }

    /// Returns the same sum as a whole number.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "asserted to be whole")]
    pub fn count(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let sum = self.sum(name, labels);
        assert!(sum >= 0.0 && sum.fract() == 0.0, "{name}{labels:?} = {sum}");
        sum as u64
    }

    /// Returns the names of all samples.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|sample| &*sample.name)
    }

    /// Returns the distinct values of a label.
    pub fn values(&self, name: &str, label: &str) -> Vec<&str> {
        let named = self.0.iter().filter(|sample| sample.name == name);
        let mut values: Vec<_> = named.filter_map(|sample| sample.labels.get(label)).map(String::as_str).collect();
        values.sort_unstable();
        values.dedup();
        values
    }

    /// Asserts the invariants of a pool.
    pub fn assert_adds_up(&self, pool: &str) {
        let count = |name: &str, labels: &[(&str, &str)]| {
            let labels: Vec<_> = [(POOL, pool)].iter().chain(labels).copied().collect();
            self.count(name, &labels)
        };
        let started = count("poolscope_checkouts_started_total", &[]);
        let ended = count("poolscope_checkouts_total", &[]);
        let in_flight = count("poolscope_checkouts_in_flight", &[]);
        assert_eq!(started, ended + in_flight, "checkouts started = ended + in flight");
        assert_eq!(
            count("db_client_connection_wait_time_seconds_count", &[]),
            ended,
            "every ended checkout has a wait time"
        );
        assert_eq!(
            count("db_client_connection_timeouts_total", &[]),
            count("poolscope_checkouts_total", &[("outcome", "timeout")])
        );
        let queued = count("db_client_connection_pending_requests", &[]);
        assert!(queued <= in_flight, "{queued} of {in_flight} in flight are queued");
        let mut in_flight_by_operation = 0;
        for operation in self.values("poolscope_checkouts_started_total", "operation") {
            let of = |name: &str| count(name, &[("operation", operation)]);
            let (started, ended) = (of("poolscope_checkouts_started_total"), of("poolscope_checkouts_total"));
            assert!(started >= ended, "{operation}: {started} started, {ended} ended");
            in_flight_by_operation += started - ended;
        }
        assert_eq!(in_flight_by_operation, in_flight, "in flight is the sum over operations");

        let creating = count("poolscope_connections_creating", &[]);
        let closing = count("poolscope_connections_closing", &[]);
        let live = count("db_client_connection_count", &[]) + creating + closing;
        let created = count("poolscope_connections_created_total", &[]);
        let closed = |reason: &str| count("poolscope_connections_closed_total", &[("reason", reason)]);
        let max = count("db_client_connection_max", &[]);
        assert_eq!(live + count("poolscope_connections_closed_total", &[]), created, "live + closed = created");
        assert!(live <= max, "{live} connections of {max}");
        assert_eq!(
            count("db_client_connection_create_time_seconds_count", &[]),
            created - creating - closed("connect_failed") - closed("connect_abandoned"),
            "every established connection has a create time"
        );
        for cache in self.values("poolscope_cache_lookups_started_total", "cache") {
            let of = |name: &str| count(name, &[("cache", cache)]);
            let (started, ended) = (of("poolscope_cache_lookups_started_total"), of("poolscope_cache_lookups_total"));
            assert!(started >= ended, "{cache}: {started} lookups started, {ended} answered");
        }
        self.assert_histograms();
    }

    /// Asserts that buckets are cumulative and that the last one equals the count.
    fn assert_histograms(&self) {
        let mut before: Option<&Sample> = None;
        for sample in self.0.iter().filter(|sample| sample.name.ends_with("_bucket")) {
            let others = |sample: &Sample| {
                let mut labels = sample.labels.clone();
                let bound = labels.remove("le");
                (labels, bound)
            };
            let (labels, bound) = others(sample);
            if let Some(before) = before.filter(|before| before.name == sample.name && others(before).0 == labels) {
                assert!(before.value <= sample.value, "{before:?} exceeds {sample:?}");
            }
            if bound.as_deref() == Some("+Inf") {
                let count = sample.name.replace("_bucket", "_count");
                let labels: Vec<_> = labels.iter().map(|(label, value)| (label.as_str(), value.as_str())).collect();
                assert_eq!(self.sum(&count, &labels), sample.value, "{sample:?}");
            }
            before = Some(sample);
        }
    }

    /// Returns the series that never decrease.
    fn counters(&self) -> impl Iterator<Item = &Sample> {
        let suffixes = ["_total", "_bucket", "_sum", "_seconds_count"];
        self.0.iter().filter(move |sample| suffixes.iter().any(|suffix| sample.name.ends_with(suffix)))
    }
}

/// Checks over consecutive scrapes that no counter decreases or vanishes.
#[derive(Debug, Default)]
pub struct MonotonicCheck {
    reached: BTreeMap<(String, BTreeMap<String, String>), f64>,
    scrapes: usize,
}

impl MonotonicCheck {
    /// Compares a scrape with the previous one.
    pub fn observe(&mut self, scrape: &Scrape) {
        let mut now = BTreeMap::new();
        for sample in scrape.counters() {
            now.insert((sample.name.clone(), sample.labels.clone()), sample.value);
        }
        for (series, before) in &self.reached {
            let value = now.get(series);
            assert!(value.is_some_and(|value| value >= before), "{series:?} decreased from {before} to {value:?}");
        }
        self.reached = now;
        self.scrapes += 1;
    }

    /// Returns the number of scrapes compared.
    pub fn scrapes(&self) -> usize {
        self.scrapes
    }
}

fn sample(line: &str) -> Sample {
    let (series, value) = line.rsplit_once(' ').expect(line);
    let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
    let mut rest = labels.strip_suffix('}').expect(line);
    let mut labels = BTreeMap::new();
    while let Some((label, quoted)) = rest.split_once("=\"") {
        let (value, after) = unquote(quoted).expect(line);
        labels.insert(label.to_owned(), value);
        rest = after.trim_start_matches(',');
    }
    Sample { name: name.to_owned(), labels, value: value.parse().expect(line) }
}

/// Returns the value of a label that ends at the next quotation mark, and what follows that.
fn unquote(quoted: &str) -> Option<(String, &str)> {
    let (mut value, mut characters) = (String::new(), quoted.chars());
    loop {
        match characters.next()? {
            '"' => return Some((value, characters.as_str())),
            '\\' => match characters.next()? {
                'n' => value.push('\n'),
                escaped => value.push(escaped),
            },
            character => value.push(character),
        }
    }
}

#[test]
fn label_values_are_unescaped() {
    let Sample { name, labels, value } = sample(r#"total{a="DROP \"x\"}",b="\\\n",c=""} 2.5"#);
    let labels: Vec<_> = labels.iter().map(|(label, value)| (label.as_str(), value.as_str())).collect();
    assert_eq!((&*name, value), ("total", 2.5));
    assert_eq!(labels, [("a", "DROP \"x\"}"), ("b", "\\\n"), ("c", "")]);
}
