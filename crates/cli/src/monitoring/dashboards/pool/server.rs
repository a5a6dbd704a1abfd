//! What does the server say itself? Where somebody asks it: `Pool::watch_server`, as `poolscope serve` and the demo do.
//!
//! Several instances of a job may ask one server, and each has the same of it. So of those of one pool's name one counts, and
//! what is added up is of several servers.

use std::fmt;

use super::super::drawing::{CRITICAL, Drawing, NEUTRAL, Says, WARNING};
use super::super::frame::Row;
use super::super::panels::Panel;
use super::super::query::{max, metric, sum, sum_by};
use super::super::shared::{servers_that_do_not_answer, share_of_slots_taken};
use super::super::unit::Unit;
use crate::monitoring::Thresholds;
use crate::monitoring::names::POOL_LABEL;

/// How many applications a panel shows, those with most. The metric tells two hundred apart.
const MOST: usize = 10;

pub(super) fn row(thresholds: &Thresholds) -> Row {
    let panels = vec![
        down(),
        info(),
        taken(thresholds),
        slots(thresholds),
        by_application(),
        by_state(),
        lock_waiters(),
        oldest_transaction(),
    ];
    Row { title: "The server's own view", panels }
}

/// What is said of each server, once.
fn once(of: impl fmt::Display) -> String {
    format!("max by (job, {POOL_LABEL}) ({of})")
}

/// Backends of each server, once, added up by a label.
fn backends_by(label: &str) -> String {
    let once =
        format!("max by (job, {POOL_LABEL}, application_name, state) ({})", metric!("poolscope_server_backends"));
    sum_by(&[label], once)
}

fn down() -> Drawing {
    let says = Says {
        means: "Pools whose server did not answer when it was last asked how it is, on a connection that is not the \
                pool's. No data here and in the whole row: nobody asks (Pool::watch_server).",
        bad: "Any: it cannot be reached, has no slot left, or did not answer within 5 s.",
        cure: "See with what connecting fails; then look at the server.",
    };
    Drawing::stat(Panel::ServersDown, "Server down", says)
        .size(8, 4)
        .asks(servers_that_do_not_answer(), "do not answer")
        .any(CRITICAL)
        .leads_to(Panel::ConnectionErrors, "With what connecting fails")
}

fn info() -> Drawing {
    let says = Says {
        means: "The version of PostgreSQL, and its part in replication: primary or standby.",
        bad: "standby, where the pool writes: a failover has happened, and its address still leads to the old server.",
        cure: "With several hosts in the URL, target_session_attrs=read-write finds the primary.",
    };
    let info = format!("count by (version, role) ({})", metric!("poolscope_server_info"));
    Drawing::stat(Panel::ServerInfo, "Version and role", says)
        .size(8, 4)
        .asks_now(info, "{{version}} {{role}}")
        .option("textMode", "name".into())
        .option("graphMode", "none".into())
}

fn taken(thresholds: &Thresholds) -> Drawing {
    let says = Says {
        means: "The share of the server's slots that are taken, whoever took them; of several servers, of the fullest.",
        bad: "Orange: an alert, if it stays so. At 100 % connecting fails with 53300.",
        cure: "See below which application took them.",
    };
    Drawing::stat(Panel::SlotsTaken, "Slots taken", says)
        .size(8, 4)
        .asks(share_of_slots_taken(), "taken")
        .unit(Unit::Share)
        .up_to_one()
        .above(WARNING, &thresholds.slots_left_share.allowance())
        .leads_to(Panel::ServerSlots, "Over time")
}

fn slots(thresholds: &Thresholds) -> Drawing {
    let says = Says {
        means: "How many slots the server has for clients (dashed), how many are taken and how many are left, by its own \
                account; and how many connections these pools have, by theirs. What is taken beside these is others'. The \
                orange line is where it is an alert.",
        bad: "Taken above the orange line: the next deployment, or the next rush, is refused (53300). More taken by these \
              pools' application than they count: processes that are not scraped, or that ended and left connections.",
        cure: "See below which application took them. These pools: lower max_overflow. Others: give them a limit \
               (ALTER ROLE … CONNECTION LIMIT), or a proxy such as PgBouncer.",
    };
    let slots = metric!("poolscope_server_slots");
    let left = metric!("poolscope_server_slots_left");
    let alert = thresholds.slots_left_share.allowance();
    Drawing::lines(Panel::ServerSlots, "Slots: taken and left", says)
        .size(12, 9)
        .asks(sum(once(format!("{slots} - {left}"))), "taken")
        .asks(sum(once(&left)), "left")
        .asks(sum(metric!("db_client_connection_count")), "of these pools, as they count")
        .asks(sum(once(&slots)), "slots of the server")
        .asks(format!("{} * {alert}", sum(once(&slots))), "alert")
        .colours(&[("taken", "blue"), ("left", "#6e7079"), ("of these pools, as they count", "purple")])
        .limit("slots of the server", NEUTRAL)
        .limit("alert", WARNING)
}

fn by_application() -> Drawing {
    let says = Says {
        means: "Clients' backends of the whole server by application_name, stacked; the ten names with most. A pool's is a \
                setting, poolscope by default; unnamed has none.",
        bad: "One that grows, or that nobody knows. More of a pool's name than all pools of that name count.",
        cure: "Give each service a name of its own (POOLSCOPE_APPLICATION_NAME), so that this tells who took the slots.",
    };
    Drawing::lines(Panel::BackendsByApplication, "Backends: by application", says)
        .size(12, 9)
        .asks(format!("topk({MOST}, {} > 0)", backends_by("application_name")), "{{application_name}}")
        .stacked()
        .listed()
}

fn by_state() -> Drawing {
    let says = Says {
        means: "The same by what the server says they are at, stacked. hidden: the role that asks may not see it.",
        bad: "Much orange or red: transactions that wait for their clients, and keep locks meanwhile. More active than the \
              server has processors, for long: they wait for each other.",
        cure: "idle in a transaction: see below since when, and who holds it in the pools. hidden: grant pg_monitor to the \
               role that asks.",
    };
    Drawing::lines(Panel::BackendsByState, "Backends: by state", says)
        .asks(backends_by("state"), "{{state}}")
        .stacked()
        .colours(&[
            ("active", "blue"),
            ("idle", "#6e7079"),
            ("idle_in_transaction", "orange"),
            ("idle_in_transaction_aborted", "red"),
            ("other", "light-blue"),
            ("hidden", "purple"),
        ])
}

fn lock_waiters() -> Drawing {
    let says = Says {
        means: "Backends that wait for a lock which another holds, when the server was asked.",
        bad: "Any that stay: one transaction holds up the others, and they hold their connections meanwhile.",
        cure: "On the server, pg_blocking_pids(pid) names who blocks whom. Touch rows in one order, and commit sooner.",
    };
    Drawing::lines(Panel::LockWaiters, "Waiting for locks", says)
        .at_least(1.0)
        .asks(sum(once(metric!("poolscope_server_lock_waiters"))), "backends")
        .colours(&[("backends", "orange")])
}

fn oldest_transaction() -> Drawing {
    let says = Says {
        means: "The age of the oldest transaction of any client, in any database, prepared ones included; and for how long the \
                one that has waited longest for its client has been open without a query.",
        bad: "Either that climbs for minutes: locks are kept, and VACUUM removes nothing that is younger.",
        cure: "In the pools, who holds connections idle in a transaction is above. Others: pg_stat_activity by xact_start; \
               set idle_in_transaction_session_timeout. Prepared ones: pg_prepared_xacts.",
    };
    Drawing::lines(Panel::OldestTransaction, "Oldest transaction", says)
        .at_least(1.0)
        .asks(max(metric!("poolscope_server_oldest_transaction_seconds")), "transaction")
        .asks(max(metric!("poolscope_server_oldest_idle_in_transaction_seconds")), "idle in transaction")
        .unit(Unit::Seconds)
        .colours(&[("transaction", "blue"), ("idle in transaction", "orange")])
}
