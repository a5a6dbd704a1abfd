//! `poolscope rules`: prints rules for Prometheus.

use std::io::{self, Write as _};
use std::time::Duration;

use crate::monitoring::rules::{self, Links};
use crate::monitoring::{Thresholds, ThresholdsError};
use clap::Args;
use http::Uri;
use thiserror::Error;

#[derive(Debug, Args)]
pub(super) struct RulesArgs {
    /// Link alerts to this copy of the runbooks, such as https://wiki.example/runbooks; the alert's name is appended
    ///
    /// By default, alerts link to the runbooks that the instance's exporter serves.
    #[arg(long, value_name = "URL", value_parser = base_url)]
    runbooks_url: Option<String>,

    /// Link alerts to the dashboards of this Grafana; the default is http://localhost:3000
    #[arg(long, value_name = "URL", value_parser = base_url)]
    grafana_url: Option<String>,

    /// Shorten the rules for a demonstration, for a Prometheus that scrapes and evaluates this often, from 100ms to 15s
    ///
    /// Every range and every `for` is shortened in proportion to a scrape interval of 15s. With 1s, critical alerts fire
    /// after 8 seconds and warnings after 40. Names of recorded series still contain 5m. Not for production.
    #[arg(long, value_name = "TIME", value_parser = pace)]
    pace: Option<Duration>,
}

/// Why the rules cannot be printed.
#[derive(Debug, Error)]
pub(super) enum RulesError {
    /// The thresholds in the binary are invalid.
    #[error("invalid thresholds")]
    Thresholds(#[from] ThresholdsError),
    /// Standard output is closed.
    #[error("cannot write the rules")]
    Output(#[from] io::Error),
}

/// Prints the rules.
pub(super) fn print(args: RulesArgs) -> Result<(), RulesError> {
    let links = Links { runbooks: args.runbooks_url, grafana: args.grafana_url };
    let committed = Thresholds::committed()?;
    let thresholds = match args.pace {
        Some(pace) => committed.paced(pace),
        None => committed,
    };
    let rules = rules::all(&thresholds, &links);
    let mut output = io::stdout().lock();
    match output.write_all(rules.as_bytes()).and_then(|()| output.flush()) {
        // The reader, such as `head`, may close the pipe early.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Parses the scrape interval. Prometheus does not scrape faster, and the rules are not slower.
fn pace(text: &str) -> Result<Duration, &'static str> {
    const RANGE: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(15);
    let pace = humantime::parse_duration(text).ok().filter(|pace| RANGE.contains(pace));
    pace.ok_or("give a duration with its unit, from 100ms to 15s")
}

/// Parses the base URL of links. It must not contain a password, because notifications contain it, nor anything that
/// Prometheus' templates interpret.
fn base_url(text: &str) -> Result<String, &'static str> {
    const REMEDY: &str = "give http://host or https://host, optionally with a port and a path";
    let uri: Uri = text.parse().map_err(|_| REMEDY)?;
    let scheme = matches!(uri.scheme_str(), Some("http" | "https"));
    let authority = uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
    if scheme && authority && uri.query().is_none() && !text.contains(['{', '}', '#', '\'']) {
        Ok(text.to_owned())
    } else {
        Err(REMEDY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pace_is_bounded() {
        assert_eq!(pace("1s"), Ok(Duration::from_secs(1)));
        assert_eq!(pace("15s"), Ok(Duration::from_secs(15)));
        for bad in ["", "1", "0s", "10ms", "16s", "-1s"] {
            assert!(pace(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn base_url_has_no_secret_and_no_template() {
        for good in
            ["http://localhost:3000", "https://grafana.example/g", "https://wiki.example/a/b/", "http://[::1]:80"]
        {
            assert_eq!(base_url(good).as_deref(), Ok(good));
        }
        for bad in [
            "",
            "grafana",
            "grafana:3000",
            "/runbooks",
            "ftp://host",
            "http://",
            "http://me:secret@host",
            "http://host?a=b",
            "http://host/#a",
            "http://host/{{ $labels.job }}",
            "http://host/it's",
            "http://a b",
        ] {
            assert!(base_url(bad).is_err(), "{bad}");
        }
    }
}
