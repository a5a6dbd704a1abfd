//! The URL of an exporter, or the address that it listens on.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use http::Uri;

/// The URL of an exporter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Target {
    pub(super) is_tls: bool,
    /// Host and port.
    authority: String,
    /// `/` if the URL has none.
    path: String,
}

impl FromStr for Target {
    type Err = &'static str;

    /// Parses a URL, or a listen address. The unspecified address becomes `localhost`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const REMEDY: &str =
            "give http://host:port or https://host:port, optionally with a path; a user name belongs in --user";
        let is_address = !text.contains("://");
        let url = if is_address { format!("http://{}", connectable(text)) } else { text.to_owned() };
        let uri: Uri = url.parse().map_err(|_| REMEDY)?;
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@')).ok_or(REMEDY)?;
        let is_complete = !is_address || authority.port_u16().is_some() && !text.contains('/');
        let is_tls = uri.scheme_str() == Some("https");
        if !(is_tls || uri.scheme_str() == Some("http")) || authority.host().is_empty() || !is_complete {
            return Err(REMEDY);
        }
        let port = authority.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Ok(Self { is_tls, authority: format!("{}:{port}", authority.host()), path })
    }
}

/// Returns the address to connect to for an exporter that listens at `address`.
fn connectable(address: &str) -> String {
    match address.rsplit_once(':') {
        Some(("" | "0.0.0.0" | "[::]", port)) => format!("localhost:{port}"),
        _ => address.to_owned(),
    }
}

impl Target {
    /// Sets the path, unless the URL has one.
    pub(in crate::cli) fn or_path(mut self, path: &str) -> Self {
        if self.path == "/" {
            path.clone_into(&mut self.path);
        }
        self
    }

    /// Returns the host, without the brackets of an IPv6 address.
    fn host(&self) -> &str {
        let host = self.authority.rsplit_once(':').map_or(&*self.authority, |(host, _)| host);
        host.trim_start_matches('[').trim_end_matches(']')
    }

    /// Returns whether the host is this machine, by its name or address.
    pub(super) fn is_local(&self) -> bool {
        let address = self.host().parse::<IpAddr>();
        self.host() == "localhost" || address.is_ok_and(|address| address.is_loopback())
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(text: &str) -> Option<String> {
        text.parse::<Target>().ok().map(|target| target.or_path("/-/healthy").to_string())
    }

    #[test]
    fn url_or_listen_address_is_accepted() {
        for (given, expected) in [
            ("http://127.0.0.1:9719", "http://127.0.0.1:9719/-/healthy"),
            ("http://127.0.0.1:9719/", "http://127.0.0.1:9719/-/healthy"),
            ("http://shop:9719/-/ready", "http://shop:9719/-/ready"),
            ("http://shop/-/ready?a=b", "http://shop:80/-/ready?a=b"),
            ("https://shop", "https://shop:443/-/healthy"),
            ("https://shop:9719/-/ready", "https://shop:9719/-/ready"),
            ("http://[::1]:9719", "http://[::1]:9719/-/healthy"),
            ("127.0.0.1:9719", "http://127.0.0.1:9719/-/healthy"),
            (":9719", "http://localhost:9719/-/healthy"),
            ("0.0.0.0:80", "http://localhost:80/-/healthy"),
            ("[::]:9719", "http://localhost:9719/-/healthy"),
            ("[fe80::1]:9719", "http://[fe80::1]:9719/-/healthy"),
        ] {
            assert_eq!(target(given).as_deref(), Some(expected), "{given}");
        }
    }

    #[test]
    fn other_targets_are_refused() {
        for given in ["", "ftp://shop", "http://", "http://me:secret@shop", "shop/-/ready", "a b", "shop", "***"] {
            assert_eq!(target(given), None, "{given}");
        }
    }

    #[test]
    fn this_machine_is_recognized() {
        for (url, is_local) in [
            ("http://localhost", true),
            ("http://127.0.0.3:1", true),
            ("http://[::1]:1", true),
            ("http://shop", false),
            ("http://10.0.0.1", false),
            ("http://localhost.example.com", false),
        ] {
            assert_eq!(url.parse::<Target>().unwrap().is_local(), is_local, "{url}");
        }
    }
}
