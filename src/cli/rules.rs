//! `poolscope rules`: the rules for Prometheus.

use std::io::{self, Write as _};

use clap::Args;
use http::Uri;
use poolscope::monitoring::rules::{self, Links};
use poolscope::monitoring::{Thresholds, ThresholdsError};
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
    let rules = rules::all(&Thresholds::committed()?, &links);
    let mut output = io::stdout().lock();
    match output.write_all(rules.as_bytes()).and_then(|()| output.flush()) {
        // Who has read enough closes the pipe.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
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
