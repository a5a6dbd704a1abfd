//! Reads an exposition, and holds it to what must be true of every scrape.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// One scrape's samples, by name and labels as they stand there.
#[derive(Debug)]
pub(crate) struct Scrape(BTreeMap<String, f64>);

/// The answer to a request for `path`: status and body.
pub(crate) fn get(address: SocketAddr, path: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok((status, body.to_owned()))
}

impl Scrape {
    pub(crate) fn of(address: SocketAddr) -> std::io::Result<Self> {
        get(address, "/metrics").map(|(_, body)| Self::parse(&body))
    }

    pub(crate) fn parse(text: &str) -> Self {
        let samples = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            Some((series.to_owned(), value.parse().ok()?))
        });
        Self(samples.collect())
    }

    /// The sum of a metric's samples whose labels contain all of `labels`, each written as `name="value"`.
    pub(crate) fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        self.series(name, labels).map(|(_, value)| value).sum()
    }

    pub(crate) fn series<'a>(&'a self, name: &'a str, labels: &'a [&str]) -> impl Iterator<Item = (&'a str, f64)> {
        self.0
            .iter()
            .filter(move |(series, _)| series.split('{').next() == Some(name))
            .filter(move |(series, _)| labels.iter().all(|label| series.contains(label)))
            .map(|(series, value)| (series.as_str(), *value))
    }

    /// Every operation that began a checkout.
    pub(crate) fn operations(&self) -> Vec<String> {
        let started = self.series("poolscope_checkouts_started_total", &[]);
        started
            .filter_map(|(series, _)| Some(series.split("operation=\"").nth(1)?.split('"').next()?.to_owned()))
            .collect()
    }

    /// What must be true of every scrape of a pool.
    pub(crate) fn assert_adds_up(&self, pool: &str) {
        let label = format!("db_client_connection_pool_name=\"{pool}\"");
        let of = |name| self.sum(name, &[&label]);
        let (started, ended) = (of("poolscope_checkouts_started_total"), of("poolscope_checkouts_total"));
        let in_flight = of("poolscope_checkouts_in_flight");
        assert_eq!(started, ended + in_flight, "started = outcomes + in flight: {self:?}");
        let live = of("db_client_connection_count") + of("poolscope_connections_creating");
        assert!(live <= of("db_client_connection_max"), "live is at most the maximum: {self:?}");
        let (created, closed) = (of("poolscope_connections_created_total"), of("poolscope_connections_closed_total"));
        assert_eq!(created, closed + live, "created = closed + live: {self:?}");
        assert_eq!(of("db_client_connection_wait_time_seconds_count"), ended, "each checkout that ended was timed");
    }
}
