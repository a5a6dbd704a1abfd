//! `poolscope rules`: prints rules for Prometheus.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::monitoring::rules::{self, Links, Runbooks};
use crate::monitoring::{ThresholdFileError, Thresholds, ThresholdsError};
use crate::output;
use clap::Args;
use http::Uri;
use poolscope::config::read_file;
use poolscope::text::Printable;
use thiserror::Error;

#[derive(Debug, Args)]
pub(super) struct RulesArgs {
    /// Replace thresholds of the alerts by those in this TOML file
    ///
    /// The file has tables as in alerts/thresholds.toml, of which only `value` is required: [waiters] and value = 5.
    /// docs/alerts.md lists the thresholds with their reasons.
    #[arg(long, value_name = "FILE")]
    thresholds: Option<PathBuf>,

    /// The server's max_connections, for alerts on servers that no process polls [default: 100]
    ///
    /// Where `poolscope serve` or `Pool::watch_server` polls the server, its own value is used.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    server_connections: Option<u32>,

    /// Link alerts to this copy of the runbooks, such as https://wiki.example/runbooks; the alert's name is appended
    ///
    /// By default, alerts link to the runbooks in the library's documentation on docs.rs. The word `exporter` links them to
    /// the exporter of the alert's instance, which a service that writes its own page does not have.
    #[arg(long, value_name = "URL", value_parser = runbooks)]
    runbooks_url: Option<Runbooks>,

    /// Link alerts to the dashboards of this Grafana; without it there are no such links
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
    Committed(#[from] ThresholdsError),
    /// The file of thresholds cannot be read.
    #[error("cannot read the thresholds {}", Printable(.0.display()))]
    Unreadable(PathBuf, #[source] io::Error),
    /// The file of thresholds is invalid.
    #[error("invalid thresholds {}", Printable(.0.display()))]
    Thresholds(PathBuf, #[source] ThresholdFileError),
    /// The number of connections contradicts other thresholds.
    #[error("--server-connections {0}: {1}")]
    ServerConnections(u32, String),
    /// Standard output failed.
    #[error("cannot write to standard output")]
    Output(#[from] io::Error),
}

impl RulesError {
    /// Returns whether a flag or its file is the cause.
    pub(super) const fn is_usage(&self) -> bool {
        match self {
            Self::Unreadable(..) | Self::Thresholds(..) | Self::ServerConnections(..) => true,
            Self::Committed(_) | Self::Output(_) => false,
        }
    }
}

/// Prints the rules.
pub(super) fn print(args: RulesArgs) -> Result<(), RulesError> {
    let links = Links { runbooks: args.runbooks_url.unwrap_or_default(), grafana: args.grafana_url };
    let mut thresholds = Thresholds::committed()?;
    if let Some(path) = args.thresholds {
        let file = read_file(&path).map_err(|error| RulesError::Unreadable(path.clone(), error))?;
        thresholds = thresholds.replaced_by(&file).map_err(|error| RulesError::Thresholds(path, error))?;
    }
    if let Some(number) = args.server_connections {
        thresholds = thresholds
            .with_server_connections(number)
            .map_err(|problem| RulesError::ServerConnections(number, problem))?;
    }
    if let Some(pace) = args.pace {
        thresholds = thresholds.paced(pace);
    }
    let rules = rules::all(&thresholds, &links);
    Ok(output::print(&rules)?)
}

/// Parses the scrape interval. Prometheus does not scrape faster, and the rules are not slower.
fn pace(text: &str) -> Result<Duration, &'static str> {
    const RANGE: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(15);
    let pace = humantime::parse_duration(text).ok().filter(|pace| RANGE.contains(pace));
    pace.ok_or("give a duration with its unit, from 100ms to 15s")
}

/// Parses where the runbooks are.
fn runbooks(text: &str) -> Result<Runbooks, &'static str> {
    if text == "exporter" { Ok(Runbooks::Exporter) } else { base_url(text).map(Runbooks::At) }
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
