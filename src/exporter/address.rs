//! Opens a listening socket at an address in its written form.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::net::{TcpListener, lookup_host};

use super::error::ExporterError;

/// An address to listen on.
#[derive(Debug, PartialEq, Eq)]
struct Address<'a> {
    host: Host<'a>,
    port: u16,
}

#[derive(Debug, PartialEq, Eq)]
enum Host<'a> {
    All,
    Ip(IpAddr),
    Name(&'a str),
}

/// Listens on the first socket address that can be opened.
pub(super) async fn listen(address: &str) -> Result<(TcpListener, SocketAddr), ExporterError> {
    let Some(Address { host, port }) = parse(address) else {
        return Err(ExporterError::InvalidAddress { address: address.to_owned() });
    };
    let candidates = match host {
        // The IPv6 wildcard includes IPv4 where the system allows it. The second candidate is for hosts without IPv6.
        Host::All => {
            vec![SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)), SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))]
        }
        Host::Ip(ip) => vec![SocketAddr::from((ip, port))],
        Host::Name(name) => match lookup_host((name, port)).await {
            Ok(found) => found.collect(),
            Err(source) => {
                return Err(ExporterError::Resolve { address: address.to_owned(), source });
            }
        },
    };
    let listener = open_first(&candidates, &host).await.map_err(|source| ExporterError::listen(address, source))?;
    let local_addr = listener.local_addr().map_err(|source| ExporterError::listen(address, source))?;
    Ok((listener, local_addr))
}

async fn open_first(candidates: &[SocketAddr], host: &Host<'_>) -> io::Result<TcpListener> {
    let mut first_error = None;
    for candidate in candidates {
        match TcpListener::bind(candidate).await {
            Ok(listener) => return Ok(listener),
            // Listening on IPv4 alone would not be all interfaces.
            Err(error) if *host == Host::All && error.kind() == io::ErrorKind::AddrInUse => {
                return Err(error);
            }
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    Err(first_error.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into()))
}

fn parse(address: &str) -> Option<Address<'_>> {
    let (host, port) = address.rsplit_once(':')?;
    // `u16::from_str` accepts a sign.
    if !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let port = port.parse().ok()?;
    let host = if host.is_empty() {
        Host::All
    } else if let Some(ip) = host.strip_prefix('[') {
        Host::Ip(IpAddr::V6(ip.strip_suffix(']')?.parse().ok()?))
    } else if let Ok(ip) = host.parse::<Ipv4Addr>() {
        Host::Ip(IpAddr::V4(ip))
    } else if host.contains([':', '/', '[', ']']) || host.contains(char::is_whitespace) {
        // An IPv6 address without brackets, or a URL.
        return None;
    } else {
        Host::Name(host)
    };
    Some(Address { host, port })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documented_forms_are_parsed() {
        for (given, host, port) in [
            ("127.0.0.1:9719", Host::Ip(Ipv4Addr::LOCALHOST.into()), 9719),
            ("[::1]:9719", Host::Ip(Ipv6Addr::LOCALHOST.into()), 9719),
            (":9719", Host::All, 9719),
            (":0", Host::All, 0),
            ("localhost:65535", Host::Name("localhost"), 65535),
        ] {
            assert_eq!(parse(given), Some(Address { host, port }), "{given}");
        }
    }

    #[test]
    fn other_forms_are_rejected() {
        for given in [
            "",
            "9719",
            "127.0.0.1",
            "127.0.0.1:",
            "127.0.0.1:http",
            "127.0.0.1:+80",
            "127.0.0.1:65536",
            "::1:9719",
            "[::1]",
            "[::1:9719",
            "[localhost]:9719",
            "http://127.0.0.1:9719",
            "my host:9719",
        ] {
            assert_eq!(parse(given), None, "{given}");
        }
    }
}
