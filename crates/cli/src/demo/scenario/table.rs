//! The table of scenarios.

use std::time::Duration;

use super::cache_fault::CacheFault;
use super::expected_alerts::{EXHAUSTED, ExpectedDiagnosis};
use super::server_fault::ServerFault;
use super::{ExpectedAlerts, Fault, Scenario};
use crate::demo::shop::{Behavior, CodeFault, Endpoint};
use crate::demo::workload::{Arrival, Bursts, Load};
use crate::monitoring::rules::alerts::EXHAUSTION_SYMPTOMS;

use Arrival::{Archiving, Customer};

/// A mixed load that exhausts the pool from time to time.
static MIXED: Load = Load {
    rates: &[
        (Customer(Endpoint::GetProduct), 16.0),
        (Customer(Endpoint::ListOrders), 12.0),
        (Customer(Endpoint::PlaceOrder), 5.0),
        (Customer(Endpoint::UpdateStock), 3.0),
        (Customer(Endpoint::ReserveStock), 6.0),
        (Customer(Endpoint::MoveStock), 3.0),
        (Customer(Endpoint::SalesReport), 0.7),
        (Customer(Endpoint::CountCustomers), 0.8),
        (Customer(Endpoint::PrintInvoice), 0.4),
        (Archiving, 0.05),
    ],
    extra: &[],
    bursts: Some(Bursts {
        first: Duration::from_secs(4),
        interval_seconds: [12.0, 20.0],
        size: [14, 24],
        large_size: [85, 105],
    }),
    client_timeout: Some(Duration::from_secs(1)),
};

/// Rates that use less than one connection on average, and never all of them.
const NORMAL_RATES: &[(Arrival, f64)] = &[
    (Customer(Endpoint::GetProduct), 16.0),
    (Customer(Endpoint::ListOrders), 12.0),
    (Customer(Endpoint::PlaceOrder), 3.0),
    (Customer(Endpoint::UpdateStock), 3.0),
    (Customer(Endpoint::SalesReport), 0.2),
    (Customer(Endpoint::CountCustomers), 0.5),
    (Customer(Endpoint::PrintInvoice), 0.2),
    (Archiving, 0.05),
];

static NORMAL: Load = normal_and(&[]);

/// Returns the normal load with extra requests.
const fn normal_and(extra: &'static [(Arrival, f64)]) -> Load {
    Load { rates: NORMAL_RATES, extra, bursts: None, client_timeout: None }
}

/// The normal load, with a burst every few seconds that needs the whole pool.
static BURSTS: Load = Load {
    rates: NORMAL_RATES,
    extra: &[],
    bursts: Some(Bursts {
        first: Duration::from_millis(500),
        interval_seconds: [4.0, 6.0],
        size: [16, 24],
        large_size: [16, 24],
    }),
    client_timeout: None,
};

/// Short transactions that use about twelve connections.
static SALE: Load = normal_and(&[(Customer(Endpoint::CheckoutRush), 40.0)]);

/// A load that needs more than `pool_size` connections half of the time.
static BUSY: Load = normal_and(&[(Customer(Endpoint::CheckoutRush), 14.0)]);

/// Reads of products that the database could serve, and a cache serves.
static READS: Load = normal_and(&[(Customer(Endpoint::GetProduct), 80.0)]);

static ORDERS: Load = normal_and(&[(Customer(Endpoint::PlaceOrder), 4.0)]);
static COUNTS: Load = normal_and(&[(Customer(Endpoint::CountCustomers), 1.0)]);
static RESERVATIONS: Load = normal_and(&[(Customer(Endpoint::ReserveStock), 20.0)]);
static UPDATES: Load = normal_and(&[(Customer(Endpoint::UpdateStock), 5.0)]);

/// Returns the alert on a diagnosed cause, and what it names.
const fn diagnosis(alert: &'static str, names: &'static str) -> Option<ExpectedDiagnosis> {
    Some(ExpectedDiagnosis { alert, names })
}

/// Returns a scenario with normal load before and after its fault.
const fn fault(
    name: &'static str,
    about: &'static str,
    symptoms: &'static str,
    behavior: Behavior,
    load: &'static Load,
    alerts: ExpectedAlerts,
) -> Scenario {
    let fault = Some(Fault { behavior, load, server: ServerFault::None, cache: CacheFault::None, lasts: None, alerts });
    Scenario { name, about, symptoms, settings: &[], behavior: Behavior::GOOD, load: &NORMAL, fault }
}

impl Scenario {
    /// Adds a fault of the server.
    const fn with_server_fault(mut self, server: ServerFault) -> Self {
        if let Some(fault) = &mut self.fault {
            fault.server = server;
        }
        self
    }

    /// Adds a fault of the cache, and the load that the cache serves before and after it.
    const fn with_cache_fault(mut self, cache: CacheFault) -> Self {
        self.load = &READS;
        if let Some(fault) = &mut self.fault {
            fault.cache = cache;
        }
        self
    }

    /// Sets the default duration of the fault, in seconds.
    const fn lasting(mut self, seconds: u64) -> Self {
        if let Some(fault) = &mut self.fault {
            fault.lasts = Some(Duration::from_secs(seconds));
        }
        self
    }

    /// Sets pool settings.
    const fn with_settings(mut self, settings: &'static [(&'static str, &'static str)]) -> Self {
        self.settings = settings;
        self
    }
}

/// All scenarios. The first is the default.
pub(super) static SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "shop",
        about: "a mixed load: bursts, retries, clients that disconnect, a connection held while an email is sent",
        symptoms: "all metrics",
        settings: &[],
        behavior: Behavior::USUAL,
        load: &MIXED,
        fault: None,
    },
    Scenario {
        name: "healthy",
        about: "a normal load that never needs the whole pool: no waits and no errors",
        symptoms: "no waits, timeouts, errors or retries",
        settings: &[],
        behavior: Behavior::GOOD,
        load: &NORMAL,
        fault: None,
    },
    fault(
        "undersized",
        "more short transactions than the pool has connections for",
        "`poolscope_saturated_seconds_total`, the phase `queue`, timeouts; used connections are executing; \
         `poolscope_recommended_size` rises",
        Behavior::GOOD,
        &SALE,
        ExpectedAlerts {
            diagnosed: diagnosis("PoolscopeDiagnosedUndersized", "`checkout_rush` holds most"),
            alert: "PoolscopePoolExhausted",
            cause: "checkout_rush",
            also: &[EXHAUSTION_SYMPTOMS],
            possible: &[],
        },
    ),
    fault(
        "slow_queries",
        "queries of the order list take 200 times as long",
        "`db_client_operation_duration_seconds`; `poolscope_connection_use_seconds_total` of `list_orders`, executing",
        Behavior::with(CodeFault::SlowQueries),
        &NORMAL,
        ExpectedAlerts {
            diagnosed: diagnosis("PoolscopeDiagnosedSlowQueries", "queries of `list_orders`"),
            alert: "PoolscopeSlowQueries",
            cause: "list_orders",
            also: &[EXHAUSTION_SYMPTOMS],
            possible: &[EXHAUSTED],
        },
    ),
    fault(
        "held_idle",
        "the order list calls another service while it holds a connection",
        "`poolscope_connection_use_seconds_total` of `list_orders`, idle; \
         `poolscope_request_warnings_total`, held_elsewhere",
        Behavior::with(CodeFault::ExternalCall),
        &NORMAL,
        ExpectedAlerts {
            diagnosed: diagnosis("PoolscopeDiagnosedHeldIdle", "`list_orders` holds"),
            alert: "PoolscopeHeldIdle",
            cause: "list_orders",
            also: &[EXHAUSTION_SYMPTOMS],
            possible: &[EXHAUSTED],
        },
    ),
    fault(
        "idle_in_transaction",
        "the payment service, called in a transaction, takes two seconds",
        "`poolscope_connection_use_seconds_total` of `place_order`, idle_in_transaction",
        Behavior::with(CodeFault::SlowPayment),
        &ORDERS,
        ExpectedAlerts {
            diagnosed: diagnosis("PoolscopeDiagnosedIdleInTransaction", "`place_order` holds"),
            alert: "PoolscopeIdleInTransaction",
            cause: "place_order",
            also: &[EXHAUSTION_SYMPTOMS],
            possible: &[EXHAUSTED],
        },
    ),
    fault(
        "leak",
        "the customer count never returns its connection, until the pool is exhausted",
        "`poolscope_suspected_leaks`; `GET /customers/count` in `poolscope_connection_use_seconds_total`, idle",
        Behavior::with(CodeFault::Leak),
        &COUNTS,
        ExpectedAlerts {
            diagnosed: diagnosis("PoolscopeDiagnosedLeak", "`GET /customers/count` does not return"),
            alert: "PoolscopeSuspectedLeak",
            cause: "GET /customers/count",
            also: &[&["PoolscopeHeldIdle"], EXHAUSTION_SYMPTOMS],
            possible: &[EXHAUSTED, "PoolscopeSelfDeadlock"],
        },
    )
    .with_settings(&[("leak_threshold", "5s")]),
    fault(
        "self_deadlock",
        "the checkout acquires a second connection while it holds its first, so that bursts deadlock in the pool",
        "`poolscope_self_deadlocks_total`, `poolscope_saturated_seconds_total`, timeouts of `write_audit`",
        Behavior::with(CodeFault::NestedCheckout),
        &BURSTS,
        ExpectedAlerts {
            diagnosed: diagnosis("PoolscopeDiagnosedSelfDeadlock", "hold a connection while they wait"),
            alert: "PoolscopeSelfDeadlock",
            cause: "write_audit",
            also: &[EXHAUSTION_SYMPTOMS],
            possible: &[EXHAUSTED, "PoolscopeHeldIdle"],
        },
    ),
    fault(
        "server_down",
        "the server is stopped, and started again after a while",
        "`poolscope_server_up` at 0, `poolscope_connecting_suspended_seconds`, `poolscope_connection_errors_total` of \
         connect, checkouts with the outcome `error`",
        Behavior::GOOD,
        &NORMAL,
        ExpectedAlerts {
            diagnosed: diagnosis("PoolscopeDiagnosedServerDown", "cannot be reached"),
            alert: "PoolscopeServerDown",
            cause: "io",
            also: &[&["PoolscopeConnectingFails"]],
            // Retries wait for the server, so that requests and their checkouts last as long as the policy permits.
            possible: &[
                "PoolscopeCheckoutErrors",
                "PoolscopeRetryStorm",
                "PoolscopeRetryBudgetSpent",
                "PoolscopeManyCheckouts",
                "PoolscopeCheckoutWaitHigh",
                "PoolscopeTimeoutBudgetBurns",
                "PoolscopeTimeoutBudgetBurnsFast",
                "PoolscopeWaitBudgetBurns",
                "PoolscopeWaitBudgetBurnsFast",
            ],
        },
    )
    .with_server_fault(ServerFault::Stop)
    .lasting(30),
    fault(
        "server_full",
        "other clients take all slots of the server, while bursts need more connections",
        "`poolscope_server_slots_left` at 0, `poolscope_connection_errors_total` of connect, 53300; \
         `poolscope_connecting_suspended_seconds`",
        Behavior::GOOD,
        &BURSTS,
        ExpectedAlerts {
            diagnosed: diagnosis("PoolscopeDiagnosedServerFull", "all its slots are taken"),
            alert: "PoolscopeServerFull",
            cause: "checkout_rush",
            also: &[&["PoolscopeServerSlotsLow", "PoolscopeCheckoutWaitHigh"]],
            possible: &[
                "PoolscopeConnectingFails",
                "PoolscopeCheckoutErrors",
                "PoolscopePoolSaturated",
                "PoolscopeWaitersSustained",
                "PoolscopeTimeoutBudgetBurnsFast",
                "PoolscopeTimeoutBudgetBurns",
                "PoolscopeWaitBudgetBurnsFast",
                "PoolscopeWaitBudgetBurns",
            ],
        },
    )
    .with_server_fault(ServerFault::Full),
    fault(
        "connect_slow",
        "the server takes a second for each new connection, while the load needs more than pool_size",
        "`db_client_connection_create_time_seconds`, the phase `connect`",
        Behavior::GOOD,
        &BUSY,
        ExpectedAlerts {
            diagnosed: diagnosis("PoolscopeDiagnosedConnectSlow", "onnecting takes long"),
            alert: "PoolscopeCheckoutWaitHigh",
            cause: "connect",
            also: &[&["PoolscopeWaitBudgetBurnsFast", "PoolscopeWaitBudgetBurns"]],
            possible: &["PoolscopePoolSaturated", "PoolscopeWaitersSustained"],
        },
    )
    .with_server_fault(ServerFault::SlowConnect)
    // A second in the queue, and one for connecting.
    .with_settings(&[("checkout_timeout", "5s")]),
    fault(
        "churn",
        "the product page discards its connection each time",
        "`poolscope_connections_created_total`, `poolscope_connections_closed_total` with reason discarded",
        Behavior::with(CodeFault::Discard),
        &NORMAL,
        ExpectedAlerts {
            diagnosed: diagnosis("PoolscopeDiagnosedChurn", "closed and replaced"),
            alert: "PoolscopeConnectionChurn",
            cause: "discarded",
            also: &[],
            possible: &["PoolscopeCheckoutWaitHigh"],
        },
    ),
    fault(
        "retry_storm",
        "rows are locked that reservations lock without waiting, so that each retry fails",
        "`poolscope_retries_total` with 55P03, `poolscope_retry_budget_available` at 0, \
         `poolscope_retry_exhausted_total` with reason budget",
        Behavior::with(CodeFault::LockNoWait),
        &RESERVATIONS,
        ExpectedAlerts {
            diagnosed: diagnosis("PoolscopeDiagnosedRetryStorm", "`reserve_stock`"),
            alert: "PoolscopeRetryStorm",
            cause: "reserve_stock",
            also: &[&["PoolscopeRetryBudgetSpent"]],
            possible: EXHAUSTION_SYMPTOMS,
        },
    )
    .with_server_fault(ServerFault::LockedRows),
    fault(
        "dirty",
        "connections are returned in a transaction or while busy",
        "`poolscope_dirty_returns_total`: in_transaction of `update_stock`, busy of `list_orders`",
        Behavior::with(CodeFault::DirtyReturn),
        &UPDATES,
        ExpectedAlerts {
            diagnosed: None,
            alert: "PoolscopeDirtyReturns",
            cause: "update_stock",
            also: &[],
            possible: &[],
        },
    ),
    fault(
        "cache_down",
        "the Redis server of the cache is killed, and started again after a while",
        "`poolscope_cache_lookups_total`, bypassed; `poolscope_cache_errors_total`; `poolscope_checkouts_started_total` of \
         `get_product` rises, and `poolscope_cache_loads_in_flight` stays below its maximum",
        Behavior::GOOD,
        &READS,
        ExpectedAlerts {
            diagnosed: diagnosis("PoolscopeDiagnosedCacheDown", "cache in front of the pool is away"),
            alert: "PoolscopeCacheDown",
            cause: "products",
            also: &[],
            // Of the Redis server's own pool, and while the cache is being filled again.
            possible: &[
                "PoolscopeServerDown",
                "PoolscopeDiagnosedServerDown",
                "PoolscopeConnectingFails",
                "PoolscopeCheckoutErrors",
                "PoolscopeCacheHitRatioLow",
            ],
        },
    )
    .with_cache_fault(CacheFault::Down)
    .lasting(30),
    fault(
        "cache_stampede",
        "all cached values are removed ten times per second, so that all readers need the database at once",
        "`poolscope_cache_lookups_total`, miss; `poolscope_cache_loads_in_flight` stays at most `poolscope_cache_loads_max`",
        Behavior::GOOD,
        &READS,
        ExpectedAlerts {
            diagnosed: None,
            alert: "PoolscopeCacheHitRatioLow",
            cause: "products",
            also: &[],
            possible: &[],
        },
    )
    .with_cache_fault(CacheFault::Stampede),
];
