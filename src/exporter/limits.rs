//! What scrapes and clients may cost, in one place. The module doc of the exporter lists the values.

use std::time::Duration;

/// The bounds of one exporter.
#[derive(Clone, Debug)]
pub(super) struct Limits {
    /// Connections open at once.
    pub(super) connections: usize,
    /// From when a connection could send a request until the request's head is complete.
    ///
    /// hyper measures an idle keep-alive connection by the same clock. Longer than the usual scrape
    /// intervals of 15 s and 30 s, and equal to none, so that Prometheus keeps its connection.
    pub(super) request_head: Duration,
    /// From when a connection is accepted until its TLS handshake is done.
    #[cfg(feature = "web-config")]
    pub(super) handshake: Duration,
    /// How long a client may read nothing while there is something to read.
    pub(super) write_stall: Duration,
    /// Scrapes gathering at once.
    pub(super) scrapes: usize,
    /// Listings of the pools being made at once, beside the scrapes.
    pub(super) listings: usize,
    /// How long a scrape or a listing waits for its turn.
    pub(super) turn_wait: Duration,
    /// How long requests under way have to end once shutdown began.
    pub(super) shutdown_grace: Duration,
}

/// The largest request line and headers, together. Roomy, because browsers send a host's cookies to
/// each of its ports.
pub(super) const MAX_HEAD_BYTES: usize = 16 * 1024;

/// The most headers of one request.
pub(super) const MAX_HEADERS: usize = 100;

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 128,
            request_head: Duration::from_secs(40),
            #[cfg(feature = "web-config")]
            handshake: Duration::from_secs(10),
            write_stall: Duration::from_secs(30),
            scrapes: 4,
            listings: 4,
            turn_wait: Duration::from_secs(1),
            shutdown_grace: Duration::from_secs(5),
        }
    }
}
