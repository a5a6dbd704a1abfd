//! A page that moves: what an exporter's page would be at some later time, for each of many instances.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// How long a gauge takes from one reading to the other and back.
const SWING: f64 = 120.0;

/// A line of the page.
#[derive(Debug)]
enum Line {
    /// As it is: what begins with `#`.
    Text(String),
    Sample {
        /// Name and labels.
        series: String,
        first: f64,
        second: f64,
        grows: bool,
        /// Whether it has been a whole number so far, and so is to stay one.
        whole: bool,
    },
}

/// Two readings of a page, and what follows from them.
#[derive(Debug)]
pub(crate) struct Model {
    lines: Vec<Line>,
    apart: f64,
}

impl Model {
    /// From two readings in the text format, so much apart.
    pub(crate) fn new(first: &str, second: &str, apart: Duration) -> Result<Self, String> {
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
            // What came between the two has grown from nothing.
            let first = before.get(series).copied().unwrap_or_default();
            let grows = grows(series, &kinds);
            if grows && second < first {
                return Err(format!("{series} fell from {first} to {second}: the exporter was started anew"));
            }
            let whole = first.fract() == 0.0 && second.fract() == 0.0;
            lines.push(Line::Sample { series: series.to_owned(), first, second, grows, whole });
        }
        let model = Self { lines, apart: apart.as_secs_f64() };
        if model.samples() == 0 { Err("there is no sample on the page".to_owned()) } else { Ok(model) }
    }

    /// How many samples a page has.
    pub(crate) fn samples(&self) -> usize {
        self.lines.iter().filter(|line| matches!(line, Line::Sample { .. })).count()
    }

    /// Writes the page that an instance has so long after the second reading.
    pub(crate) fn write(&self, instance: usize, after: Duration, page: &mut String) {
        // From half to one and a half times as busy as the one that was read.
        let factor = 0.5 + (instance * 37 % 101) as f64 / 100.0;
        let swing = (after.as_secs_f64() / SWING + factor).fract();
        let share = if swing < 0.5 { 2.0 * swing } else { 2.0 - 2.0 * swing };
        let times = after.as_secs_f64() / self.apart * factor;
        page.clear();
        for line in &self.lines {
            // Writing to a string does not fail.
            let _ = match line {
                Line::Text(text) => writeln!(page, "{text}"),
                Line::Sample { series, first, second, grows, whole } => {
                    let value =
                        if *grows { second + (second - first) * times } else { first + (second - first) * share };
                    // Of buckets, which hold each other, rounding keeps the order.
                    writeln!(page, "{series} {}", if *whole { value.floor() } else { value })
                }
            };
        }
    }
}

/// A sample's series and its value.
fn sample(line: &str) -> Option<(&str, f64)> {
    if line.starts_with('#') {
        return None;
    }
    let (series, value) = line.rsplit_once(' ')?;
    Some((series, value.parse().ok()?))
}

/// Whether a series belongs to a counter or a histogram.
fn grows(series: &str, kinds: &HashMap<String, String>) -> bool {
    let name = series.split('{').next().unwrap_or_default();
    let of = ["_bucket", "_count", "_sum"].iter().find_map(|suffix| name.strip_suffix(suffix));
    let kind = kinds.get(name).or_else(|| kinds.get(of?));
    kind.is_some_and(|kind| kind == "counter" || kind == "histogram")
}

/// Asks for a page twice.
pub(crate) async fn read_twice(url: &str, apart: Duration) -> io::Result<(String, String)> {
    let first = get(url).await?;
    tokio::time::sleep(apart).await;
    Ok((first, get(url).await?))
}

/// The body of what an address answers.
pub(crate) async fn get(url: &str) -> io::Result<String> {
    String::from_utf8(fetch(url, "").await?).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// The body of what an address answers to a request with these further headers.
pub(crate) async fn fetch(url: &str, headers: &str) -> io::Result<Vec<u8>> {
    let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("{url}: {what}"));
    let rest = url.strip_prefix("http://").ok_or_else(|| wrong("is not http://"))?;
    let (address, path) = rest.split_once('/').unwrap_or((rest, ""));
    let mut stream = TcpStream::connect(address).await?;
    // By HTTP/1.0 an answer comes in one piece.
    let request = format!("GET /{path} HTTP/1.0\r\nHost: {address}\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").ok_or_else(|| wrong("no answer"))?;
    let head = String::from_utf8_lossy(&answer[..end]);
    if head.split(' ').nth(1) != Some("200") {
        return Err(wrong(head.lines().next().unwrap_or_default()));
    }
    Ok(answer.split_off(end + 4))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = "# TYPE c counter\nc{a=\"b c\"} 10\n# TYPE g gauge\ng 4\n# TYPE h histogram\n\
                         h_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_sum 0.5\nh_count 2\n";
    const SECOND: &str = "# TYPE c counter\nc{a=\"b c\"} 30\n# TYPE g gauge\ng 8\n# TYPE h histogram\n\
                          h_bucket{le=\"1\"} 3\nh_bucket{le=\"+Inf\"} 5\nh_sum 1.25\nh_count 5\n";

    #[test]
    fn counters_grow_and_gauges_stay_between_their_readings() {
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
    fn an_exporter_that_was_started_anew_says_nothing_about_growth() {
        assert!(Model::new(SECOND, FIRST, Duration::from_secs(10)).is_err());
        assert!(Model::new("", "# nothing\n", Duration::from_secs(10)).is_err());
    }
}
