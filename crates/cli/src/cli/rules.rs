//! `poolscope rules`: the rules for Prometheus.

use std::io::{self, Write as _};
use std::time::Duration;

use clap::Args;
use http::Uri;
use poolscope_cli::monitoring::rules::{self, Links};
use poolscope_cli::monitoring::{Thresholds, ThresholdsError};
use thiserror::Error;

#[derive(Debug, Args)]
pub(super) struct RulesArgs {
    /// Where your copy of the runbooks is, as https://wiki.example/runbooks; the alert's name is added
    ///
    /// Without it, notifications lead to the runbooks that the exporter of the instance serves.
    #[arg(long, value_name = "URL", value_parser = address)]
    runbooks_url: Option<String>,

    /// Where Grafana is, for links to its dashboards; without it http://localhost:3000
    #[arg(long, value_name = "URL", value_parser = address)]
    grafana_url: Option<String>,

    /// Let time pass faster, to see alerts fire: rules for a Prometheus that scrapes and evaluates this often, from 100ms
    /// to 15s
    ///
    /// Every range and every wait is shortened in proportion, the objectives' windows included; with 1s a page comes after
    /// 8 seconds and a ticket after 40. The names of recorded series stay, and speak of 5m. Not for production.
    #[arg(long, value_name = "TIME", value_parser = pace)]
    pace: Option<Duration>,
}

/// Why there are no rules.
#[derive(Debug, Error)]
pub(super) enum RulesError {
    /// What was built in cannot be read.
    #[error("the thresholds cannot be used")]
    Thresholds(#[from] ThresholdsError),
    /// Nothing takes them.
    #[error("the rules cannot be written")]
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
        // Who has read enough closes the pipe.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// How often Prometheus scrapes. More often it cannot, and less often is slower than the rules are.
fn pace(text: &str) -> Result<Duration, &'static str> {
    const RANGE: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(15);
    let pace = humantime::parse_duration(text).ok().filter(|pace| RANGE.contains(pace));
    pace.ok_or("give a time with its unit, from 100ms to 15s")
}

/// An address that links can begin with. What stands in one goes to whoever is notified, so it has no password; and it
/// has nothing that would mean something to Prometheus' templates.
fn address(text: &str) -> Result<String, &'static str> {
    const WOULD_DO: &str = "give http://host or https://host, with a port and a path if need be";
    let uri: Uri = text.parse().map_err(|_| WOULD_DO)?;
    let scheme = matches!(uri.scheme_str(), Some("http" | "https"));
    let authority = uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
    if scheme && authority && uri.query().is_none() && !text.contains(['{', '}', '#', '\'']) {
        Ok(text.to_owned())
    } else {
        Err(WOULD_DO)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_is_one_that_prometheus_can_keep() {
        assert_eq!(pace("1s"), Ok(Duration::from_secs(1)));
        assert_eq!(pace("15s"), Ok(Duration::from_secs(15)));
        for bad in ["", "1", "0s", "10ms", "16s", "-1s"] {
            assert!(pace(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_address_is_one_that_links_can_begin_with() {
        for good in
            ["http://localhost:3000", "https://grafana.example/g", "https://wiki.example/a/b/", "http://[::1]:80"]
        {
            assert_eq!(address(good).as_deref(), Ok(good));
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
            assert!(address(bad).is_err(), "{bad}");
        }
    }
}
