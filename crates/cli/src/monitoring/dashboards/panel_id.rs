//! The panels of all dashboards and their numbers.

use super::dashboard::Dashboard;

/// A panel. Alerts link to its number (`…?viewPanel=NUMBER`), so a number is never changed, and never reused after its panel
/// was removed. The pool dashboard has numbers below 100, the fleet dashboard from 101, the exporter dashboard from 201.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PanelId {
    /// Used share of the maximum.
    Utilization = 1,
    /// Waiting checkouts.
    Waiting = 2,
    /// 99th percentile of the checkout time.
    WaitP99 = 3,
    /// Share of failed checkouts.
    FailedShare = 4,
    /// Suspected leaks.
    Leaks = 5,
    /// How long connecting has failed.
    ConnectSuspended = 6,
    /// Share of time exhausted.
    ExhaustedShare = 7,
    /// Firing alerts.
    Alerts = 8,

    /// Connections by state.
    ConnectionsByState = 10,
    /// Share of time exhausted, over time.
    Saturation = 11,
    /// Actual and recommended size.
    RecommendedSize = 12,

    /// The cause, the operation responsible and the advice.
    Verdict = 13,
    /// The measured values that the verdict rests on.
    Evidence = 14,
    /// The causes over time.
    Causes = 15,

    /// The time of loads that caches made unnecessary.
    CacheSaved = 16,
    /// Bytes read from and written to caches.
    CacheBytes = 17,

    /// Clients of Redis servers.
    RedisClients = 18,
    /// Memory of Redis servers.
    RedisMemory = 19,

    /// Held connections by operation and activity.
    Holders = 20,
    /// Held connections by activity.
    HeldByActivity = 21,
    /// Connections held without a query, by operation.
    HeldWithoutQuery = 22,
    /// How long connections are held.
    UseTime = 23,
    /// Queries sent and finished.
    Queries = 24,
    /// Query time by query summary.
    QueryTime = 25,
    /// Network traffic.
    WireBytes = 26,

    /// Keys evicted and clients refused by Redis servers.
    RedisEvictions = 27,

    /// Waiting checkouts by operation.
    Waiters = 30,
    /// Waiting checkouts at each scrape.
    QueueLength = 31,
    /// Checkout time by phase.
    WaitPhases = 32,
    /// Checkouts by operation.
    Checkouts = 33,

    /// Checkout time.
    WaitTime = 40,
    /// Slow and timed-out checkouts against the objectives.
    Objectives = 41,
    /// Age of the oldest checkout in flight.
    OldestWait = 42,
    /// Operation time.
    OperationTime = 43,

    /// Failed checkouts by outcome.
    FailuresByOutcome = 50,
    /// Failed checkouts by operation.
    FailuresByOperation = 51,
    /// Connection errors by type.
    ConnectionErrors = 52,
    /// Query errors by SQLSTATE.
    QueryErrors = 53,
    /// Possible self-deadlocks.
    SelfDeadlocks = 54,

    /// Retries by operation and error.
    Retries = 60,
    /// Outcomes of retried operations.
    RetryOutcomes = 61,
    /// Retries left in the budget.
    RetryBudget = 62,

    /// Dirty returns by operation and kind.
    DirtyReturns = 70,
    /// Suspected leaks, over time.
    SuspectedLeaks = 71,

    /// Servers that do not answer.
    ServersDown = 72,
    /// Version and role of the server.
    ServerInfo = 73,
    /// Connection slots of the server.
    ServerSlots = 74,
    /// Backends by application.
    BackendsByApplication = 75,
    /// Backends by state.
    BackendsByState = 76,
    /// Backends that wait for locks.
    LockWaiters = 77,
    /// Age of the oldest transaction.
    OldestTransaction = 78,
    /// Share of the server's slots that are taken.
    SlotsTaken = 79,

    /// Connections opened and closed.
    OpenedAndClosed = 80,
    /// Closed connections by reason.
    CloseReasons = 81,
    /// Connect time.
    ConnectTime = 82,
    /// How long connecting has failed, over time.
    ConnectSuspendedTime = 83,
    /// Share of checkouts that opened a connection.
    ChurnShare = 84,

    /// Lookups of caches by result.
    CacheLookups = 85,
    /// Reads that caches answer, and the load that remains for the database.
    CacheAndDatabase = 86,
    /// Share of lookups that caches answer.
    CacheHitShare = 87,
    /// Loads in flight, and how long they take.
    CacheLoads = 88,
    /// Errors of caches by kind.
    CacheErrors = 89,

    /// Pooled and unpooled connections.
    PooledAndUnpooled = 90,
    /// Unpooled connections opened, by call site.
    UnpooledConnects = 91,
    /// Time spent connecting outside the pool, by call site.
    UnpooledConnectTime = 92,

    /// Requests in flight by route.
    RequestsInFlight = 93,
    /// Request time by route.
    RequestTime = 94,
    /// Failed requests by route.
    FailedRequests = 95,
    /// Held connections by route.
    RouteHolders = 96,
    /// Waiting requests by route.
    RouteWaiters = 97,
    /// Checkouts and retries per request, by route.
    CheckoutsPerRequest = 98,
    /// Warnings by route.
    RequestWarnings = 99,

    /// Instances that cannot be scraped.
    FleetInstancesDown = 101,
    /// Number of pools.
    FleetPools = 102,
    /// Used share of all maxima.
    FleetUtilization = 103,
    /// Waiting checkouts of all pools.
    FleetWaiting = 104,
    /// Share of checkouts that timed out.
    FleetTimeoutShare = 105,
    /// Firing alerts.
    FleetAlerts = 106,
    /// Servers that do not answer.
    FleetServersDown = 107,
    /// Share of slots taken, of the fullest server.
    FleetSlotsTaken = 108,
    /// The diagnosed causes, with the number of instances.
    FleetCauses = 109,
    /// The most saturated pools, as a table.
    TopPools = 110,
    /// Sum of maxima against the server's slots.
    FleetSlots = 111,
    /// Connections of all pools by state.
    FleetConnections = 112,
    /// The most saturated pools.
    FleetSaturation = 113,
    /// Connections on the server that no pool owns.
    FleetUnowned = 114,
    /// The operations that hold most connections.
    FleetHolders = 120,
    /// Held connections by activity.
    FleetHeldByActivity = 121,
    /// The pools with most waiting checkouts.
    FleetWaiters = 130,
    /// Checkout time over all pools.
    FleetWaitTime = 131,
    /// Timeouts by pool.
    FleetTimeouts = 140,
    /// Connection errors by type.
    FleetConnectionErrors = 141,
    /// Retries per checkout.
    FleetRetries = 150,
    /// Dirty returns and suspected leaks.
    FleetDirtyReturns = 151,
    /// Connections opened.
    FleetChurn = 160,
    /// Unpooled connections.
    FleetUnpooled = 161,

    /// Scraped instances.
    Instances = 201,
    /// Time since the last start.
    Uptime = 202,
    /// Share of failed scrapes.
    FailedScrapes = 203,
    /// 99th percentile of the scrape time.
    ScrapeP99 = 204,
    /// Share of lost spans.
    LostSpans = 205,
    /// Number of versions.
    Versions = 206,
    /// Scrapes by status code.
    Scrapes = 210,
    /// Scrape time.
    ScrapeTime = 211,
    /// Samples per scrape.
    Samples = 212,
    /// Spans by outcome.
    Spans = 220,
    /// Queued spans.
    SpanQueue = 221,
    /// Number of distinct operations.
    OperationCardinality = 230,
    /// Connections no longer observed.
    WiresLost = 231,
    /// CPU use.
    Cpu = 240,
    /// Memory use.
    Memory = 241,
    /// Open files.
    Files = 242,
    /// Threads.
    Threads = 243,
    /// Versions by job.
    VersionsByJob = 250,
}

impl PanelId {
    /// Returns the panel's number, the value of `viewPanel`.
    #[must_use]
    pub const fn number(self) -> u32 {
        self as u32
    }

    /// Returns the panel's dashboard.
    #[must_use]
    pub const fn dashboard(self) -> Dashboard {
        match self as u32 {
            0..100 => Dashboard::Pool,
            100..200 => Dashboard::Fleet,
            _ => Dashboard::Exporter,
        }
    }

    /// Returns the path of the panel's dashboard, relative to Grafana's address.
    pub(super) fn path(self) -> String {
        format!("/d/{}", self.dashboard().uid())
    }
}
