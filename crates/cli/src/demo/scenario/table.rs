//! Every scenario.

use std::time::Duration;

use super::act::Act;
use super::fires::EXHAUSTED;
use super::{Fault, Fires, Scenario};
use crate::demo::shop::{Endpoint, Flaw, Manner};
use crate::demo::workload::{Arrival, Load, Rushes};
use crate::monitoring::rules::alerts::EXHAUSTION_SYMPTOMS;

use Arrival::{Archiving, Customer};

/// The shop as it is in life: it runs out of connections now and then.
static LIVELY: Load = Load {
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
    more: &[],
    rushes: Some(Rushes { first: Duration::from_secs(4), apart: [12.0, 20.0], size: [14, 24], third: [85, 105] }),
    patience: Some(Duration::from_secs(1)),
};

/// What keeps less than one connection busy, and never all of them.
const CALM_RATES: &[(Arrival, f64)] = &[
    (Customer(Endpoint::GetProduct), 16.0),
    (Customer(Endpoint::ListOrders), 12.0),
    (Customer(Endpoint::PlaceOrder), 3.0),
    (Customer(Endpoint::UpdateStock), 3.0),
    (Customer(Endpoint::SalesReport), 0.2),
    (Customer(Endpoint::CountCustomers), 0.5),
    (Customer(Endpoint::PrintInvoice), 0.2),
    (Archiving, 0.05),
];

static CALM: Load = calm_and(&[]);

/// The calm load, and this as well.
const fn calm_and(more: &'static [(Arrival, f64)]) -> Load {
    Load { rates: CALM_RATES, more, rushes: None, patience: None }
}

/// The calm load, and a rush every few seconds that needs all of the pool.
static RUSHES: Load = Load {
    rates: CALM_RATES,
    more: &[],
    rushes: Some(Rushes { first: Duration::from_millis(500), apart: [4.0, 6.0], size: [16, 24], third: [16, 24] }),
    patience: None,
};

/// A sale: some twelve connections' worth of short transactions.
static SALE: Load = calm_and(&[(Customer(Endpoint::CheckoutRush), 40.0)]);

/// A load that needs more than `pool_size` half of the time.
static BUSY: Load = calm_and(&[(Customer(Endpoint::CheckoutRush), 14.0)]);

static ORDERS: Load = calm_and(&[(Customer(Endpoint::PlaceOrder), 4.0)]);
static COUNTS: Load = calm_and(&[(Customer(Endpoint::CountCustomers), 1.0)]);
static RESERVATIONS: Load = calm_and(&[(Customer(Endpoint::ReserveStock), 20.0)]);
static UPDATES: Load = calm_and(&[(Customer(Endpoint::UpdateStock), 5.0)]);

/// A scenario whose load is calm before and after its fault.
const fn fault(
    name: &'static str,
    about: &'static str,
    shows: &'static str,
    manner: Manner,
    load: &'static Load,
    fires: Fires,
) -> Scenario {
    let fault = Some(Fault { manner, load, act: Act::Nothing, lasts: None, fires });
    Scenario { name, about, shows, settings: &[], manner: Manner::GOOD, load: &CALM, fault }
}

impl Scenario {
    /// The same, with something that is done to the server as well.
    const fn and(mut self, act: Act) -> Self {
        if let Some(fault) = &mut self.fault {
            fault.act = act;
        }
        self
    }

    /// The same, with a fault that is over after so many seconds.
    const fn lasting(mut self, seconds: u64) -> Self {
        if let Some(fault) = &mut self.fault {
            fault.lasts = Some(Duration::from_secs(seconds));
        }
        self
    }

    /// The same, with settings of its own.
    const fn set(mut self, settings: &'static [(&'static str, &'static str)]) -> Self {
        self.settings = settings;
        self
    }
}

/// The first one is played when none is asked for.
pub(super) static SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "shop",
        about: "a shop as they are: rushes, retries, customers who leave, a connection held while a mail is sent",
        shows: "everything, a little",
        settings: &[],
        manner: Manner::USUAL,
        load: &LIVELY,
        fault: None,
    },
    Scenario {
        name: "healthy",
        about: "a calm load that never needs all of the pool: nobody waits, and nothing fails",
        shows: "no wait, no timeout, no error, no retry",
        settings: &[],
        manner: Manner::GOOD,
        load: &CALM,
        fault: None,
    },
    fault(
        "undersized",
        "a sale: more short transactions than the pool has connections for",
        "`poolscope_saturated_seconds_total`, the phase `queue`, timeouts; used connections execute; \
         `poolscope_recommended_size` rises",
        Manner::GOOD,
        &SALE,
        Fires { alert: "PoolscopePoolExhausted", blames: "checkout_rush", also: &[EXHAUSTION_SYMPTOMS], perhaps: &[] },
    ),
    fault(
        "slow_queries",
        "listing orders takes the server two hundred times as long as before",
        "`db_client_operation_duration_seconds`; `poolscope_connection_use_seconds_total` of `list_orders`, executing",
        Manner::with(Flaw::SlowQueries),
        &CALM,
        Fires {
            alert: "PoolscopeSlowQueries",
            blames: "list_orders",
            also: &[&[EXHAUSTED], EXHAUSTION_SYMPTOMS],
            perhaps: &[],
        },
    ),
    fault(
        "held_idle",
        "listing orders calls another service while it holds its connection",
        "`poolscope_connection_use_seconds_total` of `list_orders`, idle; \
         `poolscope_request_warnings_total`, held_elsewhere",
        Manner::with(Flaw::CallsElsewhere),
        &CALM,
        Fires {
            alert: "PoolscopeHeldIdle",
            blames: "list_orders",
            also: &[&[EXHAUSTED], EXHAUSTION_SYMPTOMS],
            perhaps: &[],
        },
    ),
    fault(
        "idle_in_transaction",
        "the payment service, which is called within a transaction, takes two seconds",
        "`poolscope_connection_use_seconds_total` of `place_order`, idle_in_transaction",
        Manner::with(Flaw::SlowPayment),
        &ORDERS,
        Fires {
            alert: "PoolscopeIdleInTransaction",
            blames: "place_order",
            also: &[&[EXHAUSTED], EXHAUSTION_SYMPTOMS],
            perhaps: &[],
        },
    ),
    fault(
        "leak",
        "counting customers never gives its connection back, until nothing is left of the pool",
        "`poolscope_suspected_leaks`; `GET /customers/count` in `poolscope_connection_use_seconds_total`, idle",
        Manner::with(Flaw::Leaks),
        &COUNTS,
        Fires {
            alert: "PoolscopeSuspectedLeak",
            blames: "GET /customers/count",
            also: &[&[EXHAUSTED, "PoolscopeHeldIdle"], EXHAUSTION_SYMPTOMS],
            perhaps: &["PoolscopeSelfDeadlock"],
        },
    )
    .set(&[("leak_threshold", "5s")]),
    fault(
        "self_deadlock",
        "checking out takes a second connection while it holds its first: a rush waits for itself",
        "`poolscope_self_deadlocks_total`, `poolscope_saturated_seconds_total`, timeouts of `write_audit`",
        Manner::with(Flaw::Nests),
        &RUSHES,
        Fires {
            alert: "PoolscopeSelfDeadlock",
            blames: "checkout_rush",
            also: &[EXHAUSTION_SYMPTOMS],
            perhaps: &[EXHAUSTED, "PoolscopeHeldIdle"],
        },
    ),
    fault(
        "server_down",
        "the server is stopped, and after a while started again",
        "`poolscope_server_up` at 0, `poolscope_connecting_suspended_seconds`, `poolscope_connection_errors_total` of \
         connect, checkouts that end with `error`",
        Manner::GOOD,
        &CALM,
        Fires {
            alert: "PoolscopeServerDown",
            blames: "io",
            also: &[&["PoolscopeConnectingFails", "PoolscopeRetryBudgetSpent"]],
            perhaps: &["PoolscopeRetryStorm"],
        },
    )
    .and(Act::StopServer)
    .lasting(30),
    fault(
        "server_full",
        "others take all of the server's slots, while rushes need more connections",
        "`poolscope_server_slots_left` at 0, `poolscope_connection_errors_total` of connect, 53300; \
         `poolscope_connecting_suspended_seconds`",
        Manner::GOOD,
        &RUSHES,
        Fires {
            alert: "PoolscopeServerFull",
            blames: "checkout_rush",
            also: &[&["PoolscopeServerSlotsLow", "PoolscopeCheckoutWaitHigh"]],
            perhaps: &[
                "PoolscopeConnectingFails",
                "PoolscopePoolSaturated",
                "PoolscopeWaitersSustained",
                "PoolscopeTimeoutBudgetBurnsFast",
                "PoolscopeTimeoutBudgetBurns",
                "PoolscopeWaitBudgetBurnsFast",
                "PoolscopeWaitBudgetBurns",
            ],
        },
    )
    .and(Act::FillServer),
    fault(
        "connect_slow",
        "the server takes a second for each new connection, while the load needs some beyond pool_size",
        "`db_client_connection_create_time_seconds`, the phase `connect`",
        Manner::GOOD,
        &BUSY,
        Fires {
            alert: "PoolscopeCheckoutWaitHigh",
            blames: "connect",
            also: &[&["PoolscopeWaitBudgetBurnsFast", "PoolscopeWaitBudgetBurns"]],
            perhaps: &["PoolscopePoolSaturated", "PoolscopeWaitersSustained"],
        },
    )
    .and(Act::DelayConnects)
    // Long enough for a second in the queue and one for the connection.
    .set(&[("checkout_timeout", "5s")]),
    fault(
        "churn",
        "finding a product throws its connection away each time",
        "`poolscope_connections_created_total`, `poolscope_connections_closed_total` with reason discarded",
        Manner::with(Flaw::Discards),
        &CALM,
        Fires {
            alert: "PoolscopeConnectionChurn",
            blames: "discarded",
            also: &[],
            perhaps: &["PoolscopeCheckoutWaitHigh"],
        },
    ),
    fault(
        "retry_storm",
        "somebody locks rows that reserving stock does not wait for: it is tried again and again, in vain",
        "`poolscope_retries_total` with 55P03, `poolscope_retry_budget_available` at 0, \
         `poolscope_retry_exhausted_total` with reason budget",
        Manner::with(Flaw::WaitsForNobody),
        &RESERVATIONS,
        Fires {
            alert: "PoolscopeRetryStorm",
            blames: "reserve_stock",
            also: &[&["PoolscopeRetryBudgetSpent"]],
            perhaps: EXHAUSTION_SYMPTOMS,
        },
    )
    .and(Act::LockRows),
    fault(
        "dirty",
        "connections come back in transactions, and at work",
        "`poolscope_dirty_returns_total`: in_transaction of `update_stock`, busy of `list_orders`",
        Manner::with(Flaw::LeavesDirty),
        &UPDATES,
        Fires { alert: "PoolscopeDirtyReturns", blames: "update_stock", also: &[], perhaps: &[] },
    ),
];
