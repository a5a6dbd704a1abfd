//! What panels there are, and their numbers.

use super::Dashboard;

/// A panel. Its number is part of links that others keep (alerts lead to `…?viewPanel=NUMBER`): it is never changed, and
/// one that is gone is not given again. The pool's are below 100, the fleet's from 101 on, the exporter's from 201.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Panel {
    /// Which share of the maximum is used.
    Fullness = 1,
    /// How many wait now.
    Waiting = 2,
    /// How long a checkout takes at worst.
    SlowestWaits = 3,
    /// Which share of checkouts failed.
    Failing = 4,
    /// Connections that somebody forgot.
    Leaks = 5,
    /// For how long connecting has failed.
    Suspended = 6,
    /// Which share of the time every connection was taken and somebody waited.
    Exhausted = 7,
    /// Alerts that fire.
    Alerts = 8,

    /// Connections by state, under their maximum.
    HowFull = 10,
    /// Which share of the time the pool was exhausted.
    Saturated = 11,
    /// The pool's size beside the one that would do.
    Size = 12,

    /// Connections by operation and activity, under their maximum.
    WhoHolds = 20,
    /// Connections by activity.
    HeldDoing = 21,
    /// Connections that are held without a query, by operation.
    HeldForNothing = 22,
    /// How long connections are held.
    UseTime = 23,
    /// Queries sent and finished.
    Queries = 24,
    /// How long queries take, by what they are.
    QueryTime = 25,
    /// Bytes on the wire.
    WireBytes = 26,

    /// How many wait, by operation.
    WhoWaits = 30,
    /// How many wait, at each scrape.
    WaitingNow = 31,
    /// What checkouts wait for.
    WaitPhases = 32,
    /// Checkouts, by operation.
    Checkouts = 33,

    /// How long checkouts take.
    WaitTime = 40,
    /// Which share of checkouts is slow or fails.
    Objective = 41,
    /// The oldest checkout.
    OldestWait = 42,
    /// How long operations take.
    OperationTime = 43,

    /// Checkouts without success, by outcome.
    FailedCheckouts = 50,
    /// Checkouts without success, by operation.
    WhoFails = 51,
    /// Errors of connections, by SQLSTATE.
    ConnectionErrors = 52,
    /// Errors of queries, by SQLSTATE.
    QueryErrors = 53,
    /// Checkouts that may wait for their own task.
    SelfDeadlocks = 54,

    /// Retries, by operation and what had failed.
    Retries = 60,
    /// What became of what was retried.
    RetryEnds = 61,
    /// How many retries may be made.
    RetryBudget = 62,

    /// Connections that came back dirty.
    DirtyReturns = 70,
    /// Suspected leaks over time.
    SuspectedLeaks = 71,

    /// Servers that do not answer.
    ServersDown = 72,
    /// The server's version and role.
    ServerInfo = 73,
    /// How many slots the server has, and has left.
    ServerSlots = 74,
    /// The server's backends, by application.
    BackendsByApplication = 75,
    /// The server's backends, by state.
    BackendsByState = 76,
    /// Backends that wait for locks.
    LockWaiters = 77,
    /// The oldest transaction of all clients.
    OldestTransaction = 78,
    /// Which share of the server's slots is taken.
    SlotsTaken = 79,

    /// Connections opened and closed.
    Churn = 80,
    /// Why connections were closed.
    WhyClosed = 81,
    /// How long connecting takes.
    CreateTime = 82,
    /// For how long connecting has been suspended, over time.
    Connecting = 83,
    /// For which share of checkouts a connection was made.
    ChurnShare = 84,

    /// Pooled beside unpooled connections.
    Migration = 90,
    /// Connections outside the pool, by call site.
    Unpooled = 91,
    /// What connecting outside the pool costs.
    UnpooledConnecting = 92,

    /// Requests, by route.
    Requests = 93,
    /// How long requests take, by route.
    RequestTime = 94,
    /// Requests without success, by route.
    FailedRequests = 95,
    /// What each route holds.
    RouteHolds = 96,
    /// What each route waits for.
    RouteWaits = 97,
    /// How many checkouts a request makes.
    CheckoutsEach = 98,
    /// What requests had better not do.
    RequestWarnings = 99,

    /// Processes that can be scraped.
    FleetUp = 101,
    /// Pools.
    FleetPools = 102,
    /// Used connections of all pools, against their maxima.
    FleetFullness = 103,
    /// Waiting checkouts of all pools.
    FleetWaiting = 104,
    /// Which share of all checkouts failed.
    FleetFailing = 105,
    /// Alerts that fire.
    FleetAlerts = 106,
    /// Servers that do not answer.
    FleetServersDown = 107,
    /// Which share of a server's slots is taken, of the one that is fullest.
    FleetSlotsTaken = 108,
    /// The pools that are worst off.
    WorstPools = 110,
    /// The sum of maxima, against the server's slots.
    Slots = 111,
    /// Connections of all pools.
    FleetConnections = 112,
    /// The pools that were exhausted for longest.
    MostSaturated = 113,
    /// The operations that hold most.
    FleetHolders = 120,
    /// What is done with what is held.
    FleetActivities = 121,
    /// The pools in which most wait.
    FleetWaiters = 130,
    /// How long checkouts take.
    FleetWaitTime = 131,
    /// Failures of all pools.
    FleetFailures = 140,
    /// Errors of connections.
    FleetConnectionErrors = 141,
    /// Retries of all pools.
    FleetRetries = 150,
    /// Dirty returns and leaks of all pools.
    FleetDirt = 151,
    /// Connections opened and closed in all pools.
    FleetChurn = 160,
    /// Connections outside of pools.
    FleetUnpooled = 161,

    /// Processes that are scraped.
    Up = 201,
    /// How long they have been up.
    Uptime = 202,
    /// Scrapes that failed.
    FailedScrapes = 203,
    /// How long a scrape takes at worst.
    SlowestScrapes = 204,
    /// Which share of spans is lost.
    LostSpans = 205,
    /// How many versions run.
    Versions = 206,
    /// Scrapes by code.
    Scrapes = 210,
    /// How long scrapes take.
    ScrapeTime = 211,
    /// How many samples a scrape has.
    Samples = 212,
    /// What became of spans.
    Spans = 220,
    /// Spans in the queue.
    SpanQueue = 221,
    /// Operations that are told apart.
    ToldApart = 230,
    /// Wires that are not understood.
    WiresLost = 231,
    /// Processor time.
    Cpu = 240,
    /// Memory.
    Memory = 241,
    /// Open files.
    Files = 242,
    /// Threads.
    Threads = 243,
    /// Versions by instance.
    Builds = 250,
}

impl Panel {
    /// The dashboard it is on.
    #[must_use]
    pub const fn dashboard(self) -> Dashboard {
        match self as u32 {
            0..100 => Dashboard::Pool,
            100..200 => Dashboard::Fleet,
            _ => Dashboard::Exporter,
        }
    }

    /// Where a link leads that is relative to Grafana's address.
    pub(super) fn path(self) -> String {
        format!("/d/{}", self.dashboard().uid())
    }
}

/// The panel's number, as `viewPanel` takes it.
#[must_use]
pub const fn panel_id(panel: Panel) -> u32 {
    panel as u32
}
