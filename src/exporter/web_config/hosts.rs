//! Reads `allowed_hosts` of `http_server_config`: the names by which clients may address the exporter.
//!
//! A page in a browser can make its own host name resolve to 127.0.0.1 (DNS rebinding), and then read what a server on
//! that address responds. Its requests have its own name in the header `Host`.

use hyper::header::HOST;
use hyper::http::request::Parts;
use hyper::http::uri::Authority;

use super::error::LineError;
use super::section::Section;

/// The key of the list.
pub(super) const NAME: &str = "allowed_hosts";

/// The allowed hosts, in lower case and without brackets.
#[derive(Debug)]
pub(super) struct AllowedHosts(Vec<Box<str>>);

/// Reads the list. Returns `None` without one, so that all hosts are allowed.
pub(super) fn read(section: &Section<'_>) -> Result<Option<AllowedHosts>, LineError> {
    let mut hosts = Vec::new();
    for entry in section.list(NAME)? {
        let host = host(entry.value).filter(|host| is_whole(entry.value, host)).ok_or_else(|| {
            let problem = format!("{NAME} contains an invalid host; give a name or an IP address, without a port");
            LineError::new(entry.line, problem)
        })?;
        hosts.push(host.into_boxed_str());
    }
    Ok((!hosts.is_empty()).then_some(AllowedHosts(hosts)))
}

impl AllowedHosts {
    /// Returns whether a request addresses an allowed host. One without a host does not.
    pub(super) fn allow(&self, request: &Parts) -> bool {
        let authority = match request.uri.authority() {
            Some(authority) => Some(authority.as_str()),
            None => request.headers.get(HOST).and_then(|value| value.to_str().ok()),
        };
        authority.and_then(host).is_some_and(|host| self.0.iter().any(|allowed| **allowed == *host))
    }
}

/// Returns the host of an authority, without the port, in lower case and without brackets.
fn host(authority: &str) -> Option<String> {
    let is_address = authority.parse::<std::net::Ipv6Addr>().is_ok();
    let parsed: Authority = if is_address { format!("[{authority}]").parse() } else { authority.parse() }.ok()?;
    let host = parsed.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    (!host.is_empty()).then_some(host)
}

/// Returns whether an entry has nothing but this host: no port, no user and no wildcard.
fn is_whole(entry: &str, host: &str) -> bool {
    entry.trim_start_matches('[').trim_end_matches(']').eq_ignore_ascii_case(host) && !host.contains('*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(allowed: &[&str], host: Option<&str>, uri: &str) -> bool {
        let mut request = hyper::Request::get(uri);
        if let Some(host) = host {
            request = request.header(HOST, host);
        }
        let (request, ()) = request.body(()).unwrap().into_parts();
        AllowedHosts(allowed.iter().map(|host| (*host).into()).collect()).allow(&request)
    }

    #[test]
    fn host_is_compared_without_port_and_case() {
        let allowed = ["localhost", "127.0.0.1", "::1", "db.example"];
        for host in ["localhost", "LocalHost:9719", "127.0.0.1:9719", "[::1]", "[::1]:9719", "DB.example"] {
            assert!(allows(&allowed, Some(host), "/metrics"), "{host}");
        }
        for host in
            ["evil.example", "localhost.evil.example", "127.0.0.2", "", "local host", "[::2]:1", "localhost@evil"]
        {
            assert!(!allows(&allowed, Some(host), "/metrics"), "{host}");
        }
        assert!(!allows(&allowed, None, "/metrics"), "HTTP/1.0 without a host");
        assert!(!allows(&allowed, Some("localhost"), "http://evil.example/metrics"), "the target precedes the header");
        assert!(allows(&allowed, Some("evil.example"), "http://localhost/metrics"));
    }

    #[test]
    fn entries_are_hosts_without_ports() {
        for entry in ["localhost", "LOCALHOST", "::1", "[::1]", "10.0.0.1"] {
            assert!(host(entry).is_some_and(|host| is_whole(entry, &host)), "{entry}");
        }
        for entry in ["localhost:9719", "[::1]:9719", "http://localhost", "user@localhost", "*.example", "a b", ""] {
            assert!(!host(entry).is_some_and(|host| is_whole(entry, &host)), "{entry}");
        }
    }
}
