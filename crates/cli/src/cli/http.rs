//! A blocking HTTP client for exporters: plain or TLS, with a password or a client certificate.
//!
//! It starts neither a runtime nor threads, because health checks run often.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use clap::Args;
use http::Uri;
use poolscope::config::read_file;
use poolscope::exporter::DEFAULT_ADDRESS;
use poolscope::text::Printable;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use thiserror::Error;

/// The environment variable with the password.
const PASSWORD_VARIABLE: &str = "POOLSCOPE_WEB_PASSWORD";

/// How an exporter is queried.
#[derive(Debug, Args)]
pub(super) struct ClientArgs {
    /// How long the request may take
    #[arg(long, value_name = "TIME", value_parser = super::duration::duration, default_value = "3s")]
    timeout: Duration,

    /// The PEM file with the certificates to trust, instead of the system's
    #[arg(long, value_name = "FILE")]
    cacert: Option<PathBuf>,

    /// The PEM file with the client's certificate, for exporters that require one
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,

    /// The PEM file with its private key
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,

    /// The user name for basic authentication
    ///
    /// The password is the first line of --password-file, or the variable POOLSCOPE_WEB_PASSWORD. A password is sent over
    /// plain HTTP only to this machine.
    #[arg(long, value_name = "NAME", env = "POOLSCOPE_WEB_USER")]
    user: Option<String>,

    /// The file with the password
    #[arg(long, value_name = "FILE", requires = "user", env = "POOLSCOPE_WEB_PASSWORD_FILE")]
    password_file: Option<PathBuf>,

    /// The address that the exporter listens on
    #[arg(
        long = "web.listen-address",
        value_name = "ADDRESS",
        env = "POOLSCOPE_WEB_LISTEN_ADDRESS",
        default_value = DEFAULT_ADDRESS
    )]
    pub(super) listen_address: Target,
}

/// The URL of an exporter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    is_tls: bool,
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
    pub(super) fn or_path(mut self, path: &str) -> Self {
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
    fn is_local(&self) -> bool {
        let address = self.host().parse::<std::net::IpAddr>();
        self.host() == "localhost" || address.is_ok_and(|address| address.is_loopback())
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority, self.path)
    }
}

/// Why the client's own files or settings are unusable.
#[derive(Debug, Error)]
pub(super) enum ClientError {
    /// A file cannot be read.
    #[error("cannot read {flag} {}", Printable(.path.display()))]
    File {
        flag: &'static str,
        path: PathBuf,
        #[source]
        error: io::Error,
    },
    /// A PEM file has no valid certificate or key.
    #[error("{flag} {} is not a PEM file with what is expected: {problem}", Printable(.path.display()))]
    Pem { flag: &'static str, path: PathBuf, problem: String },
    /// A user without a password.
    #[error("--user is given without a password; give --password-file, or the variable {PASSWORD_VARIABLE}")]
    NoPassword,
    /// A certificate and its key do not match, or no certificate is trusted.
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
}

impl ClientError {
    /// Returns the conversion of an error in the PEM file that a flag names.
    fn pem<E: fmt::Display>(flag: &'static str, path: &Path) -> impl Fn(E) -> Self {
        move |problem| Self::Pem { flag, path: path.to_owned(), problem: problem.to_string() }
    }
}

/// The response to a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) body: String,
}

/// Queries exporters.
pub(super) struct HttpClient {
    timeout: Duration,
    tls: Option<Arc<ClientConfig>>,
    /// The value of the header `Authorization`.
    authorization: Option<String>,
}

impl HttpClient {
    /// Reads the files that the arguments name. `is_tls`: whether a target uses TLS.
    pub(super) fn new(args: &ClientArgs, is_tls: bool) -> Result<Self, ClientError> {
        let tls = if is_tls { Some(Arc::new(tls_config(args)?)) } else { None };
        let authorization = match &args.user {
            Some(user) => Some(format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{}", password(args)?)))),
            None => None,
        };
        Ok(Self { timeout: args.timeout, tls, authorization })
    }

    /// Returns whether any of these targets uses TLS.
    pub(super) fn is_tls<'a>(targets: impl IntoIterator<Item = &'a Target>) -> bool {
        targets.into_iter().any(|target| target.is_tls)
    }

    /// Sends a request and reads at most `max_bytes` of the response.
    pub(super) fn get(&self, target: &Target, accept: &str, max_bytes: usize) -> io::Result<Response> {
        let deadline = Instant::now() + self.timeout;
        // With HTTP/1.0 the response is not chunked, and the connection is closed after it.
        let Target { path, authority, .. } = target;
        let mut request = format!("GET {path} HTTP/1.0\r\nHost: {authority}\r\nAccept: {accept}\r\n");
        if let Some(authorization) = &self.authorization {
            if !target.is_tls && !target.is_local() {
                return Err(io::Error::other(
                    "the password is not sent over plain HTTP to another machine; use https://",
                ));
            }
            request.push_str(&format!("Authorization: {authorization}\r\n"));
        }
        request.push_str("\r\n");
        let stream = DeadlineStream { stream: connect(authority, deadline)?, deadline };
        let response = match &self.tls {
            Some(config) if target.is_tls => {
                let name = ServerName::try_from(target.host().to_owned()).map_err(io::Error::other)?;
                let session = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
                exchange(StreamOwned::new(session, stream), &request, max_bytes)?
            }
            _ => exchange(stream, &request, max_bytes)?,
        };
        parse(&String::from_utf8_lossy(&response))
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "invalid HTTP response"))
    }
}

fn read(flag: &'static str, path: &Path) -> Result<String, ClientError> {
    read_file(path).map_err(|error| ClientError::File { flag, path: path.to_owned(), error })
}

fn password(args: &ClientArgs) -> Result<String, ClientError> {
    let text = match &args.password_file {
        Some(path) => read("--password-file", path)?,
        None => std::env::var(PASSWORD_VARIABLE).map_err(|_| ClientError::NoPassword)?,
    };
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

fn certificates(flag: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, ClientError> {
    let pem = read(flag, path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let found = found.map_err(ClientError::pem(flag, path))?;
    if found.is_empty() { Err(ClientError::pem(flag, path)("it has no certificate")) } else { Ok(found) }
}

fn tls_config(args: &ClientArgs) -> Result<ClientConfig, ClientError> {
    let mut roots = RootCertStore::empty();
    match &args.cacert {
        Some(path) => {
            for certificate in certificates("--cacert", path)? {
                roots.add(certificate).map_err(ClientError::pem("--cacert", path))?;
            }
        }
        None => {
            // Among a system's many certificates, some are always rejected.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let failed = |error: rustls::Error| ClientError::Tls(error.to_string());
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(failed)?
        .with_root_certificates(roots);
    match (&args.cert, &args.key) {
        (Some(cert), Some(key)) => {
            let pem = read("--key", key)?;
            let parsed = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(ClientError::pem("--key", key))?;
            builder.with_client_auth_cert(certificates("--cert", cert)?, parsed).map_err(failed)
        }
        _ => Ok(builder.with_no_client_auth()),
    }
}

/// A stream whose reads and writes end at a deadline.
struct DeadlineStream {
    stream: TcpStream,
    deadline: Instant,
}

impl Read for DeadlineStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(time_left(self.deadline)?))?;
        self.stream.read(buffer).map_err(timed_out)
    }
}

impl Write for DeadlineStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(Some(time_left(self.deadline)?))?;
        self.stream.write(bytes).map_err(timed_out)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// The error of a timeout is `WouldBlock` on Unix.
fn timed_out(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::WouldBlock { io::ErrorKind::TimedOut.into() } else { error }
}

fn exchange(mut stream: impl Read + Write, request: &str, max_bytes: usize) -> io::Result<Vec<u8>> {
    stream.write_all(request.as_bytes())?;
    stream.flush()?;
    let mut response = Vec::new();
    let mut buffer = [0; 16 * 1024];
    while response.len() <= max_bytes {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => response.extend_from_slice(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // The peer closed the connection without ending TLS, as many do after a response.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && !response.is_empty() => break,
            Err(error) => return Err(error),
        }
    }
    Ok(response)
}

fn connect(authority: &str, deadline: Instant) -> io::Result<TcpStream> {
    let mut last_error = io::Error::from(io::ErrorKind::NotFound);
    for address in authority.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, time_left(deadline)?) {
            Ok(stream) => return Ok(stream),
            Err(error) => last_error = error,
        }
    }
    Err(last_error)
}

/// Returns the time until the deadline, or an error if it has passed.
fn time_left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// Returns the status of a response, and its body.
fn parse(response: &str) -> Option<Response> {
    let (head, body) = response.split_once("\r\n\r\n")?;
    let (version, rest) = head.lines().next()?.split_once(' ')?;
    let status = rest.get(..3)?.parse().ok().filter(|_| version.starts_with("HTTP/1."))?;
    Some(Response { status, body: body.to_owned() })
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
    fn response_has_a_status_and_a_body() {
        let response = |status, body: &str| Some(Response { status, body: body.to_owned() });
        assert_eq!(parse("HTTP/1.1 200 OK\r\na: b\r\n\r\nHealthy.\nMore.\n"), response(200, "Healthy.\nMore.\n"));
        assert_eq!(parse("HTTP/1.0 503 \r\n\r\n"), response(503, ""));
        for invalid in ["", "HTTP/1.1 200 OK\r\n", "SSH-2.0-x\r\n\r\n", "HTTP/1.1 2\r\n\r\n", "HTTP/1.1 abc\r\n\r\n"] {
            assert_eq!(parse(invalid), None, "{invalid:?}");
        }
    }

    #[test]
    fn files_of_the_client_are_bounded_text() {
        let directory = tempfile::tempdir().unwrap();
        let written = |name: &str, content: &[u8]| {
            let path = directory.path().join(name);
            std::fs::write(&path, content).unwrap();
            path
        };
        let args = |password_file: PathBuf| ClientArgs {
            timeout: Duration::from_secs(1),
            cacert: None,
            cert: None,
            key: None,
            user: Some("alice".to_owned()),
            password_file: Some(password_file),
            listen_address: DEFAULT_ADDRESS.parse().unwrap(),
        };
        let problem = |error: ClientError| poolscope::text::ErrorChain(&error).to_string();
        assert_eq!(password(&args(written("password", b"sesame\nmore\n"))).unwrap(), "sesame");
        let latin = written("latin", b"s\xe9same\n");
        let expected = format!("cannot read --password-file {}: line 1 is not UTF-8", latin.display());
        assert_eq!(problem(password(&args(latin)).unwrap_err()), expected);
        let zero = || PathBuf::from("/dev/zero");
        let refused = |flag: &str| format!("cannot read {flag} /dev/zero: neither a regular file nor a FIFO");
        assert_eq!(problem(password(&args(zero())).unwrap_err()), refused("--password-file"));
        let cacert = ClientArgs { cacert: Some(zero()), ..args(zero()) };
        assert_eq!(problem(tls_config(&cacert).unwrap_err()), refused("--cacert"));
        let key = ClientArgs { cert: Some(zero()), key: Some(zero()), ..args(zero()) };
        assert_eq!(problem(tls_config(&key).unwrap_err()), refused("--key"));
        assert_eq!(problem(certificates("--cert", &zero()).unwrap_err()), refused("--cert"));
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
