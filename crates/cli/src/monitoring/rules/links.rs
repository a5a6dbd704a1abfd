//! The base addresses of the links in notifications.

/// The Grafana of `deploy/compose`.
const COMPOSE_GRAFANA: &str = "http://localhost:3000";

/// The base addresses of links in notifications.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Links {
    /// Where the runbooks are.
    pub runbooks: Runbooks,
    /// Grafana's address; without one there are no links to dashboards.
    pub grafana: Option<String>,
}

/// Where the runbooks are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Runbooks {
    /// In the library's documentation on docs.rs.
    #[default]
    Published,
    /// At the exporter of the alert's instance. A service that writes its own page does not serve them.
    Exporter,
    /// Under this base address.
    At(String),
}

impl Links {
    /// Returns the links of the files in `alerts/`, which `deploy/compose` uses.
    #[must_use]
    pub fn of_compose() -> Self {
        Self { runbooks: Runbooks::Published, grafana: Some(COMPOSE_GRAFANA.to_owned()) }
    }

    /// Returns the comments of a rule file about links that are missing, or that others cannot follow.
    pub(super) fn comments(&self) -> Vec<String> {
        let mut comments = Vec::new();
        match &self.grafana {
            None => {
                comments.push("Alerts have no dashboard_url: `--grafana-url` links them to your Grafana.".to_owned());
            }
            Some(url) => comments.extend(unreachable(url)),
        }
        if let Runbooks::At(url) = &self.runbooks {
            comments.extend(unreachable(url));
        }
        comments
    }
}

/// Returns a warning if an address is one of this host, or one of documentation.
fn unreachable(url: &str) -> Option<String> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split('/').next().unwrap_or_default();
    let host = match authority.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    let host = host.to_ascii_lowercase();
    let is_in = |domain: &str| host == domain || host.ends_with(&format!(".{domain}"));
    if is_in("localhost") || host.starts_with("127.") || matches!(&*host, "::1" | "0.0.0.0" | "::") {
        Some(format!("Placeholder: links to {url} work on that host only. Give an address that readers can open."))
    } else if ["example", "example.com", "example.net", "example.org", "invalid", "test"].into_iter().any(is_in) {
        Some(format!("Placeholder: {url} is an address of documentation. Give your own."))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_recognised() {
        for url in [
            "http://localhost:3000",
            "http://LOCALHOST",
            "https://g.localhost/x",
            "http://127.0.0.1:3000/g",
            "http://[::1]:3000",
            "http://0.0.0.0",
        ] {
            assert!(unreachable(url).is_some_and(|text| text.contains("that host only")), "{url}");
        }
        for url in ["https://grafana.example", "https://grafana.example.com/g", "http://example.org:80"] {
            assert!(unreachable(url).is_some_and(|text| text.contains("documentation")), "{url}");
        }
        for url in ["https://grafana.shop.internal", "http://10.0.0.7:3000", "https://myexample.com", "http://grafana"]
        {
            assert_eq!(unreachable(url), None);
        }
    }
}
