//! The row with the server's statistics, if a process polls it (`Pool::watch_server`, `poolscope serve`, the demo).
//!
//! Several instances of a job may poll one server and report the same values. Per pool name only one of them counts, so that
//! sums are over servers.

use std::fmt;

use crate::monitoring::dashboards::layout::Row;
use crate::monitoring::dashboards::panel::{CRITICAL, Description, NEUTRAL, PanelBuilder, WARNING};
use crate::monitoring::dashboards::panel_id::PanelId;
use crate::monitoring::dashboards::query::{max, metric, sum, sum_by};
use crate::monitoring::dashboards::shared;
use crate::monitoring::dashboards::unit::Unit;
use crate::monitoring::names::POOL_LABEL;
use crate::monitoring::thresholds::Thresholds;

/// Applications shown, of up to 200 in the metric.
const TOP_APPLICATIONS: usize = 10;

pub(super) fn row(thresholds: &Thresholds) -> Row {
    let panels = vec![
        servers_down(),
        server_info(),
        slots_taken(thresholds),
        server_slots(thresholds),
        backends_by_application(),
        backends_by_state(),
        lock_waiters(),
        oldest_transaction(),
    ];
    Row::open("PostgreSQL server", panels)
}

/// Returns one value per server.
fn per_server(of: impl fmt::Display) -> String {
    format!("max by (job, {POOL_LABEL}) ({of})")
}

/// Returns the backends of all servers by a label.
fn backends_by(label: &str) -> String {
    let per_server =
        format!("max by (job, {POOL_LABEL}, application_name, state) ({})", metric!("poolscope_server_backends"));
    sum_by(&[label], per_server)
}

fn servers_down() -> PanelBuilder {
    let description = Description {
        shows: "Pools whose server did not answer the last poll, on a connection outside the pool. The whole row is \
                empty if no process polls the server (Pool::watch_server).",
        normal: "0. Otherwise the server is unreachable, has no free slot, or did not answer within 5 s.",
        action: "Check the connection errors, then the server.",
    };
    PanelBuilder::stat(PanelId::ServersDown, "Servers down", description)
        .size(8, 4)
        .query(shared::servers_down(), "down")
        .nonzero(CRITICAL)
        .link_to(PanelId::ConnectionErrors, "Connection errors")
}

fn server_info() -> PanelBuilder {
    let description = Description {
        shows: "PostgreSQL version and replication role: primary or standby.",
        normal: "Primary, for a pool that writes. standby: after a failover, the address still points to the old server.",
        action: "With several hosts in the URL, target_session_attrs=read-write selects the primary.",
    };
    let info = format!("count by (version, role) ({})", metric!("poolscope_server_info"));
    PanelBuilder::stat(PanelId::ServerInfo, "Version and role", description)
        .size(8, 4)
        .instant_query(info, "{{version}} {{role}}")
        .option("textMode", "name".into())
        .option("graphMode", "none".into())
}

fn slots_taken(thresholds: &Thresholds) -> PanelBuilder {
    let description = Description {
        shows: "Share of the server's connection slots taken by all clients; of several servers, the fullest.",
        normal: "Below the orange alert threshold. At 100 %, connecting fails with 53300.",
        action: "Check the backends by application.",
    };
    PanelBuilder::stat(PanelId::SlotsTaken, "Slots taken", description)
        .size(8, 4)
        .query(shared::slots_taken_share(), "taken")
        .unit(Unit::Share)
        .full_scale()
        .threshold(WARNING, &thresholds.slots_left_share.complement())
        .link_to(PanelId::ServerSlots, "Over time")
}

fn server_slots(thresholds: &Thresholds) -> PanelBuilder {
    let description = Description {
        shows: "The server's connection slots (dashed), taken and left as the server reports them, and the connections \
                that these pools report. The difference belongs to other clients. The orange line is the alert \
                threshold.",
        normal: "Taken below the orange line. Above it, the next deployment or burst is rejected (53300). If the \
                 server has more connections of these pools' application than they report, some processes are not \
                 scraped, or have ended and left connections.",
        action: "Check the backends by application. These pools: lower max_overflow. Other clients: set a limit (ALTER \
                 ROLE … CONNECTION LIMIT), or use a proxy such as PgBouncer.",
    };
    let slots = metric!("poolscope_server_slots");
    let left = metric!("poolscope_server_slots_left");
    let alert = thresholds.slots_left_share.complement();
    PanelBuilder::lines(PanelId::ServerSlots, "Connection slots: taken and left", description)
        .size(12, 9)
        .query(sum(per_server(format!("{slots} - {left}"))), "taken")
        .query(sum(per_server(&left)), "left")
        .query(sum(metric!("db_client_connection_count")), "reported by these pools")
        .query(sum(per_server(&slots)), "server slots")
        .query(format!("{} * {alert}", sum(per_server(&slots))), "alert threshold")
        .colors(&[("taken", "blue"), ("left", "#6e7079"), ("reported by these pools", "purple")])
        .limit("server slots", NEUTRAL)
        .limit("alert threshold", WARNING)
}

fn backends_by_application() -> PanelBuilder {
    let description = Description {
        shows: "Client backends of the whole server by application_name, stacked; the ten largest. The name is a \
                setting of each pool, poolscope by default; unnamed has none.",
        normal: "Known names and steady numbers. More backends of an application than its pools report: some processes \
                 are not scraped, or left connections.",
        action: "Give each service a name of its own (POOLSCOPE_APPLICATION_NAME), so that it can be identified here.",
    };
    PanelBuilder::lines(PanelId::BackendsByApplication, "Backends by application", description)
        .size(12, 9)
        .query(format!("topk({TOP_APPLICATIONS}, {} > 0)", backends_by("application_name")), "{{application_name}}")
        .stacked()
        .legend_table()
}

fn backends_by_state() -> PanelBuilder {
    let description = Description {
        shows: "Client backends of the whole server by state, stacked. hidden: the polling role has no permission to \
                see the state.",
        normal: "Mostly idle and active. Idle in transaction keeps locks; more active backends than CPU cores for long \
                 means contention.",
        action: "idle in transaction: check the oldest transaction, and the holders in the pools. hidden: grant \
                 pg_monitor to the polling role.",
    };
    PanelBuilder::lines(PanelId::BackendsByState, "Backends by state", description)
        .query(backends_by("state"), "{{state}}")
        .stacked()
        .colors(&[
            ("active", "blue"),
            ("idle", "#6e7079"),
            ("idle_in_transaction", "orange"),
            ("idle_in_transaction_aborted", "red"),
            ("other", "light-blue"),
            ("hidden", "purple"),
        ])
}

fn lock_waiters() -> PanelBuilder {
    let description = Description {
        shows: "Backends that wait for a lock held by another backend, at each poll.",
        normal: "0 or short spikes. Otherwise a transaction blocks others, which hold their connections meanwhile.",
        action: "On the server, pg_blocking_pids(pid) returns the blocking processes. Lock rows in the same order, and \
                 commit sooner.",
    };
    PanelBuilder::lines(PanelId::LockWaiters, "Backends waiting for locks", description)
        .soft_max(1.0)
        .query(sum(per_server(metric!("poolscope_server_lock_waiters"))), "backends")
        .colors(&[("backends", "orange")])
}

fn oldest_transaction() -> PanelBuilder {
    let description = Description {
        shows: "Age of the oldest transaction of any client in any database, including prepared ones; and the longest \
                time that a transaction has been idle.",
        normal: "Seconds. If either climbs for minutes, locks are kept, and VACUUM cannot remove newer dead rows.",
        action: "In the pools, check the holders idle in transaction. Other clients: order pg_stat_activity by \
                 xact_start; set idle_in_transaction_session_timeout. Prepared transactions: pg_prepared_xacts.",
    };
    PanelBuilder::lines(PanelId::OldestTransaction, "Oldest transaction", description)
        .soft_max(1.0)
        .query(max(metric!("poolscope_server_oldest_transaction_seconds")), "transaction")
        .query(max(metric!("poolscope_server_oldest_idle_in_transaction_seconds")), "idle in transaction")
        .unit(Unit::Seconds)
        .colors(&[("transaction", "blue"), ("idle in transaction", "orange")])
}
