//! Bounds on what scrapes and clients may cost. The documentation of the exporter lists them.

use std::time::Duration;

/// Connections open at once. Further ones wait in the listen queue.
pub(super) const MAX_CONNECTIONS: usize = 128;

/// Time for a request's head, and for a connection to stay idle: hyper measures both by the same clock.
///
/// Longer than the usual scrape intervals of 15 s and 30 s, and equal to none, so that Prometheus keeps its connection.
pub(super) const REQUEST_HEAD_TIMEOUT: Duration = Duration::from_secs(40);

/// Time in which a client may read nothing of a response that is ready.
pub(super) const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// Size of the request line and the headers together. Generous, because browsers send a host's cookies to each of its
/// ports.
pub(super) const MAX_HEAD_BYTES: usize = 16 * 1024;

/// Headers of one request.
pub(super) const MAX_HEADERS: usize = 100;

/// Scrapes that gather at once.
pub(super) const MAX_SCRAPES: usize = 4;

/// Time a scrape waits for one of the others to finish.
pub(super) const SCRAPE_QUEUE_TIMEOUT: Duration = Duration::from_secs(1);

/// Responses of `/api/v1/pools` that are built at once, in addition to the scrapes.
pub(super) const MAX_POOL_LISTINGS: usize = 4;

/// Time a request for `/api/v1/pools` waits for one of the others to finish.
pub(super) const POOL_LISTING_QUEUE_TIMEOUT: Duration = Duration::from_secs(1);

/// Time for requests in progress to end at shutdown.
pub(super) const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);
