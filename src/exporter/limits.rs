//! Bounds on what scrapes and clients may cost. The documentation of the exporter lists them.

use std::time::Duration;

/// Connections open at once. For a further one, another is closed.
pub(super) const MAX_CONNECTIONS: usize = 128;

/// Connections of one IPv4 address or one IPv6 network of 64 bits.
pub(super) const MAX_CONNECTIONS_PER_PEER: usize = 64;

/// Connections in addition to [`MAX_CONNECTIONS`], for health checks only, while all others have a request under way.
/// Further ones wait in the listen queue.
pub(super) const RESERVED_CONNECTIONS: usize = 16;

/// Time from accepting a connection to the end of its first request's head, with the TLS handshake, and from the first
/// byte of a later head to its end.
pub(super) const FIRST_HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Time from the end of a response to the end of the next request's head.
///
/// Longer than the usual scrape intervals of 15 s and 30 s, and equal to none, so that Prometheus keeps its connection.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(40);

/// Time in which a client may read nothing of a response that is ready.
pub(super) const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// Time for a client to read a whole response, from the moment in which it does not read.
pub(super) const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);

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

/// Streams of `/api/v1/stream` that are open at once.
pub(super) const MAX_VIEWERS: usize = 16;

/// Time after which a stream ends, so that its client is authorized again when it reconnects.
pub(super) const MAX_STREAM_TIME: Duration = Duration::from_secs(600);

/// Time between two requests that begin incident files.
pub(super) const RECORD_INTERVAL: Duration = Duration::from_secs(10);

/// The same, as `Retry-After`.
pub(super) const RECORD_INTERVAL_SECONDS: &str = "10";

/// Time for requests in progress to end at shutdown.
pub(super) const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);
