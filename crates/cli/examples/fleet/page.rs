//! A model of changing metrics, for many instances.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The period of gauges, in seconds: from the first value to the second and back.
const GAUGE_PERIOD_SECONDS: f64 = 120.0;

/// A line of the metrics.
#[derive(Debug)]
enum Line {
    /// A comment, which is copied.
    Text(String),
    Sample {
        /// Name and labels.
        series: String,
        first: f64,
        second: f64,
        grows: bool,
        /// Whether both values are whole numbers, so that all others are rounded.
        whole: bool,
    },
}

/// Two scrapes of an exporter.
#[derive(Debug)]
pub(crate) struct Model {
    lines: Vec<Line>,
    scrape_gap_seconds: f64,
}

impl Model {
    /// Creates a model from two scrapes in the text format.
    ///
    /// # Errors
    ///
    /// Returns an error if a counter decreases, or if there is no sample.
    pub(crate) fn new(first: &str, second: &str, scrape_gap: Duration) -> Result<Self, String> {
        let before: HashMap<_, _> = first.lines().filter_map(sample).collect();
        let mut kinds = HashMap::new();
        let mut lines = Vec::new();
        for line in second.lines() {
            if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
                kinds.insert(name.to_owned(), kind.to_owned());
            }
            let Some((series, second)) = sample(line) else {
                lines.push(Line::Text(line.to_owned()));
                continue;
            };
            // A new series starts at zero.
            let first = before.get(series).copied().unwrap_or_default();
            let grows = grows(series, &kinds);
            if grows && second < first {
                return Err(format!("{series} decreased from {first} to {second}: the exporter was restarted"));
            }
            let whole = first.fract() == 0.0 && second.fract() == 0.0;
            lines.push(Line::Sample { series: series.to_owned(), first, second, grows, whole });
        }
        let model = Self { lines, scrape_gap_seconds: scrape_gap.as_secs_f64() };
        if model.samples() == 0 { Err("the exporter returned no sample".to_owned()) } else { Ok(model) }
    }

    /// Returns the number of samples.
    pub(crate) fn samples(&self) -> usize {
        self.lines.iter().filter(|line| matches!(line, Line::Sample { .. })).count()
    }

    /// Writes the metrics of an instance at a time after the second scrape.
    pub(crate) fn write(&self, instance: usize, after: Duration, page: &mut String) {
        // From 0.5 to 1.5 times the load of the real exporter.
        let factor = 0.5 + (instance * 37 % 101) as f64 / 100.0;
        let phase = (after.as_secs_f64() / GAUGE_PERIOD_SECONDS + factor).fract();
        let share = if phase < 0.5 { 2.0 * phase } else { 2.0 - 2.0 * phase };
        let times = after.as_secs_f64() / self.scrape_gap_seconds * factor;
        page.clear();
        for line in &self.lines {
            // Writing to a string does not fail.
            let _ = match line {
                Line::Text(text) => writeln!(page, "{text}"),
                Line::Sample { series, first, second, grows, whole } => {
                    let value =
                        if *grows { second + (second - first) * times } else { first + (second - first) * share };
                    // Rounding down keeps the order of cumulative buckets.
                    writeln!(page, "{series} {}", if *whole { value.floor() } else { value })
                }
            };
        }
    }
}

/// Returns the series and the value of a sample.
fn sample(line: &str) -> Option<(&str, f64)> {
    if line.starts_with('#') {
        return None;
    }
    let (series, value) = line.rsplit_once(' ')?;
    Some((series, value.parse().ok()?))
}

/// Returns whether a series belongs to a counter or a histogram.
fn grows(series: &str, kinds: &HashMap<String, String>) -> bool {
    let name = series.split('{').next().unwrap_or_default();
    let base_name = ["_bucket", "_count", "_sum"].iter().find_map(|suffix| name.strip_suffix(suffix));
    let kind = kinds.get(name).or_else(|| kinds.get(base_name?));
    kind.is_some_and(|kind| kind == "counter" || kind == "histogram")
}

/// Scrapes an exporter twice.
pub(crate) async fn scrape_twice(url: &str, scrape_gap: Duration) -> io::Result<(String, String)> {
    let first = get(url).await?;
    tokio::time::sleep(scrape_gap).await;
    Ok((first, get(url).await?))
}

/// Returns the body of a response as text.
pub(crate) async fn get(url: &str) -> io::Result<String> {
    String::from_utf8(fetch(url, "").await?).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Returns the body of the response to a request with additional headers.
pub(crate) async fn fetch(url: &str, headers: &str) -> io::Result<Vec<u8>> {
    let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("{url}: {what}"));
    let rest = url.strip_prefix("http://").ok_or_else(|| invalid("expected an http:// URL"))?;
    let (address, path) = rest.split_once('/').unwrap_or((rest, ""));
    let mut stream = TcpStream::connect(address).await?;
    // HTTP/1.0 responses are not chunked.
    let request = format!("GET /{path} HTTP/1.0\r\nHost: {address}\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut response = Vec::new();
    stream.read_to_end(&mut response).await?;
    let end = response.windows(4).position(|four| four == b"\r\n\r\n").ok_or_else(|| invalid("invalid response"))?;
    let head = String::from_utf8_lossy(&response[..end]);
    if head.split(' ').nth(1) != Some("200") {
        return Err(invalid(head.lines().next().unwrap_or_default()));
    }
    Ok(response.split_off(end + 4))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = "# TYPE c counter\nc{a=\"b c\"} 10\n# TYPE g gauge\ng 4\n# TYPE h histogram\n\
                         h_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_sum 0.5\nh_count 2\n";
    const SECOND: &str = "# TYPE c counter\nc{a=\"b c\"} 30\n# TYPE g gauge\ng 8\n# TYPE h histogram\n\
                          h_bucket{le=\"1\"} 3\nh_bucket{le=\"+Inf\"} 5\nh_sum 1.25\nh_count 5\n";

    #[test]
    fn counters_grow_and_gauges_stay_in_range() {
        let model = Model::new(FIRST, SECOND, Duration::from_secs(10)).expect("a model");
        assert_eq!(model.samples(), 6);
        let mut before: Vec<f64> = Vec::new();
        for seconds in 0..300 {
            let mut page = String::new();
            model.write(3, Duration::from_secs(seconds), &mut page);
            let values: Vec<_> = page.lines().filter_map(sample).map(|(_, value)| value).collect();
            let [counter, gauge, low, all, sum, count] = values[..] else { panic!("{page}") };
            assert!((4.0..=8.0).contains(&gauge) && low <= all && all == count && sum > 0.0, "{page}");
            for at in [0, 2, 3, 4, 5] {
                assert!(before.get(at).is_none_or(|before| *before <= values[at]), "{page}");
            }
            assert!(counter >= 30.0);
            before = values;
        }
    }

    #[test]
    fn restarted_exporter_is_an_error() {
        assert!(Model::new(SECOND, FIRST, Duration::from_secs(10)).is_err());
        assert!(Model::new("", "# nothing\n", Duration::from_secs(10)).is_err());
    }
}
