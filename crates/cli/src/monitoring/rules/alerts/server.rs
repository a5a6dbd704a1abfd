//! Can the server be had, and is it quick?

use super::{Alert, SHORT, Scope, Severity, grew, indented, uses};
use crate::monitoring::names::{CLOSED, CONNECTION_ERRORS, SERVER_SLOTS, SERVER_SLOTS_LEFT, SERVER_UP};
use crate::monitoring::rules::blame::Blame;
use crate::monitoring::rules::recording::{CHECKOUTS, CONNECTED, FLEET_MAX, QUERIES, SLOW_QUERY_SHARE};
use crate::monitoring::thresholds::Thresholds;

pub(super) fn alerts(t: &Thresholds) -> Vec<Alert> {
    vec![server_down(t), connecting_fails(t), server_full(t), slots_low(t), slots_short(t), churn(t), slow_queries(t)]
}

fn server_down(t: &Thresholds) -> Alert {
    Alert {
        name: "PoolscopeServerDown",
        severity: Severity::Critical,
        scope: Scope::Pool,
        expr: format!("{SERVER_UP} == 0"),
        pending: t.for_page.clone(),
        summary: "The database does not answer.",
        says: "its server cannot be asked how it is.".to_owned(),
        blame: vec![Blame::unanswered(t)],
        meaning:
            "Whoever asks the server what it says of itself cannot reach it, finds no slot, or has no answer within \
                  5 s. Only where it is asked: by `poolscope serve`, the demo, or `Pool::watch_server`."
                .to_owned(),
        thresholds: Vec::new(),
        comes_with: &[&[
            "PoolscopeConnectingFails",
            "PoolscopeServerFull",
            "PoolscopeRetryBudgetSpent",
            "PoolscopeRetryStorm",
            "PoolscopeWaitBudgetBurnsFast",
        ]],
    }
}

fn connecting_fails(t: &Thresholds) -> Alert {
    let now = &t.window_now;
    Alert {
        name: "PoolscopeConnectingFails",
        severity: Severity::Critical,
        scope: Scope::Pool,
        expr: format!(
            "sum without (reason) (rate({CLOSED}{{reason=\"connect_failed\"}}[{now}])) > {}",
            t.connect_failures
        ),
        pending: t.for_page.clone(),
        summary: "Connecting to the database fails.",
        says: format!("{{{{ $value | printf \"%.2f\" }}}} attempts to connect failed each second of the last {now}."),
        blame: vec![Blame::connect_error(t)],
        meaning: format!("In the last {now} attempts to connect failed, more than {}.", t.connect_failures.human()),
        thresholds: uses([&t.connect_failures, now]),
        comes_with: &[&[
            "PoolscopeServerDown",
            "PoolscopeServerFull",
            "PoolscopeRetryBudgetSpent",
            "PoolscopeRetryStorm",
            "PoolscopeWaitBudgetBurnsFast",
        ]],
    }
}

fn server_full(t: &Thresholds) -> Alert {
    let window = &t.window;
    let refused = format!("{CONNECTION_ERRORS}{{phase=\"connect\",sqlstate=\"53300\"}}");
    Alert {
        name: "PoolscopeServerFull",
        severity: Severity::Critical,
        scope: Scope::Pool,
        expr: format!("sum without (phase, sqlstate) (\n{}\n) > 0", indented(&grew(&refused, window))),
        pending: t.for_event.clone(),
        summary: "The database has no slots left for connections (SQLSTATE 53300).",
        says: format!(
            "{{{{ $value | humanize }}}} attempts to connect were refused in the last {window}, since the server has no \
             slots left."
        ),
        blame: vec![Blame::holder()],
        meaning: format!("In the last {window} the server refused a connection with 53300, too_many_connections."),
        thresholds: uses([window]),
        comes_with: &[
            &[
                "PoolscopeServerSlotsLow",
                "PoolscopeConnectingFails",
                "PoolscopeServerDown",
                "PoolscopeServerSlotsShort",
            ],
            SHORT,
        ],
    }
}

fn slots_low(t: &Thresholds) -> Alert {
    Alert {
        name: "PoolscopeServerSlotsLow",
        severity: Severity::Warning,
        scope: Scope::Pool,
        expr: format!("{SERVER_SLOTS_LEFT}\n/\n({SERVER_SLOTS} > 0)\n< {}", t.slots_left_share),
        pending: t.for_ticket.clone(),
        summary: "The database has few slots left for connections.",
        says: "{{ $value | humanizePercentage }} of the slots that its server has are left.".to_owned(),
        blame: vec![Blame::application()],
        meaning: format!(
            "By the server's own account less than {} of its slots are left, or of those of the pool's database, where \
             that has a limit of its own which is less. Only where it is asked: by `poolscope serve`, the demo, or \
             `Pool::watch_server`.",
            t.slots_left_share.human()
        ),
        thresholds: uses([&t.slots_left_share]),
        comes_with: &[&["PoolscopeServerFull", "PoolscopeServerSlotsShort"]],
    }
}

fn slots_short(t: &Thresholds) -> Alert {
    Alert {
        name: "PoolscopeServerSlotsShort",
        severity: Severity::Warning,
        scope: Scope::Fleet,
        expr: format!("{FLEET_MAX} > ({} * ({} - {}))", t.server_share, t.server_connections, t.server_reserved),
        pending: t.for_ticket.clone(),
        summary: "The pools together may ask for more connections than the server has.",
        says: format!(
            "all instances together may open {{{{ $value | humanize }}}} connections, and the server has {} slots.",
            t.server_connections.value - t.server_reserved.value
        ),
        blame: Vec::new(),
        meaning: format!(
            "The maxima of the pools of one name, of all instances of a job, are together more than {} of the slots of \
             the server: {}, less {} that are reserved. It is what may be, before it is: `server_connections` in \
             `alerts/thresholds.toml` says how many the server has. What it has left now is another alert.",
            t.server_share.human(),
            t.server_connections.human(),
            t.server_reserved.human()
        ),
        thresholds: uses([&t.server_share, &t.server_connections, &t.server_reserved]),
        comes_with: &[&["PoolscopeServerSlotsLow", "PoolscopeServerFull"]],
    }
}

fn churn(t: &Thresholds) -> Alert {
    let window = &t.window;
    Alert {
        name: "PoolscopeConnectionChurn",
        severity: Severity::Warning,
        scope: Scope::Pool,
        expr: format!("{CONNECTED}\n/\n({CHECKOUTS} > 0)\n> {}\nand\n{CONNECTED} > {}", t.churn_share, t.churn_floor),
        pending: t.for_ticket.clone(),
        summary: "Connections are made and thrown away: the pool keeps little.",
        says: format!(
            "for {{{{ $value | humanizePercentage }}}} of the checkouts of the last {window} a connection was made."
        ),
        blame: vec![Blame::close_reason(t)],
        meaning: format!(
            "Over the last {window} more than {} connections were established for a hundred checkouts, and more than {}.",
            t.churn_share.value * 100.0,
            t.churn_floor.human()
        ),
        thresholds: uses([&t.churn_share, &t.churn_floor, window]),
        comes_with: &[&["PoolscopeDirtyReturns", "PoolscopeCheckoutWaitHigh"]],
    }
}

fn slow_queries(t: &Thresholds) -> Alert {
    let window = &t.window;
    Alert {
        name: "PoolscopeSlowQueries",
        severity: Severity::Warning,
        scope: Scope::Pool,
        expr: format!("{SLOW_QUERY_SHARE} > {}\nand\n{QUERIES} > {}", t.slow_query_share, t.query_floor),
        pending: t.for_ticket.clone(),
        summary: "Queries are slow.",
        says: format!(
            "{{{{ $value | humanizePercentage }}}} of the queries of the last {window} took longer than {}.",
            t.slow_query_seconds.human()
        ),
        blame: vec![Blame::slow_query(t), Blame::executor(t)],
        meaning: format!(
            "Of the queries that ended in the last {window}, more than {} took longer than {}, and there were more than {}.",
            t.slow_query_share.human(),
            t.slow_query_seconds.human(),
            t.query_floor.human()
        ),
        thresholds: uses([&t.slow_query_share, &t.slow_query_seconds, &t.query_floor, window]),
        comes_with: &[&["PoolscopePoolExhausted"], SHORT],
    }
}
